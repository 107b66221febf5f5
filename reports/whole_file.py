"""Files that appear whole or not at all: written under a temporary name, then renamed.

Does not know what they hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary neighbour of `path` to write to; it takes the name when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> Path:
    """Replace the file's content in one step."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
