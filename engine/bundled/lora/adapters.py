"""`hang_adapters`: the LoRA adapters of one engine, read from their folders and hung on its decoder.

Does not know requests or scheduling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from engine.bundled.layer_formats import MATRICES, MODULES
from engine.bundled.lora.adapter_config import AdapterConfig, checked_adapter, module_shapes, tensor_names
from engine.bundled.lora.low_rank import AdapterRows, LoraLinear, LowRank
from engine.bundled.model_config import load_model_config
from engine.bundled.parallel.shard import WHOLE, Shard
from engine.bundled.tensor_reader import TensorReader
from engine.bundled.transformer import Decoder
from engine.config import EngineConfig

Parts = dict[int, list[LowRank]]  # by the adapter's number


def hang_adapters(
    config: EngineConfig, decoder: Decoder, device: torch.device, shard: Shard = WHOLE
) -> AdapterRows | None:
    """Wrap the layers that the config's adapters change, in place; None without adapters.

    An adapter's number is its place in `lora_modules`.

    Args:
        decoder: the part of the model that `shard` says.

    Raises:
        CheckpointError: a folder that cannot be read, or an adapter of another model.
        UnsupportedError: a rank above `max_lora_rank`.
    """
    if not config.lora_modules:
        return None
    model, found = load_model_config(Path(config.model)), dict[str, Parts]()  # by the decoder's module
    shapes = module_shapes(shard.local(model))
    for number, folder in enumerate(map(Path, config.lora_modules.values())):
        adapter = checked_adapter(folder, model, max_rank=config.max_lora_rank)
        for module, a, b in _matrices(adapter, device):
            matrix, first = place_of(module, shapes)
            part = LowRank(first, *shard.low_rank_part(module, a, b))
            found.setdefault(matrix, {}).setdefault(number, []).append(part)
    rows = AdapterRows()
    for name, parts in found.items():
        decoder.set_submodule(name, LoraLinear(decoder.get_submodule(name), parts, rows))
    return rows


def _matrices(adapter: AdapterConfig, device: torch.device) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Module, A and B of each, in float32, the scale in B."""
    with ExitStack() as stack:
        reader = TensorReader(adapter.folder, stack)
        for module in adapter.modules:
            a, b = (reader.read(name).to(device, torch.float32) for name in tensor_names(module))
            yield module, a, b * adapter.scale_of(module)


def place_of(module: str, shapes: Mapping[str, tuple[int, int]]) -> tuple[str, int]:
    """The decoder's matrix that holds a module of the checkpoint, and the first of its rows there."""
    layer, name = module.removeprefix("model.layers.").split(".", 1)
    for matrix, members in MATRICES.items():
        if name in members:
            return f"layers.{layer}.{matrix}", sum(shapes[m][0] for m in members[: members.index(name)])
    raise AssertionError(f"{name} is one of {MODULES}")
