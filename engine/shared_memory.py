"""Shared-memory files that a group of processes holds: found while they live, removed once nobody has them mapped.

Does not know what the processes are. Linux only: elsewhere nothing is found and nothing removed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

FOLDER = Path("/dev/shm")
_PROC = Path("/proc")


def held_by_group(group: int) -> frozenset[Path]:
    """The files that members of a process group have mapped.

    An engine killed with SIGKILL leaves them behind (`psm_*`, `sem.mp-*`): Python's resource tracker dies with it.
    """
    return _files(inode for pid in group_members(group) for inode in _mapped_by(pid))


def remove_abandoned(paths: Collection[Path]) -> list[Path]:
    """Unlink those of the files that no living process has mapped; returns what was removed."""
    left = {path for path in paths if path.exists()}
    if not left:
        return []
    in_use = _files(inode for pid in _processes() for inode in _mapped_by(pid))
    removed = []
    for path in sorted(left - in_use):
        try:
            path.unlink()
        except OSError:
            continue  # somebody else's, or gone this moment
        removed.append(path)
    return removed


def group_members(group: int) -> list[int]:
    """Process ids of a process group, zombies left out."""
    return [pid for pid in _processes() if _group_of(pid) == group]


def _processes() -> Iterator[int]:
    try:
        names = os.listdir(_PROC)
    except OSError:
        return
    yield from (int(name) for name in names if name.isdigit())


def _group_of(pid: int) -> int | None:
    try:
        # the command's name is in parentheses and may hold any character
        state, _, group = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[:3]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else int(group)


def _mapped_by(pid: int) -> set[int]:
    """Inodes. Names would not do: a semaphore's creator has it mapped under a name that is deleted at once."""
    try:
        with (_PROC / str(pid) / "maps").open(errors="replace") as maps:
            return {int(line.split(maxsplit=5)[4]) for line in maps if f" {FOLDER}/" in line}
    except (OSError, ValueError):
        return set()


def _files(inodes: Iterable[int]) -> frozenset[Path]:
    wanted = set(inodes)
    if not wanted:
        return frozenset()
    try:
        with os.scandir(FOLDER) as entries:
            return frozenset(Path(entry.path) for entry in entries if entry.inode() in wanted)
    except OSError:
        return frozenset()
