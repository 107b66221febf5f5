"""What every importer promises; a test module subclasses `ImporterContract` and says how to make a file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from workloads.errors import WorkloadError
from workloads.importers import IMPORTERS, find_importer, import_workload
from workloads.parquet import read_workload, save_workload


class ImporterContract:
    """Subclasses set the three; `good` has at least two requests."""

    name: ClassVar[str]
    good: ClassVar[str]  # a small file of the format
    bad: ClassVar[tuple[tuple[str, str], ...]]  # (a broken file, the place its error names)
    suffix: ClassVar[str] = ".jsonl"

    def write(self, folder: Path, text: str) -> Path:
        path = folder / f"log{self.suffix}"
        path.write_text(text)
        return path

    def test_it_is_listed_under_its_name(self) -> None:
        assert IMPORTERS[self.name].name == self.name

    def test_it_alone_recognises_its_files(self, tmp_path: Path) -> None:
        assert find_importer(self.write(tmp_path, self.good)).name == self.name

    def test_it_does_not_choke_on_files_of_another_kind(self, tmp_path: Path) -> None:
        importer = IMPORTERS[self.name]
        for content in (b"", b"\x00\xff\xfe", b"[1, 2]\n", b"plain text\n", b'{"a": 1}\n'):
            (tmp_path / "x").write_bytes(content)
            assert not importer.recognises(tmp_path / "x")
        assert not importer.recognises(tmp_path / "absent")

    def test_what_it_reads_is_a_workload_that_survives_parquet(self, tmp_path: Path) -> None:
        workload = import_workload(self.write(tmp_path, self.good))
        save_workload(tmp_path / "w.parquet", workload)
        read = read_workload(tmp_path / "w.parquet")
        assert read.fingerprint == workload.fingerprint
        assert len(read) >= 2

    def test_it_says_where_the_workload_came_from(self, tmp_path: Path) -> None:
        metadata = import_workload(self.write(tmp_path, self.good)).metadata
        assert metadata.source.format == self.name
        assert metadata.source.files[0].name == f"log{self.suffix}"
        assert len(metadata.source.files[0].sha256 or "") == 64
        assert metadata.converter is not None

    def test_the_first_arrival_is_zero_or_there_is_none(self, tmp_path: Path) -> None:
        first = next(iter(import_workload(self.write(tmp_path, self.good))))
        assert first.arrival_s in (0.0, None)

    def test_the_same_file_gives_the_same_workload(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, self.good)
        assert import_workload(path).fingerprint == import_workload(path).fingerprint

    def test_a_broken_file_is_one_line_that_names_the_place(self, tmp_path: Path) -> None:
        for text, place in self.bad:
            path = self.write(tmp_path, text)
            with pytest.raises(WorkloadError) as caught:
                import_workload(path, format=self.name)
            assert f"({path}:{place})" in str(caught.value)
            assert "\n" not in str(caught.value)
