"""`Provenance`: what an artifact was made of, by what and when, as its `provenance.json`. It does not know how."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.artifacts.checkpoint_record import CalibrationRecord, CheckpointRecord, MadeOf
from engine.artifacts.content_hash import ContentHashes
from engine.artifacts.quantization_recipe import Recipe

FILE = "provenance.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ingredients(_Frozen):
    """What decides an artifact's content, and so its key."""

    source_sha256: str  # of all that a loader could read of the unquantized checkpoint
    recipe: Recipe
    calibration_sha256: str | None  # None where the recipe's methods read no data
    versions: dict[str, str]  # of the packages that do the work
    worker_sha256: str  # of the program that calls them

    def key(self) -> str:
        """64 hex digits that name the artifact."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


class RecordedFile(_Frozen):
    bytes: int
    sha256: str


class Provenance(_Frozen):
    """The record beside an artifact's files; prompts of the calibration are not in it."""

    schema_version: str = "artifact/2"
    key: str
    source: str  # the folder as the config named it
    ingredients: Ingredients
    calibration: CalibrationRecord | None = None  # None: no data, or of unknown origin
    created_at: str  # ISO 8601, UTC
    seconds: float  # that the build took
    bytes: int
    content_sha256: str  # of the files' names and hashes
    files: dict[str, RecordedFile]


def read_provenance(folder: Path) -> Provenance | None:
    """The record of an artifact's folder; None when it has none that can be read."""
    try:
        return Provenance.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None


def read_record(folder: Path) -> CheckpointRecord | None:
    """The record of an artifact's folder in short; None for a folder that no store made."""
    found = read_provenance(folder)
    if found is None:
        return None
    made = MadeOf(
        key=found.key,
        recipe=found.ingredients.recipe.label(),
        source_sha256=found.ingredients.source_sha256,
        calibration_sha256=found.ingredients.calibration_sha256,
        calibration=found.calibration,
        versions=found.ingredients.versions,
    )
    return CheckpointRecord(folder=str(folder), content_sha256=found.content_sha256, made_of=made)


def damage(folder: Path, hashes: ContentHashes) -> str | None:
    """What speaks against using the artifact in `folder`, in words; None when every file is as it was written."""
    provenance = read_provenance(folder)
    if provenance is None:
        return f"{FILE} is missing or damaged"
    for name, recorded in provenance.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != recorded.bytes:
            return f"{name} has {path.stat().st_size} bytes instead of {recorded.bytes}"
    found = hashes.of_files({name: folder / name for name in provenance.files})
    changed = next((name for name, recorded in provenance.files.items() if found[name] != recorded.sha256), None)
    return f"{changed} was changed" if changed else None
