"""`AdapterUse`: how many recorded requests name a LoRA adapter, and how many of them go to it.

Does not know engines: the names that a server answers to are given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from workloads.workload import Workload

_MOST_NAMES = 3  # in a sentence


class AdapterUse(BaseModel):
    """Of a study's traffic; every config of a study has the same adapters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_requests: int
    num_named: int  # of them, that name an adapter
    num_served: int  # of those, that are sent to it; the others go to the base model
    missing: tuple[str, ...] = ()  # adapters that are named and not served, the busiest first

    def sentence(self) -> str:
        """For the report, the terminal and the notes of a verification."""
        named = f"{self.num_named:,} of {self.num_requests:,} recorded requests name a LoRA adapter"
        if not self.missing:
            return f"{named}, and every one of them is served with it"
        names = ", ".join(self.missing[:_MOST_NAMES])
        more = f" and {len(self.missing) - _MOST_NAMES} more" if len(self.missing) > _MOST_NAMES else ""
        served = f"only {self.num_served:,} of them are" if self.num_served else "none of them is"
        return (
            f"{named}, but {served} served with it: the server has no {names}{more}, so the base model answers. "
            "Give adapters with --lora-modules NAME=DIR (engines bundled and vllm)"
        )


def adapter_use(workloads: Iterable[Workload], served: Collection[str]) -> AdapterUse | None:
    """None where no request names an adapter.

    Args:
        served: names that the server answers to.
    """
    tables = [workload.table for workload in workloads]
    counts = Counter(name for table in tables for name in table.column("adapter").to_pylist() if name is not None)
    if not counts:
        return None
    return AdapterUse(
        num_requests=sum(table.num_rows for table in tables),
        num_named=counts.total(),
        num_served=sum(count for name, count in counts.items() if name in served),
        missing=tuple(name for name, _ in counts.most_common() if name not in served),
    )
