"""What files hold, as sha256, without reading again what has not changed. It does not know what they mean."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

_MOST_REMEMBERED = 10_000
_SETTLED_NS = 100_000_000  # a file may change again within the tick of its modification time
# What no loader reads: words and pictures for people, and weights in formats that safetensors stand in for.
_FOR_PEOPLE = (".md", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf")
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx")


class ContentHashes:
    """sha256 by file identity (device, inode, size, time of change), remembered in one JSON file.

    A change that keeps size and modification time is not seen.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory

    def of_files(self, paths: Mapping[str, Path]) -> dict[str, str]:
        """Name to sha256 of each named file."""
        known = self._load()
        found, new = {}, {}
        for name, path in paths.items():
            identity = _identity(path)
            digest = known.get(identity) or file_sha256(path)
            found[name] = digest
            if identity not in known and _identity(path) == identity and _is_settled(path):
                new[identity] = digest
        if new:
            self._save({**self._load(), **new})
        return found

    def of_checkpoint(self, folder: Path) -> str:
        """sha256 over the names and contents of `checkpoint_files`."""
        return combined_sha256(self.of_files(checkpoint_files(folder)))

    def _load(self) -> dict[str, str]:
        try:
            values = json.loads(self._memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # only a memory: it is filled again
        return values if isinstance(values, dict) else {}

    def _save(self, known: dict[str, str]) -> None:
        latest = dict(list(known.items())[-_MOST_REMEMBERED:])
        temporary = self._memory.with_name(f".{self._memory.name}.{os.getpid()}-{threading.get_ident()}")
        temporary.write_text(json.dumps(latest), encoding="utf-8")
        os.replace(temporary, self._memory)


def checkpoint_files(folder: Path) -> dict[str, Path]:
    """Everything in a Hugging Face folder that a loader could read, by name relative to it.

    Weights, configs, tokenizers of any kind, templates and programs, in subfolders too; hidden files are the
    downloader's.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    unread = (*_FOR_PEOPLE, *_OTHER_WEIGHTS)
    return {
        name: path
        for name, path in files.items()
        if path.suffix.lower() not in unread and not any(part.startswith(".") for part in name.split("/"))
    }


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def combined_sha256(hashes: Mapping[str, str]) -> str:
    """One hash of named hashes, whatever their order."""
    listing = "".join(f"{name}:{digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def _identity(path: Path) -> str:
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def _is_settled(path: Path) -> bool:
    return time.time_ns() - path.stat().st_mtime_ns > _SETTLED_NS
