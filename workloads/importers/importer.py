"""`Importer`: one foreign format to requests.

Does not know the members (`__init__.py`) or how workloads are written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.metadata import Source, SourceFile, WorkloadMetadata
from workloads.request import Request
from workloads.tokenizer import TokenCounter


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Requests as they are read; `losses` is complete once they have all been taken.

    `arrival_s` may be relative to anything: the reader moves the first request to 0.
    """

    requests: Iterator[Request]
    metadata: WorkloadMetadata
    losses: list[str] = field(default_factory=list)  # what the source had and the requests have not


class Importer(Protocol):
    """Reads one format."""

    @property
    def name(self) -> str:
        """What `--format` calls it."""
        ...

    def recognises(self, path: Path) -> bool:
        """Whether the file's first lines are of this format; never raises."""
        ...

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS) -> Imported:
        """Start reading; rows are read as `requests` is consumed.

        Args:
            repairs: takes what is wrong with the file; what it cannot take is raised.

        Raises:
            WorkloadError: a line that is not of the format; names file, line and field.
        """
        ...


@runtime_checkable
class ManyFilesImporter(Importer, Protocol):
    """Reads a format in which several files make one workload (a file a session; requests and answers apart)."""

    def read_all(
        self, paths: Sequence[Path], *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS
    ) -> Imported:
        """As `read`, from all the files together.

        Raises:
            WorkloadError: as `read`, and files that do not belong together.
        """
        ...


def source_of(
    paths: Path | Sequence[Path], name: str, *, license: str | None = None, citation: str | None = None
) -> Source:
    """Where the rows come from, with each file's sha256."""
    files = tuple(_source_file(path) for path in ([paths] if isinstance(paths, Path) else paths))
    return Source(format=name, files=files, license=license, citation=citation)


UNKNOWN_LICENSE = "unknown: see the source"
_LICENSES = (
    ("attribution 4.0 international", "CC-BY-4.0"),
    ("apache license version 2.0", "Apache-2.0"),
    ("mit license", "MIT"),
)


def license_beside(*folders: Path) -> str:
    """The licence of published data, as the first LICENSE file in these folders says; nothing is assumed."""
    for folder in folders:
        path = folder / "LICENSE"
        if path.is_file():
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                head = " ".join(file.read(600).lower().split())
            return next((name for words, name in _LICENSES if words in head), "see the LICENSE file beside the source")
    return UNKNOWN_LICENSE


def _source_file(path: Path) -> SourceFile:
    with path.open("rb") as file:
        return SourceFile(name=path.name, sha256=hashlib.file_digest(file, "sha256").hexdigest())
