"""`Workload`: a recorded workload in memory, an arrow table of requests plus its metadata.

Does not know files or how it is replayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workloads.capabilities import derive_capabilities, derive_content
from workloads.columns import conform, requests_from_table, table_from_requests
from workloads.errors import WorkloadError
from workloads.fingerprint import table_fingerprint
from workloads.metadata import Capability, WorkloadMetadata
from workloads.request import Request
from workloads.validation import validate_table


class Workload:
    """Requests sorted by arrival, checked; immutable.

    Args:
        table: any table with a subset of our columns; sorted by arrival_s here, nulls last.
        metadata: `content` and `capabilities` are derived from the columns when None.
        where: the file named in errors.

    Raises:
        WorkloadError: an invariant of formats.md that does not hold; names row and column.
    """

    def __init__(self, table: pa.Table, metadata: WorkloadMetadata, *, where: str | None = None) -> None:
        table = conform(table, where=where or "workload")
        validate_table(table, metadata, where=where)
        self.table = _sorted_by_arrival(table)
        self.metadata = _completed(metadata, table)

    @classmethod
    def from_requests(cls, requests: Iterable[Request], metadata: WorkloadMetadata) -> Workload:
        """A workload of these requests, in order of arrival."""
        return cls(table_from_requests(list(requests)), metadata)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Request]:
        return self.requests()

    def __getitem__(self, rows: slice) -> Workload:
        """Contiguous rows as they are; parents must be inside the slice (see `sampling.py` for whole sessions)."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise WorkloadError("a workload slice has step 1", fix="Use workloads.sampling for anything else")
        return Workload(self.table.slice(start, max(0, stop - start)), self.metadata)

    def requests(self) -> Iterator[Request]:
        return requests_from_table(self.table)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the rows; the metadata does not enter."""
        return table_fingerprint(self.table)

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        return self.metadata.capabilities or ()

    def require(self, capability: Capability) -> None:
        """Raises WorkloadError when the workload cannot drive that replay."""
        if capability not in self.capabilities:
            raise WorkloadError(
                f"workload {self.metadata.name!r} cannot drive {capability} (it can: {_listed(self.capabilities)})",
                fix="Run fopt inspect on it to see which columns are missing",
            )

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        """A numeric column as float64 with NaN for null."""
        values = self.table.column(column).cast(pa.float64()).to_numpy()
        return np.asarray(values, dtype=np.float64)


def _listed(capabilities: tuple[str, ...]) -> str:
    return ", ".join(capabilities) or "none"


def _sorted_by_arrival(table: pa.Table) -> pa.Table:
    """Stable, nulls last; the table itself when it is already in order."""
    arrivals = table.column("arrival_s").to_numpy()
    order = np.argsort(arrivals, kind="stable")  # NaN, and so null, sorts last
    in_order = bool((order == np.arange(len(order))).all())
    return table if in_order else table.take(pa.array(order))


def _completed(metadata: WorkloadMetadata, table: pa.Table) -> WorkloadMetadata:
    return metadata.model_copy(
        update={
            "content": metadata.content or derive_content(table),
            "capabilities": derive_capabilities(table) if metadata.capabilities is None else metadata.capabilities,
        }
    )
