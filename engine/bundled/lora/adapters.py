"""`Adapters`: the LoRA adapters of one engine, read from their folders and hung on its decoder.

Does not know requests or scheduling.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch

from engine.bundled.layer_formats import MATRICES, MODULES
from engine.bundled.lora.adapter_config import checked_adapter, module_shapes, tensor_names
from engine.bundled.lora.low_rank import AdapterRows, LoraLinear, LowRank
from engine.bundled.model_config import ModelConfig
from engine.bundled.tensor_reader import TensorReader
from engine.bundled.transformer import Decoder

Parts = dict[int, list[LowRank]]  # by the adapter's number


class Adapters:
    """Adapters by name; a name's number is its place.

    Raises:
        CheckpointError: a folder that cannot be read, or an adapter of another model.
        UnsupportedError: a rank above `max_rank`.
    """

    def __init__(self, folders: Mapping[str, str], model: ModelConfig, *, max_rank: int, device: torch.device) -> None:
        self.numbers = {name: number for number, name in enumerate(folders)}
        self._parts: dict[str, Parts] = {}  # by the decoder's module
        for name, number in self.numbers.items():
            self._read(Path(folders[name]), number, model, max_rank, device)

    def hang_on(self, decoder: Decoder) -> AdapterRows | None:
        """Wrap the layers that an adapter changes, in place; None without adapters."""
        if not self.numbers:
            return None
        rows = AdapterRows()
        for name, parts in self._parts.items():
            decoder.set_submodule(name, LoraLinear(decoder.get_submodule(name), parts, rows))
        return rows

    def _read(self, folder: Path, number: int, model: ModelConfig, max_rank: int, device: torch.device) -> None:
        config, shapes = checked_adapter(folder, model, max_rank=max_rank), module_shapes(model)
        with ExitStack() as stack:
            reader = TensorReader(folder, stack)
            for module in config.modules:
                a, b = (reader.read(name).to(device, torch.float32) for name in tensor_names(module))
                matrix, first = place_of(module, shapes)
                part = LowRank(first, a.contiguous(), (b * config.scale_of(module)).contiguous())
                self._parts.setdefault(matrix, {}).setdefault(number, []).append(part)


def place_of(module: str, shapes: Mapping[str, tuple[int, int]]) -> tuple[str, int]:
    """The decoder's matrix that holds a module of the checkpoint, and the first of its rows there."""
    layer, name = module.removeprefix("model.layers.").split(".", 1)
    for matrix, members in MATRICES.items():
        if name in members:
            return f"layers.{layer}.{matrix}", sum(shapes[m][0] for m in members[: members.index(name)])
    raise AssertionError(f"{name} is one of {MODULES}")
