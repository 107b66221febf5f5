"""`DraftParts`: what a speculation method needs loaded beside the target.

Does not know how drafts are made.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import nn

from engine.bundled.errors import UnsupportedError
from engine.bundled.head_loader import load_eagle_head, load_medusa_heads
from engine.bundled.loader import LoadedModel, load_model
from engine.config import SpeculativeConfig


class DraftParts(NamedTuple):
    """Loaded networks; both None for methods that read nothing but tokens."""

    paged: LoadedModel | None = None  # a network with keys and values of its own
    heads: nn.Module | None = None


def load_draft_parts(speculation: SpeculativeConfig | None, target: LoadedModel, *, max_positions: int) -> DraftParts:
    """Read the folder that `speculation.model` names, in the target's dtype.

    Raises:
        CheckpointError, UnsupportedError: it cannot be read or does not fit the target.
    """
    if speculation is None or speculation.model is None:
        return DraftParts()
    folder = Path(speculation.model)
    if speculation.method == "medusa":
        heads = load_medusa_heads(folder, target)
        _refuse_too_few(speculation, heads.num_heads)
        return DraftParts(heads=heads)
    if speculation.method == "eagle":
        paged, inputs = load_eagle_head(folder, target, max_positions=max_positions)
        return DraftParts(paged=paged, heads=inputs)
    return DraftParts(paged=_load_draft_model(folder, target, max_positions))


def _load_draft_model(folder: Path, target: LoadedModel, max_positions: int) -> LoadedModel:
    dtype = str(target.dtype).removeprefix("torch.")
    device = target.decoder.embed_tokens.weight.device
    draft = load_model(folder, dtype=dtype, max_positions=max_positions, device=device)
    if draft.config.vocab_size != target.config.vocab_size:
        raise UnsupportedError(
            f"the draft's vocabulary ({draft.config.vocab_size}) is not the target's "
            f"({target.config.vocab_size}). Choose a draft trained with the target's tokenizer"
        )
    return draft


def _refuse_too_few(speculation: SpeculativeConfig, num_heads: int) -> None:
    wanted = speculation.num_speculative_tokens
    if wanted != "auto" and wanted > num_heads:
        raise UnsupportedError(
            f"num_speculative_tokens {wanted}: {speculation.model} has {num_heads} Medusa heads, one a token. "
            f"Ask for at most {num_heads}"
        )
