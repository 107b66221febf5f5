"""`CheckpointRecord`: a quantized checkpoint by what it holds and what it was made of, to find or make it again.

Does not read files; holds no text of the calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CalibrationRecord(_Frozen):
    """Which rows of which workload: enough to draw the same ones from it again."""

    workload_fingerprint: str  # of the part of a workload that was drawn from
    num_rows: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class CalibrationData:
    """JSON lines of `messages`, `text` or `token_ids`, and where they are from; the file is its owner's to remove."""

    path: Path
    record: CalibrationRecord | None = None


class MadeOf(_Frozen):
    """What decides a checkpoint's content, in short."""

    key: str  # of the ingredients, and so its folder's name in a store
    recipe: str  # e.g. `int8/int8, int4_g128 (gptq)`
    source_sha256: str  # of all that a loader could read of the unquantized checkpoint
    calibration_sha256: str | None = None
    calibration: CalibrationRecord | None = None
    versions: dict[str, str]  # of the packages that did the work


class CheckpointRecord(_Frozen):
    """A checkpoint of a store; `content_sha256` is over the names and contents of its files."""

    folder: str
    content_sha256: str
    made_of: MadeOf
