"""`ArtifactStore`: what a config needs built before it launches, built once and found again by its content.

    <directory>/<key>/              the checkpoint's files and provenance.json
    <directory>/.building-<key>-*   under construction; renamed when it is whole
    <directory>/locks/<key>.build   held alone by who builds or removes the artifact
    <directory>/locks/<key>.use     held together by who uses it; its time of change is the last use
    <directory>/logs/<key>.log      llm-compressor's words when it failed

It does not know engines, workloads or how a checkpoint is quantized.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from engine.artifacts.checkpoint_record import CalibrationData, CalibrationRecord, CheckpointRecord
from engine.artifacts.content_hash import ContentHashes, checkpoint_files, combined_sha256, file_sha256
from engine.artifacts.file_lock import FileLock
from engine.artifacts.provenance import (
    FILE,
    Ingredients,
    Provenance,
    RecordedFile,
    damage,
    read_provenance,
)
from engine.artifacts.quantization_recipe import Recipe, linear_layers, make_recipe
from engine.artifacts.quantizer import Quantizer, Report
from engine.backend import EngineError, FailureKind
from engine.config import EngineConfig

DIRECTORY_VARIABLE = "FOPT_ARTIFACTS"
BUILDING, DISCARDED = ".building-", ".discarded-"


def default_directory() -> Path:
    """$FOPT_ARTIFACTS, else `fireoptimizer/artifacts` in the user's cache."""
    if moved := os.environ.get(DIRECTORY_VARIABLE):
        return Path(moved)
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    return base / "fireoptimizer" / "artifacts"


