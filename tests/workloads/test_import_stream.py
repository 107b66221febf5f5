"""Traces of times and lengths, streamed: the same file as when read row by row, or none."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.errors import WorkloadError
from workloads.importers import IMPORTERS, import_workload
from workloads.importers.stream import import_lengths
from workloads.parquet import read_workload, write_tables_atomically
from workloads.workload import Workload

COUNTS = st.tuples(st.integers(0, 10**11), st.integers(1, 10**6), st.integers(0, 10**5))
ROWS = st.lists(COUNTS, min_size=1, max_size=30).map(sorted)


def azure(path: Path, rows: list[tuple[int, int, int]], zone: str = "") -> Path:
    """Stamps in units of 0.1 µs, seven decimals."""
    zero = datetime(2023, 11, 16, 18, 0, tzinfo=UTC)
    lines = [
        f"{zero + timedelta(seconds=ticks // 10**7):%Y-%m-%d %H:%M:%S}.{ticks % 10**7:07}{zone},{inputs},{outputs}"
        for ticks, inputs, outputs in rows
    ]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]))
    return path


def vidur(path: Path, rows: list[tuple[int, int, int]]) -> Path:
    lines = [f"{ticks / 10**7!r},{inputs},{outputs}" for ticks, inputs, outputs in rows]
    path.write_text("\n".join(["arrived_at,num_prefill_tokens,num_decode_tokens", *lines]))
    return path


def streamed(path: Path, name: str) -> Workload | None:
    output = path.with_suffix(".parquet")
    output.unlink(missing_ok=True)
    done = import_lengths(path, output, IMPORTERS[name], update={"name": path.stem})
    assert (done is not None) == output.exists()
    assert sorted(p.name for p in path.parent.iterdir() if p.name.startswith(".")) == []
    return read_workload(output) if done else None


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, zone=st.sampled_from(["", "+00:00"]))
def test_an_azure_trace_is_as_read_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]], zone: str
) -> None:
    path = azure(tmp_path_factory.mktemp("azure") / "code.csv", rows, zone)
    found, slow = streamed(path, "azure"), import_workload(path, format="azure")
    assert found is not None
    assert found.fingerprint == slow.fingerprint
    changes = {"converter": None}
    assert found.metadata.model_copy(update=changes) == slow.metadata.model_copy(update=changes)


@settings(max_examples=25, deadline=None)
@given(rows=ROWS)
def test_a_vidur_trace_is_as_read_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]]
) -> None:
    path = vidur(tmp_path_factory.mktemp("vidur") / "trace.csv", rows)
    found = streamed(path, "vidur")
    assert found is not None
    assert found.fingerprint == import_workload(path, format="vidur").fingerprint


@pytest.mark.parametrize(
    "rows",
    [[], [(5, 1, 1), (4, 1, 1)], [(0, 0, 1)]],
    ids=["no rows", "clock going backwards", "a failed request"],
)
def test_what_is_not_plain_is_left_to_the_row_by_row_importer(tmp_path: Path, rows: list[tuple[int, int, int]]) -> None:
    assert streamed(azure(tmp_path / "code.csv", rows), "azure") is None


@pytest.mark.parametrize("cell", ["x", "", "-3", "1.5", "99999999999"])
def test_a_bad_cell_streams_nothing(tmp_path: Path, cell: str) -> None:
    path = azure(tmp_path / "code.csv", [(1, 5, 5)] * 3)
    path.write_text(path.read_text() + f"\n2023-11-16 18:17:03.9799600,{cell},1\n")
    assert streamed(path, "azure") is None


def test_a_format_with_more_than_lengths_is_not_streamed(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"timestamp":0,"input_length":3,"output_length":2,"hash_ids":[1]}\n')
    assert import_lengths(path, tmp_path / "o.parquet", IMPORTERS["mooncake"], update={}) is None


def test_several_tables_are_one_file(tmp_path: Path) -> None:
    whole = import_workload(azure(tmp_path / "code.csv", [(i, 5 + i, i) for i in range(100)]))
    tables = (whole.table.slice(first, 30) for first in range(0, 100, 30))
    write_tables_atomically(tmp_path / "w.parquet", tables, whole.metadata)
    found = read_workload(tmp_path / "w.parquet")
    assert (found.fingerprint, found.metadata) == (whole.fingerprint, whole.metadata)
    with pytest.raises(WorkloadError, match="cannot write"):
        write_tables_atomically(tmp_path / "no" / "w.parquet", (), whole.metadata)
