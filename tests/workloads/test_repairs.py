"""`--repair`: what is malformed is dropped, left unknown or read as meant, and counted; nothing is made up."""

import gzip
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.columns import table_from_requests
from workloads.errors import WorkloadError
from workloads.importers import IMPORTERS, find_importer, import_workload
from workloads.importers.repaired_table import repaired_table
from workloads.importers.repairs import DROPPING, KINDS, NO_REPAIRS, Repairs
from workloads.importers.stream import import_streamed
from workloads.metadata import Source, WorkloadMetadata
from workloads.parquet import read_workload
from workloads.request import Request
from workloads.validation import validate_table
from workloads.workload import Workload

METADATA = WorkloadMetadata(name="w", source=Source(format="test"))


def row(stamp: object, inputs: object = 9, **more: object) -> str:
    return json.dumps({"timestamp": stamp, "input_length": inputs, "output_length": 2} | more)


def trace(folder: Path, *lines: str, name: str = "trace.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(line + "\n" for line in lines))
    return path


def repaired(path: Path, format: str = "auto") -> tuple[Workload, dict[str, int]]:
    """Imported with repairs; without them it is one line that says so and names --repair."""
    with pytest.raises(WorkloadError) as caught:
        import_workload(path, format=format)
    assert "import with --repair, which" in str(caught.value)
    assert "\n" not in str(caught.value)
    repairs = Repairs()
    workload = import_workload(path, format=format, repairs=repairs)
    assert workload.metadata.repairs == dict(repairs.counts)
    assert len(repairs.told()) == len(repairs.counts)
    return workload, dict(repairs.counts)


def arrivals(workload: Workload) -> list[float]:
    return [float(value) for value in workload.numbers("arrival_s")]


def test_lines_that_are_no_json_are_dropped(tmp_path: Path) -> None:
    path = trace(tmp_path, row(1.5), '{"timestamp": 2, "inp', "[1]", row(3.5))
    workload, counts = repaired(path)
    assert (arrivals(workload), counts) == ([0.0, 2.0], {"line_unreadable": 2})


def test_a_line_of_another_encoding_is_dropped(tmp_path: Path) -> None:
    path = trace(tmp_path, "arrived_at,num_prefill_tokens,num_decode_tokens", "1,2,3")
    path.write_bytes(path.read_bytes() + b"2,\xff,4\n3,4,5\n")
    workload, counts = repaired(path)
    assert (arrivals(workload), counts) == ([0.0, 2.0], {"line_unreadable": 1})


def test_a_line_that_is_too_long_is_dropped_without_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.importers.source_file.MAX_LINE_BYTES", 100)
    monkeypatch.setattr("workloads.importers.source_file._SKIPPED_BYTES", 7)
    path = trace(tmp_path, row(1.5), row(2.5, note="x" * 1000), row(3.5))
    workload, counts = repaired(path)
    assert (arrivals(workload), counts) == ([0.0, 2.0], {"line_too_long": 1})


@pytest.mark.parametrize("format", ["vllm-custom", "vllm-timed-trace", "otel", "vidur"])
def test_a_long_line_of_text_is_never_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.setattr("workloads.importers.source_file.MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / "log.jsonl"
    with path.open("w") as file:
        file.write('{"output_tokens": 5, "prompt": "')
        for number in range(1000):
            file.write(f"The {number}th of a thousand sentences, none of them the same as another. " * 450)
        file.write('"}\n{"prompt": "short"}\n')
    assert path.stat().st_size > 29 << 20
    tracemalloc.start()
    try:
        with pytest.raises(WorkloadError, match=r"more than 1 MiB .*line 1"):
            import_workload(path, format=format)
        if format == "vllm-custom":
            assert len(import_workload(path, format=format, repairs=Repairs())) == 1
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", [float("nan"), -3, "x", None, 2**31, True, [9]])
def test_a_row_with_an_impossible_length_is_dropped(tmp_path: Path, value: object) -> None:
    workload, counts = repaired(trace(tmp_path, row(1.5), row(2.5, value), row(3.5)))
    assert (arrivals(workload), counts) == ([0.0, 2.0], {"row_impossible": 1})


@pytest.mark.parametrize("value", [float("nan"), -3, "x"])
def test_an_impossible_value_that_can_be_missing_becomes_unknown(tmp_path: Path, value: object) -> None:
    pair = {"ts": 5.0, "request": {"messages": [{"role": "user", "content": "a"}]}, "response": None}
    path = trace(tmp_path, json.dumps(pair | {"latency_ms": 70, "ttft_ms": value}), json.dumps(pair | {"ts": 6.0}))
    workload, counts = repaired(path)
    first = next(iter(workload))
    assert (len(workload), first.e2el_s, first.ttft_s, counts) == (2, 0.07, None, {"value_impossible": 1})


def test_hashes_that_do_not_fit_cost_their_row(tmp_path: Path) -> None:
    good = [row(n, 600, hash_ids=[1, n]) for n in range(40)]
    workload, counts = repaired(trace(tmp_path, *good, row(40, 600, hash_ids=[1]), row(41, 600, hash_ids=[1, 2])))
    assert (len(workload), counts) == (41, {"row_impossible": 1})
    assert "prefix" in workload.capabilities


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_text_is_read_as_such(tmp_path: Path, encoding: str) -> None:
    path = trace(tmp_path, *(row(n + 0.5, note="né" * n) for n in range(3)))
    plain = import_workload(path)
    path.write_bytes(path.read_text().encode(encoding))
    workload, counts = repaired(path)
    assert (workload.fingerprint, counts) == (plain.fingerprint, {"wide_text": 1})
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert import_workload(path, repairs=Repairs()).fingerprint == plain.fingerprint


def azure_lines(num_rows: int) -> list[str]:
    rows = [f"2023-11-16 18:17:{n // 100:02}.{n % 100:02},{1000 + n},{n}" for n in range(num_rows)]
    return ["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]


@settings(max_examples=30, deadline=None)
@given(kept=st.floats(0.02, 0.99))
def test_truncated_gzip_keeps_exactly_the_whole_lines(tmp_path_factory: pytest.TempPathFactory, kept: float) -> None:
    lines = azure_lines(500)
    folder = tmp_path_factory.mktemp("gzip")
    whole = gzip.compress("\n".join(lines).encode())
    path = folder / "code.csv.gz"
    path.write_bytes(whole[: int(len(whole) * kept)])
    repairs = Repairs()
    try:
        workload = import_workload(path, format="azure", repairs=repairs)
    except WorkloadError:  # nothing is left but the header, or less
        assert kept < 0.2
        return
    found = [(request.input_tokens, request.output_tokens) for request in workload]
    assert found == [(1000 + n, n) for n in range(len(found))]  # none with a number cut short
    assert repairs.counts["gzip_cut"] == 1
    assert repairs.counts["line_cut"] <= 1


def test_an_array_cut_short_keeps_its_whole_items(tmp_path: Path) -> None:
    items = [
        {"id": str(n), "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
        for n in range(3)
    ]
    text = json.dumps(items)
    path = tmp_path / "share.json"
    for end in (len(text) - 1, len(text) - 2, text.rindex('"gpt"') + 3, text.rindex('{"id"')):
        path.write_text(text[:end])
        workload, counts = repaired(path)
        assert counts == {"array_cut": 1}
        assert len(workload) == (3 if end == len(text) - 1 else 2)
    path.write_text(text.replace('"id": "1"', '"id" "1"'))  # damage within: what follows cannot be told apart
    with pytest.raises(WorkloadError, match="not JSON"):
        import_workload(path, format="sharegpt", repairs=Repairs())


def test_a_quote_without_end_counts_every_line_it_took(tmp_path: Path) -> None:
    lines = azure_lines(30)
    lines[11] = '"' + lines[11]
    workload, counts = repaired(trace(tmp_path, *lines, name="code.csv"))
    assert len(workload) == 10
    assert counts == {"line_unreadable": 20}


@pytest.mark.parametrize(
    ("stamps", "seconds", "num"),
    [
        ([10.5, 11.5, 12500.0, 13500.0, 14.5], [0.0, 1.0, 2.0, 3.0, 4.0], 2),
        ([1.7e9, 1.7e12 + 1000, 1.7e9 + 2, 1.7e12 + 3000], [0.0, 1.0, 2.0, 3.0], 2),
    ],
)
def test_milliseconds_among_seconds_are_brought_to_seconds(
    tmp_path: Path, stamps: list[float], seconds: list[float], num: int
) -> None:
    workload, counts = repaired(trace(tmp_path, *(row(stamp) for stamp in stamps)), "vllm-timed-trace")
    assert arrivals(workload) == pytest.approx(seconds)
    assert counts == {"times_in_ms": num}


def test_think_times_across_two_units_are_unknown(tmp_path: Path) -> None:
    def chat(number: int, parent: int, stamp: float) -> str:
        more = {"chat_id": number, "parent_chat_id": parent, "turn": 1, "hash_ids": []}
        return row(stamp, **more)

    path = trace(tmp_path, chat(1, -1, 10.0), chat(2, 1, 12.0), chat(3, 2, 14000.0), chat(4, 3, 15.0), chat(5, 4, 16.0))
    workload, counts = repaired(path)
    assert arrivals(workload) == [0.0, 2.0, 4.0, 5.0, 6.0]
    assert [request.think_s for request in workload] == [None, 2.0, None, None, 1.0]
    assert counts == {"times_in_ms": 1}


def test_a_clock_that_goes_back_is_counted_too(tmp_path: Path) -> None:
    repairs = Repairs()
    path = trace(tmp_path, row(5.5), row(3.5), row(4.5))
    assert arrivals(import_workload(path, repairs=repairs)) == [0.0, 1.0, 2.0]
    assert repairs.counts == {"clock_back": 1}


def test_rows_that_occur_twice_are_kept_once_and_others_get_a_number(tmp_path: Path) -> None:
    def chat(number: int, parent: int, stamp: float, inputs: int = 9) -> str:
        return row(stamp, inputs, chat_id=number, parent_chat_id=parent, turn=1)

    path = trace(tmp_path, chat(1, -1, 0.0), chat(1, -1, 0.0), chat(1, -1, 2.0, 7), chat(2, 1, 3.0))
    workload, counts = repaired(path)
    assert [request.request_id for request in workload] == ["1", "1#3", "2"]
    assert [request.parent_ids for request in workload] == [(), (), ("1",)]
    assert counts == {"id_twice": 1, "id_reused": 1}


def test_a_turn_after_one_that_was_dropped_has_no_think_time(tmp_path: Path) -> None:
    turns = [row(0, session_id="s"), row(1, -1, session_id="s", delay=5), row(2, session_id="s", delay=7)]
    workload, counts = repaired(trace(tmp_path, *turns, row(3, session_id="s", delay=9)), "mooncake")
    assert [(r.turn, r.parent_ids, r.think_s) for r in workload] == [
        (0, (), None),
        (1, ("0",), None),
        (2, ("2",), 0.009),
    ]
    assert counts == {"row_impossible": 1}


@settings(max_examples=60, deadline=None)
@given(
    links=st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=8),
    sessions=st.lists(st.sampled_from(["a", "b", None]), min_size=8, max_size=8),
    ids=st.lists(st.integers(0, 7), min_size=8, max_size=8),
    inputs=st.lists(st.sampled_from([5, 0, None]), min_size=8, max_size=8),
)
def test_a_repaired_table_keeps_every_invariant(
    links: list[list[int]], sessions: Sequence[str | None], ids: list[int], inputs: Sequence[int | None]
) -> None:
    requests = [
        Request(
            request_id=f"r{ids[n]}",
            session_id=sessions[n],
            parent_ids=tuple(f"r{parent}" for parent in parents),
            think_s=1.0,
            input_tokens=inputs[n],
        )
        for n, parents in enumerate(links)
    ]
    repairs = Repairs()
    found = repaired_table(table_from_requests(requests), METADATA, repairs, where="w")
    validate_table(found, METADATA, where=None)
    assert len(found) == len(requests) - repairs.num_dropped
    again = Repairs()
    assert repaired_table(found, METADATA, again, where="w").equals(found)
    assert not again.counts


def test_good_links_stay_when_bad_ones_go() -> None:
    def request(name: str, *parents: str) -> Request:
        return Request(request_id=name, session_id="s", parent_ids=parents, think_s=2.0)

    rows = [request("a", "c"), request("b", "a"), request("c", "b"), request("d", "c", "gone"), request("e", "e")]
    repairs = Repairs()
    found = Workload(repaired_table(table_from_requests(rows), METADATA, repairs, where="w"), METADATA)
    assert [r.parent_ids for r in found] == [(), ("a",), ("b",), ("c",), ()]
    assert [r.think_s for r in found] == [None, 2.0, 2.0, None, None]
    assert repairs.counts == {"parent_missing": 1, "parent_cycle": 2}


@pytest.mark.parametrize("name", ["azure", "vidur", "vllm-timed-trace"])
def test_a_damaged_trace_is_still_streamed(tmp_path: Path, name: str) -> None:
    lines = {
        "azure": [*azure_lines(20), "2023-11-16 18:18:00,x,1", "2023-11-16 18:18:01,-4,1"],
        "vidur": ["arrived_at,num_prefill_tokens,num_decode_tokens", "1,2,3", "nan,2,3", "2,x,3", "4,5,6"],
        "vllm-timed-trace": [row(0.5), "{", row(1.5, -1), row(2.5)],
    }[name]
    path = trace(tmp_path, *lines, name="code.log")
    repairs, output = Repairs(), tmp_path / "w.parquet"
    done = import_streamed(path, output, IMPORTERS[name], repairs=repairs, update={"name": "code"})
    whole, counts = repaired(path, name)
    assert done is not None
    assert dict(repairs.counts) == counts == read_workload(output).metadata.repairs
    assert repairs.num_dropped == 2
    assert read_workload(output).fingerprint == whole.fingerprint


def test_a_trace_of_two_units_is_not_streamed(tmp_path: Path) -> None:
    path = trace(tmp_path, row(1.7e9), row(1.7e12 + 1000))
    repairs = Repairs()
    assert import_streamed(path, tmp_path / "w", IMPORTERS["vllm-timed-trace"], repairs=repairs, update={}) is None
    assert (sorted(p.name for p in tmp_path.iterdir()), repairs.counts) == (["trace.jsonl"], {})


def test_truncated_parquet_cannot_be_repaired_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "b.parquet"
    pq.write_table(pa.table({"timestamp_start_unix_ms": [1, 2], "input_tokens": [3, 4], "output_tokens": [5, 6]}), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(WorkloadError, match="--repair cannot help: parquet keeps its index at the end"):
        find_importer(path, repairs=Repairs())


def test_a_damaged_part_of_a_parquet_file_costs_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "b.parquet"
    columns = {"timestamp_start_unix_ms": range(40), "input_tokens": range(1, 41), "output_tokens": range(40)}
    table = pa.table({name: list(values) for name, values in columns.items()})
    pq.write_table(table, path, row_group_size=10, compression="zstd", use_dictionary=False)
    start = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 20] = bytes(20)
    path.write_bytes(bytes(data))
    workload, counts = repaired(path)
    assert counts == {"group_damaged": 10}
    assert workload.numbers("output_tokens").tolist() == [*range(20), *range(30, 40)]


def test_many_dropped_rows_are_said_loudly_and_few_are_not() -> None:
    repairs = Repairs()
    repairs.take("row_impossible", WorkloadError("x", fix="y"), num=5)
    repairs.take("value_impossible", WorkloadError("x", fix="y"), num=900)
    assert repairs.warning(95) is None
    assert "5 of 99 rows (5.1%) were dropped" in str(repairs.warning(94))
    assert Repairs().warning(0) is None


def test_every_kind_is_explained_and_a_strict_import_repairs_none() -> None:
    assert set(DROPPING) <= set(KINDS)
    for kind, (_, done) in KINDS.items():
        with pytest.raises(WorkloadError, match=f"import with --repair, which {done.split()[0]}"):
            NO_REPAIRS.take(kind, WorkloadError("x", fix="y"))
    assert not NO_REPAIRS.counts


def test_clean_files_are_read_alike_with_and_without_repairs(tmp_path: Path) -> None:
    path = trace(tmp_path, *(row(n + 0.5, n + 1) for n in range(50)))
    repairs = Repairs()
    assert import_workload(path, repairs=repairs).fingerprint == import_workload(path).fingerprint
    assert not repairs.counts
    assert np.isfinite(import_workload(path).numbers("arrival_s")).all()