class ArtifactStore:
    """Artifacts that were asked for stay in use, safe from `prune`, until `close` or the end of the process.

    Args:
        directory: shared between processes; made when first needed.
        python: interpreter of the environment with llm-compressor (see `Quantizer`).
        calibration: with it 4-bit integers are found by GPTQ.
    """

    def __init__(
        self, directory: Path, *, python: str | None = None, calibration: CalibrationData | None = None
    ) -> None:
        self.directory = directory.absolute()
        self._quantizer = Quantizer(python)
        self._calibration = calibration
        self._hashes = ContentHashes(self.directory / "hashes.json")
        self._in_use: dict[str, FileLock] = {}

    def checkpoint(self, config: EngineConfig, *, report: Report = lambda _text: None) -> Path:
        """The folder whose weights are as `config.quantization` says: `config.model` itself, or one made of it.

        Waits when another process is building the same artifact. `config.dtype` does not enter: a quantized checkpoint
        keeps what it does not quantize in the dtype of its source.

        Args:
            report: is told each phase of a build, and why an artifact is built again.

        Raises:
            EngineError: the formats have no checkpoint, the source cannot be read, or llm-compressor failed.
        """
        parts = config.quantization
        if {parts.weights, parts.activations, *parts.overrides.values()} == {"bf16"}:
            return Path(config.model)
        ingredients = self._ingredients(config)
        key = ingredients.key()
        self._use(key)
        if self._is_whole(key, report):
            return self.directory / key
        with self._building(key, report):
            if not self._is_whole(key, report):
                _sweep(self.directory, held=key)
                self._build(key, config, ingredients, report)
        return self.directory / key

    def find(self, record: CheckpointRecord) -> Path:
        """The folder of exactly the checkpoint that was recorded, whatever machine made it; nothing is built.

        Raises:
            EngineError: UNSUPPORTED, it is not here; BAD_CHECKPOINT, another is in its place, or it was changed.
        """
        made = record.made_of
        here = [folder for folder in self._folders(made.key) if _content_of(folder) == record.content_sha256]
        if not here:
            raise _not_here(record, self.directory, _content_of(self.directory / made.key))
        self._use(here[0].name)
        if reason := damage(here[0], self._hashes):
            raise EngineError(f"the checkpoint in {here[0]} was changed: {reason}", kind=FailureKind.BAD_CHECKPOINT)
        return here[0]

    def _folders(self, key: str) -> list[Path]:
        """Every artifact's, that of `key` first."""
        others = [path for path in sorted(self.directory.glob("*")) if len(path.name) == len(key) and path.name != key]
        return [self.directory / key, *others]

    def close(self) -> None:
        """Nothing is in use any more."""
        for lock in self._in_use.values():
            lock.release()
        self._in_use.clear()

    def _ingredients(self, config: EngineConfig) -> Ingredients:
        source = _unquantized(Path(config.model))
        recipe = make_recipe(config.quantization, linear_layers(source), calibrated=self._calibration is not None)
        self.directory.mkdir(parents=True, exist_ok=True)
        data = self._data_of(recipe)
        return Ingredients(
            source_sha256=self._hashes.of_checkpoint(source),
            recipe=recipe,
            calibration_sha256=file_sha256(data.path) if data else None,
            versions=self._quantizer.versions(),
            worker_sha256=self._quantizer.worker_sha256,
        )

    def _data_of(self, recipe: Recipe) -> CalibrationData | None:
        return self._calibration if recipe.needs_calibration else None

    def _use(self, key: str) -> None:
        path = use_lock(self.directory, key)
        if key not in self._in_use:
            lock = FileLock.take(path, shared=True)
            assert lock is not None
            self._in_use[key] = lock
        os.utime(path)

    def _is_whole(self, key: str, report: Report) -> bool:
        folder = self.directory / key
        if not folder.exists():
            return False
        reason = damage(folder, self._hashes)
        if reason:
            report(f"warning: the artifact in {folder} is damaged ({reason}) and is built again")
        return reason is None

    def _building(self, key: str, report: Report) -> FileLock:
        path = build_lock(self.directory, key)
        lock = FileLock.take(path, wait=False)
        if lock is None:
            report("waiting for another process that builds this checkpoint")
            lock = FileLock.take(path)
            assert lock is not None
        return lock

    def _build(self, key: str, config: EngineConfig, ingredients: Ingredients, report: Report) -> None:
        """Under the build lock: make the checkpoint in a temporary folder and rename it when it is on the disk."""
        temporary = self.directory / f"{BUILDING}{key}-{os.getpid()}"
        temporary.mkdir()
        try:
            made = temporary / "checkpoint"
            seconds = self._quantize(key, config, ingredients, made, report)
            _copy_missing(Path(config.model), made)
            data = self._data_of(ingredients.recipe)
            _write_provenance(made, config.model, ingredients, data.record if data else None, seconds)
            _flush(made)
            discard(self.directory, key)
            os.rename(made, self.directory / key)
            _flush_one(self.directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _quantize(self, key: str, config: EngineConfig, ingredients: Ingredients, made: Path, report: Report) -> float:
        data = self._data_of(ingredients.recipe)
        job = {
            "source": str(Path(config.model).resolve()),
            "output": str(made.resolve()),
            "modifiers": ingredients.recipe.modifiers(),
            "calibration": str(data.path.resolve()) if data else None,
        }
        started, log_path = time.monotonic(), self.directory / "logs" / f"{key}.log"
        self._quantizer.run(job, made.parent, log_path=log_path, report=report)
        log_path.unlink(missing_ok=True)
        if not any(made.glob("*.safetensors")):
            message = f"llm-compressor wrote no weights to {made}"
            raise EngineError(message, kind=FailureKind.UNSUPPORTED)
        return time.monotonic() - started


def _content_of(folder: Path) -> str | None:
    found = read_provenance(folder)
    return found.content_sha256 if found else None


def _not_here(record: CheckpointRecord, directory: Path, other: str | None) -> EngineError:
    wanted = f"the measured {record.made_of.recipe} weights (sha256 {record.content_sha256[:12]})"
    if other is None:
        return EngineError(f"{wanted} are not in {directory}", kind=FailureKind.UNSUPPORTED)
    what = f"in place of {wanted}, {directory} has others of the same ingredients (sha256 {other[:12]})"
    return EngineError(what, kind=FailureKind.BAD_CHECKPOINT)


def build_lock(directory: Path, key: str) -> Path:
    return directory / "locks" / f"{key}.build"


def use_lock(directory: Path, key: str) -> Path:
    return directory / "locks" / f"{key}.use"


def discard(directory: Path, key: str) -> None:
    """Remove an artifact in one step; the caller holds its build lock."""
    if (directory / key).exists():
        aside = directory / f"{DISCARDED}{key}-{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(directory / key, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _sweep(directory: Path, *, held: str) -> None:
    """Remove what killed processes left: folders of a key whose build lock we hold, or nobody does."""
    for leftover in _leftovers(directory):
        key = leftover.name.removeprefix(BUILDING).removeprefix(DISCARDED).split("-")[0]
        with FileLock.take(build_lock(directory, key), wait=False) or nullcontext() as lock:
            if lock or key == held:
                shutil.rmtree(leftover, ignore_errors=True)


def _leftovers(directory: Path) -> Iterator[Path]:
    yield from directory.glob(f"{BUILDING}*")
    yield from directory.glob(f"{DISCARDED}*")


def _unquantized(folder: Path) -> Path:
    """The folder, once its config says that it can be a source."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"cannot quantize {folder}: {error}. Give an unquantized Hugging Face folder on this machine"
        raise EngineError(message, kind=FailureKind.BAD_CHECKPOINT) from None
    if config.get("quantization_config"):
        message = f"{folder} is already quantized. Give the unquantized checkpoint, from which others are made"
        raise EngineError(message, kind=FailureKind.BAD_CHECKPOINT)
    return folder


def _copy_missing(source: Path, made: Path) -> None:
    """Tokenizer, chat template and the like are the source's."""
    for name, path in checkpoint_files(source).items():
        is_weights = path.suffix == ".safetensors" or path.name.endswith(".index.json")
        if not is_weights and not (made / name).exists():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, made / name)


def _write_provenance(
    made: Path, source: str, ingredients: Ingredients, calibration: CalibrationRecord | None, seconds: float
) -> None:
    files = {
        path.relative_to(made).as_posix(): RecordedFile(bytes=path.stat().st_size, sha256=file_sha256(path))
        for path in sorted(made.rglob("*"))
        if path.is_file()
    }
    provenance = Provenance(
        key=ingredients.key(),
        source=source,
        ingredients=ingredients,
        calibration=calibration,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        bytes=sum(file.bytes for file in files.values()),
        content_sha256=combined_sha256({name: file.sha256 for name, file in files.items()}),
        files=files,
    )
    (made / FILE).write_text(provenance.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _flush(folder: Path) -> None:
    """Every file of the folder to the disk, before a name promises that it is there."""
    for path in (*folder.rglob("*"), folder):
        if path.is_file():
            path.chmod(0o644)
        _flush_one(path)


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
