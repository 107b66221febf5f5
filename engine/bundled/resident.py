"""`ResidentModel`: an unquantized checkpoint kept in memory, from which engines of other configs are built.

Does not know engines. What it hands out shares the tensors, so quantizing one replaces layers and copies nothing else.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from engine.bundled.loader import LoadedModel, load_model
from engine.bundled.transformer import Decoder


class ResidentModel:
    """The last checkpoint loaded, in the type it was asked for."""

    def __init__(self) -> None:
        self._key: tuple[Path, str, torch.device] | None = None
        self._model: LoadedModel | None = None

    def load(self, folder: Path, *, dtype: str, max_positions: int, device: torch.device) -> LoadedModel:
        """As `load_model`, without reading files that were read last.

        Raises:
            CheckpointError: as `load_model`.
        """
        key = (folder, dtype, device)
        if self._model is None or key != self._key:
            self._model, self._key = None, None  # never two of them
            self._model = load_model(folder, dtype=dtype, max_positions=max_positions, device=device)
            self._key = key
        decoder = with_shared_tensors(self._model.decoder)
        decoder.rotary.fill(max_positions, dtype=self._model.dtype, device=device)
        return self._model._replace(decoder=decoder)


def with_shared_tensors(decoder: Decoder) -> Decoder:
    """A decoder with modules of its own over the same tensors."""
    tensors = [*decoder.parameters(), *decoder.buffers()]
    return copy.deepcopy(decoder, memo={id(tensor): tensor for tensor in tensors})
