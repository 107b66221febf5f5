"""Files that are wrong as files, and traces whose rows contradict each other: one line each, and bounded memory."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.errors import WorkloadError
from workloads.importers import import_workload
from workloads.importers.clock import clock_notes
from workloads.importers.json_array import array_items
from workloads.importers.source_file import byte_lines, check_source

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(JSON, max_size=6), st.integers(1, 9), st.sampled_from([None, 1, "\t"]))
def test_an_array_is_read_item_by_item_as_json_reads_it_whole(
    tmp_path_factory: pytest.TempPathFactory, items: list[object], chunk: int, indent: int | str | None
) -> None:
    path = tmp_path_factory.mktemp("array") / "a.json"
    path.write_text(json.dumps(items, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workloads.importers.json_array._CHUNK_BYTES", chunk)
        assert [item for _, item in array_items(path)] == items


@pytest.mark.parametrize("text", ["[1, 2", "[1 2]", "[1,]", "[1] 2", "[nope]", '["\\ud8', "[" * 100_000, '[{"a":}]'])
def test_a_broken_array_is_told_at_its_item(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(WorkloadError, match=r"a\.json:line \d"):
        list(array_items(path))


def test_an_endless_item_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.importers.source_file.MAX_LINE_BYTES", 1000)
    monkeypatch.setattr("workloads.importers.json_array._CHUNK_BYTES", 100)
    path = tmp_path / "a.json"
    path.write_text('["' + "x" * 100_000)
    with pytest.raises(WorkloadError, match="an item of more than 1000 bytes"):
        list(array_items(path))


def test_gzip_that_is_damaged_within_is_told(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b'{"a": 1}\n' * 5000 + bytes(range(256)) * 50))
    packed[len(packed) // 2] ^= 0xFF
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(bytes(packed))
    with pytest.raises(WorkloadError, match="damaged or truncated gzip"):
        list(byte_lines(path))


def test_parquet_inside_gzip_and_folders_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(gzip.compress(b"PAR1" + bytes(100)))
    with pytest.raises(WorkloadError, match="parquet inside gzip"):
        check_source(path)
    with pytest.raises(WorkloadError, match="is a folder"):
        check_source(tmp_path)


def timed(tmp_path: Path, stamps: list[float]) -> Path:
    path = tmp_path / "trace.jsonl"
    rows = ({"timestamp": stamp, "input_length": 9, "output_length": 2} for stamp in stamps)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_clock_that_goes_back_is_put_in_order_and_counted(tmp_path: Path) -> None:
    workload = import_workload(timed(tmp_path, [5.0, 3.0, 4.0, 3.5]))
    assert workload.numbers("arrival_s").tolist() == [0.0, 0.5, 1.0, 2.0]
    assert any(loss.startswith("the clock goes back 2 times, at most 2 s") for loss in workload.metadata.losses)


@pytest.mark.parametrize(
    "stamps",
    [
        [1.0, 2000.0, 3.0, 4000.0, 5.0],
        [10.5, 11.5, 12.5, 13000.0, 14000.0, 15.5],
        [1.7e9, 1.7e9 + 1, 1.7e12, 1.7e12 + 1],
        [1.7e12, 1.7e9 + 1, 1.7e12 + 2],
    ],
)
def test_seconds_and_milliseconds_in_one_column_are_refused(tmp_path: Path, stamps: list[float]) -> None:
    with pytest.raises(WorkloadError, match=r"two units are mixed.*trace\.jsonl:row \d, column arrival_s\)"):
        import_workload(timed(tmp_path, stamps))


def test_a_thousandfold_jump_that_could_be_silence_is_said(tmp_path: Path) -> None:
    found = import_workload(timed(tmp_path, [1.0, 20.0, 60.0, 61_000.0, 62_000.0]))
    assert any("were seconds and milliseconds mixed?" in loss for loss in found.metadata.losses)


@given(st.lists(st.floats(0, 1e5), min_size=2, max_size=40).map(sorted))
def test_times_in_order_are_never_refused(times: list[float]) -> None:
    assert all("goes back" not in note for note in clock_notes(np.array(times), "x"))


@given(st.integers(0, 2**32 - 1), st.floats(1, 1e4))
def test_shuffled_times_are_never_refused(seed: int, span: float) -> None:
    times = np.random.default_rng(seed).uniform(0, span, 300)
    assert len(clock_notes(times, "x")) == 1


def chats(tmp_path: Path, *parents: tuple[int, int]) -> Path:
    path = tmp_path / "chats.jsonl"
    rows = (
        {"chat_id": chat, "parent_chat_id": parent, "timestamp": i, "input_length": 9, "output_length": 2, "turn": 1}
        for i, (chat, parent) in enumerate(parents)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_repeated_id_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        WorkloadError, match=r"a request id occurs twice: '1' \(.*chats.jsonl:row 1, column request_id\)"
    ):
        import_workload(chats(tmp_path, (1, -1), (1, -1)))


def test_parents_in_a_circle_are_let_go_and_counted(tmp_path: Path) -> None:
    workload = import_workload(chats(tmp_path, (1, 2), (2, 1), (3, 3)))
    assert [request.parent_ids for request in workload] == [(), ("1",), ()]
    assert any(loss.startswith("2 chats name a parent that is not earlier") for loss in workload.metadata.losses)
