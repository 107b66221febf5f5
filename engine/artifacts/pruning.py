"""What a store holds, and its removal by age and size. It does not know how artifacts are made."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from engine.artifacts.file_lock import FileLock
from engine.artifacts.provenance import Provenance, read_provenance
from engine.artifacts.store import build_lock, discard, use_lock

_KEY_LENGTH = 64


@dataclass(frozen=True, kw_only=True)
class StoredArtifact:
    """One artifact of a store; `provenance` is None where its record is missing or damaged."""

    key: str
    folder: Path
    provenance: Provenance | None
    bytes: int
    last_used: float  # seconds since the epoch


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What was removed (or would be), and what was to be removed but is in use."""

    removed: tuple[StoredArtifact, ...]
    in_use: tuple[StoredArtifact, ...]


def stored_artifacts(directory: Path) -> list[StoredArtifact]:
    """The artifacts of a store, the latest used first."""
    if not directory.is_dir():
        return []
    folders = [path for path in directory.iterdir() if path.is_dir() and len(path.name) == _KEY_LENGTH]
    return sorted((_stored(folder) for folder in folders), key=lambda artifact: -artifact.last_used)


def prune(
    directory: Path, *, now: float, older_than_s: float | None, max_bytes: int | None, dry_run: bool = False
) -> Pruning:
    """Remove what was last used before `now - older_than_s`, then the longest unused until `max_bytes` hold the rest.

    Artifacts in use by any process stay, and count.
    """
    artifacts = stored_artifacts(directory)
    left = sum(artifact.bytes for artifact in artifacts)
    removed, in_use = [], []
    for artifact in reversed(artifacts):
        is_old = older_than_s is not None and artifact.last_used < now - older_than_s
        is_too_much = max_bytes is not None and left > max_bytes
        if not (is_old or is_too_much):
            continue
        if _remove(directory, artifact.key, dry_run=dry_run):
            removed.append(artifact)
            left -= artifact.bytes
        else:
            in_use.append(artifact)
    return Pruning(removed=tuple(removed), in_use=tuple(in_use))


def _stored(folder: Path) -> StoredArtifact:
    used = use_lock(folder.parent, folder.name)
    return StoredArtifact(
        key=folder.name,
        folder=folder,
        provenance=read_provenance(folder),
        bytes=sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        last_used=(used if used.exists() else folder).stat().st_mtime,
    )


def _remove(directory: Path, key: str, *, dry_run: bool) -> bool:
    """False when somebody builds or uses it."""
    with ExitStack() as stack:
        for path in (build_lock(directory, key), use_lock(directory, key)):
            lock = FileLock.take(path, wait=False)
            if lock is None:
                return False
            stack.enter_context(lock)
        if not dry_run:
            discard(directory, key)
        return True
