"""What every importer promises; a test module subclasses `ImporterContract` and says how to make a file."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from workloads.errors import WorkloadError
from workloads.importers import IMPORTERS, find_importer, import_workload
from workloads.importers.repairs import Repairs
from workloads.parquet import read_workload, save_workload
from workloads.workload import Workload

JUNK = ("", None, -1, float("nan"), [], {}, [7], {"x": 1}, "x", True, 1e30, 2**70)
NUM_DAMAGED = 60


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything within a JSON value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        yield value, key
        yield from places(inner)


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

    def refused(self, path: Path) -> str:
        """The one line that `import` says about the file, whether the format is given or not."""
        for format_name in (self.name, "auto"):
            with pytest.raises(WorkloadError) as caught:
                import_workload(path, format=format_name)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_gzip_is_read_as_what_it_holds_and_a_truncated_one_is_told(self, tmp_path: Path) -> None:
        plain = self.write(tmp_path, self.good)
        if plain.suffix == ".parquet":
            pytest.skip("parquet is compressed inside")
        packed = plain.with_name(f"{plain.name}.gz")
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        assert find_importer(packed).name == self.name
        assert import_workload(packed).fingerprint == import_workload(plain).fingerprint
        packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
        assert "damaged or truncated gzip" in self.refused(packed)

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"", "is empty"),
            (b"\xef\xbb\xbf\n\n", "is empty"),
            ("GOOD", "UTF-16 text, not UTF-8"),
            (b"\x7fELF\x01\x00\x00\x00" * 99, "is binary"),
            (b"PAR1" + bytes(99), "truncated or not parquet"),
        ],
        ids=["empty", "blank", "UTF-16", "binary", "truncated parquet"],
    )
    def test_what_is_no_text_or_table_is_named(self, tmp_path: Path, content: bytes | str, told: str) -> None:
        path = self.write(tmp_path, self.good)
        path.write_bytes(self.good.encode("utf-16") if isinstance(content, str) else content)
        assert told in self.refused(path)

    def test_a_folder_without_logs_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "logs").mkdir()
        assert "no trace or log file in" in self.refused(tmp_path / "logs")

    def test_a_line_without_end_is_not_read_to_its_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.write(tmp_path, self.good)
        if path.suffix == ".parquet":
            pytest.skip("parquet has no lines")
        monkeypatch.setattr("workloads.importers.source_file.MAX_LINE_BYTES", 20)
        monkeypatch.setattr("workloads.importers.source_file.MAX_DOCUMENT_BYTES", 20)
        path.write_text("".join(path.read_text().splitlines()))  # all of it in one line
        assert "more than 20 bytes" in self.refused(path)

    def test_a_file_cut_short_is_told_or_read_up_to_there(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, self.good)
        content, num_whole = path.read_bytes(), len(import_workload(path))
        for part in range(1, 8):
            path.write_bytes(content[: len(content) * part // 8])
            assert len(self.read_or_refused(path)) <= num_whole

    def damaged(self) -> Iterator[str]:
        """The good file with one value, or one line, that is junk."""
        draw = random.Random(7)
        lines = self.good.splitlines()
        for _ in range(NUM_DAMAGED):
            number = draw.randrange(len(lines))
            try:
                item = json.loads(lines[number])
            except ValueError:
                cells = lines[number].split(",")
                cells[draw.randrange(len(cells))] = str(draw.choice(JUNK))
                line = ",".join(cells)
            else:
                container, key = draw.choice([*places(item)])
                container[key] = draw.choice(JUNK)
                line = json.dumps(item)
            yield "\n".join([*lines[:number], line, *lines[number + 1 :]])

    def test_junk_in_a_row_is_refused_in_one_line_or_repaired(self, tmp_path: Path) -> None:
        for text in self.damaged():
            try:
                path = self.write(tmp_path, text)
            except (pa.ArrowException, AttributeError, TypeError, OverflowError):
                continue  # a column of parquet holds one type
            found = self.read_or_refused(path)
            assert isinstance(found, Workload) or found == ""
            repairs = Repairs()
            try:
                import_workload(path, format=self.name, repairs=repairs)
            except WorkloadError as error:
                told = str(error)
                assert isinstance(found, str), told  # what can be read without repairs can be with them
                assert "\n" not in told
            else:
                assert isinstance(found, Workload) or repairs.counts

    def test_a_bad_line_and_a_cut_are_repaired(self, tmp_path: Path) -> None:
        plain = self.write(tmp_path, self.good)
        if plain.suffix != ".jsonl":
            pytest.skip("not lines of JSON")
        num_whole = len(import_workload(plain))
        plain.write_text(self.good.rstrip("\n") + '\n{"cut": \n')
        repairs = Repairs()
        assert len(import_workload(plain, repairs=repairs)) == num_whole
        assert repairs.counts == {"line_unreadable": 1}
        packed = plain.with_name(f"{plain.name}.gz")
        packed.write_bytes(gzip.compress(self.good.encode() + random.Random(7).randbytes(5000).hex().encode())[:-2500])
        repairs = Repairs()
        assert len(import_workload(packed, format=self.name, repairs=repairs)) >= num_whole - 1
        assert repairs.counts["gzip_cut"] == 1

    def read_or_refused(self, path: Path) -> Workload | str:
        try:
            return import_workload(path, format=self.name)
        except WorkloadError as error:
            return "" if "\n" not in str(error) else str(error)
