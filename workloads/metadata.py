"""`WorkloadMetadata`: what is true of a workload file as a whole, stored in the parquet key-value metadata.

Does not know the rows.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workloads.errors import WorkloadError
from workloads.schema import SCHEMA_VERSION

Content = Literal["lengths", "hashes", "token_ids", "text"]
Capability = Literal["open_loop", "closed_loop", "prefix", "quality"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, protected_namespaces=())


class SourceFile(_Frozen):
    """One file the workload was made from."""

    name: str
    sha256: str | None = None


class Source(_Frozen):
    """Where the rows came from."""

    format: str
    files: tuple[SourceFile, ...] = ()
    license: str | None = None
    citation: str | None = None


class PrefixHashing(_Frozen):
    """How `prefix_hashes` were made: `block_size` tokens a block, hash ids comparable within `scope`."""

    block_size: int = Field(gt=0)
    scope: Literal["global", "session"] = "global"
    tail_hashed: bool | None = None  # None: the source does not say


class Adapter(_Frozen):
    """One LoRA adapter the requests name."""

    name: str
    base: str | None = None
    rank: int | None = Field(default=None, gt=0)
    path: str | None = None


class SloClass(_Frozen):
    """Latency bounds in milliseconds that `percentile` percent of the class's requests must meet."""

    ttft_ms: float | None = Field(default=None, gt=0)
    tpot_ms: float | None = Field(default=None, gt=0)
    e2el_ms: float | None = Field(default=None, gt=0)
    percentile: float = Field(default=95.0, gt=0, le=100)

    @property
    def told(self) -> str:
        """The bounds in words: `ttft 300 ms, tpot 20 ms at p95`."""
        bounds = {"ttft": self.ttft_ms, "tpot": self.tpot_ms, "e2el": self.e2el_ms}
        told = ", ".join(f"{name} {bound:g} ms" for name, bound in bounds.items() if bound is not None)
        return f"{told} at p{self.percentile:g}" if told else "no bounds"


class Converter(_Frozen):
    """The program that wrote the file."""

    name: str
    version: str


class WorkloadMetadata(_Frozen):
    """Everything about the file as a whole; `content` and `capabilities` are derived on write when None."""

    schema_version: Literal["workload/1"] = Field(default=SCHEMA_VERSION, alias="schema")
    name: str
    source: Source
    start_time: str | None = None  # ISO 8601
    time_resolution_s: float | None = Field(default=None, ge=0)
    tokenizer: str | None = None
    vocab_size: int | None = Field(default=None, gt=0)
    model: str | None = None  # default model for runs
    content: Content | None = None
    prefix: PrefixHashing | None = None
    adapters: tuple[Adapter, ...] = ()
    slo_classes: dict[str, SloClass] = Field(default_factory=dict)
    capabilities: tuple[Capability, ...] | None = None
    losses: tuple[str, ...] = ()  # what the source had and the file has not
    repairs: dict[str, int] = Field(default_factory=dict)  # kind of `workloads/importers/repairs.py`: how many
    synthetic_parts: tuple[str, ...] = ()  # what was composed or generated
    converter: Converter | None = None

    def to_json(self) -> str:
        """The object stored under `fireoptimizer.workload`."""
        return self.model_dump_json(by_alias=True)


def parse_metadata(text: str | bytes, *, where: str) -> WorkloadMetadata:
    """Read the stored object.

    Raises:
        WorkloadError: not JSON, another schema version, unknown or invalid fields.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        fix = "Write the file again with fopt import"
        raise WorkloadError(f"the workload metadata is not JSON: {error}", place=where, fix=fix) from None
    version = values.get("schema") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        fix = f"This fopt reads {SCHEMA_VERSION!r}: import the source again, or use the fopt that wrote the file"
        raise WorkloadError(f"the workload has schema {version!r}", place=where, fix=fix)
    try:
        return WorkloadMetadata.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        fix = "Correct the metadata or import the source again"
        raise WorkloadError(f"metadata field {field}: {first['msg']}", place=where, fix=fix) from None
