"""Whether the rows of a stream go together, as some bytes a row: unique ids, parents earlier in their session.

Does not say what is wrong: who reads the file whole can.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Hashes = npt.NDArray[np.int64]


class StreamLinks:
    """64-bit hashes of ids and sessions; two ids that share one look like a repeated id, which only costs time."""

    def __init__(self) -> None:
        self._ids: list[Hashes] = []
        self._sessions: list[Hashes] = []
        self._children: list[npt.NDArray[np.int64]] = []
        self._parents: list[Hashes] = []
        self._num_rows = 0

    def add(self, table: pa.Table) -> None:
        """The next rows."""
        lists = table.column("parent_ids").combine_chunks()
        self._ids.append(_hashes(table.column("request_id").to_pylist()))
        self._sessions.append(_hashes(table.column("session_id").to_pylist()))
        if lists.null_count < len(lists):
            rows = np.asarray(pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), np.int64)
            self._children.append(rows + self._num_rows)
            self._parents.append(_hashes(pc.list_flatten(lists).to_pylist()))
        self._num_rows += len(table)

    def fit(self) -> bool:
        """Whether ids are unique, and every parent is an earlier row of its child's session."""
        if not self._ids:
            return True
        ids = np.concatenate(self._ids)
        order = np.argsort(ids)
        ordered = ids[order]
        if (ordered[1:] == ordered[:-1]).any():
            return False
        if not self._children:
            return True
        children, parents, sessions = (np.concatenate(p) for p in (self._children, self._parents, self._sessions))
        places = np.minimum(np.searchsorted(ordered, parents), len(ordered) - 1)
        rows = order[places]
        is_there = (ordered[places] == parents) & (rows < children)
        return bool((is_there & (sessions[rows] == sessions[children]) & (sessions[rows] != _NO_SESSION)).all())


def _hashes(words: Sequence[str | None]) -> Hashes:
    return np.fromiter(map(hash, words), np.int64, len(words))


_NO_SESSION = hash(None)
