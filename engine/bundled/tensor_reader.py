"""`TensorReader`: the tensors of a folder's safetensors files by name. Does not know what they mean."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.bundled.errors import CheckpointError
from engine.bundled.model_config import read_json

_IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)


class TensorReader:
    """Tensors of one or many safetensors files by name."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.unused: set[str] = set()
        self._files = {}
        for path in _weight_files(folder):
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from None
            for name in file.keys():  # noqa: SIM118 (safe_open has no __iter__)
                self._files[name] = file
                self.unused.add(name)

    def read(self, name: str) -> Tensor:
        if name not in self._files:
            raise CheckpointError(f"{self.folder}: tensor {name} is missing. Check that the checkpoint is complete")
        self.unused.discard(name)
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def refuse_unused(self, *, tied: bool) -> None:
        """A tensor nobody asked for would silently change the model's numbers."""
        extra = {name for name in self.unused if not name.endswith(_IGNORED_SUFFIXES)}
        if tied:
            extra.discard("lm_head.weight")
        if extra:
            raise CheckpointError(
                f"{self.folder}: {len(extra)} tensors have no place in this architecture, e.g. {min(extra)}"
            )


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return sorted({folder / name for name in read_json(index)["weight_map"].values()})
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder} holds no .safetensors weights. Convert the checkpoint to safetensors first")
    return files
