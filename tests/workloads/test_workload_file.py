"""The parquet contract: what is written is read back, and what is wrong is one clear line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_cases import chat, metadata, workload

from workloads.errors import WorkloadError
from workloads.metadata import PrefixHashing, WorkloadMetadata, parse_metadata
from workloads.parquet import WorkloadFile, read_workload, write_workload
from workloads.request import Check, Request
from workloads.schema import METADATA_KEY, WORKLOAD_SCHEMA
from workloads.workload import Workload

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
words = st.none() | st.sampled_from(["x", "y", "z"])
seconds = st.none() | st.floats(0, 1e6)
counts = st.none() | st.integers(1, 2**31 - 1)
objects = st.none() | st.dictionaries(texts, st.integers(), max_size=2).map(json.dumps)


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    """Up to six requests with anything in any column; parents are earlier requests of the one session."""
    made: list[Request] = []
    for i in range(draw(st.integers(0, 6))):
        parents = draw(st.lists(st.sampled_from([r.request_id for r in made]), unique=True)) if made else []
        made.append(
            Request(
                request_id=f"r{i}{draw(texts)}",
                arrival_s=draw(seconds),
                session_id="s",
                parent_ids=tuple(parents),
                turn=i,
                think_s=draw(seconds),
                model=draw(words),
                tenant=draw(words),
                slo_class=draw(words),
                priority=draw(st.none() | st.integers(-5, 5)),
                input_tokens=draw(counts),
                output_tokens=draw(counts),
                prompt=draw(st.none() | texts),
                messages=draw(st.none() | texts.map(lambda t: json.dumps([{"role": "user", "content": t}]))),
                prompt_token_ids=draw(st.none() | st.lists(st.integers(0, 9), max_size=3).map(tuple)),
                temperature=draw(st.none() | st.floats(0, 2)),
                seed=draw(st.none() | st.integers(-(2**63), 2**63 - 1)),
                stop=draw(st.none() | st.lists(texts, max_size=2).map(tuple)),
                response=draw(st.none() | texts),
                status=draw(st.none() | st.sampled_from(["ok", "error"])),
                extra=draw(objects),
                checks=tuple(Check(kind="exact", spec=json.dumps(t)) for t in draw(st.lists(texts, max_size=2))),
            )
        )
    return made


def by_arrival(made: list[Request]) -> list[Request]:
    return sorted(made, key=lambda r: (r.arrival_s is None, r.arrival_s or 0.0))


@settings(max_examples=15, deadline=None)
@given(made=requests())
def test_what_is_written_is_read_back_in_order_of_arrival(
    tmp_path_factory: pytest.TempPathFactory, made: list[Request]
) -> None:
    path = tmp_path_factory.mktemp("w") / "w.parquet"
    written = write_workload(path, made, metadata())
    read = read_workload(path)
    assert list(read) == list(written) == by_arrival(made)
    assert read.fingerprint == written.fingerprint
    assert read.metadata == written.metadata


def test_every_field_of_a_request_is_a_column() -> None:
    assert list(Request.__dataclass_fields__) == WORKLOAD_SCHEMA.names


def test_the_file_has_the_schema_of_the_contract(tmp_path: Path) -> None:
    write_workload(tmp_path / "w.parquet", [chat("a", 0.0)], metadata())
    file = pq.ParquetFile(tmp_path / "w.parquet")
    assert file.schema_arrow.remove_metadata().equals(WORKLOAD_SCHEMA)
    assert json.loads(file.schema_arrow.metadata[METADATA_KEY])["schema"] == "workload/1"
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_fingerprint_sees_content_and_nothing_else() -> None:
    base = workload(chat("a", 0.0, model="x"), chat("b", 1.0, model="y"))
    renamed = Workload(base.table, metadata(name="other"))
    rechunked = Workload(pa.concat_tables([base.table.slice(0, 1), base.table.slice(1)]), metadata())
    assert renamed.fingerprint == rechunked.fingerprint == base.fingerprint
    assert workload(chat("a", 0.0, model="y"), chat("b", 1.0, model="x")).fingerprint != base.fingerprint
    assert base[1:].fingerprint == Workload.from_requests([chat("b", 1.0, model="y")], metadata()).fingerprint


def test_content_and_capabilities_are_derived() -> None:
    lengths = Request(request_id="a", arrival_s=0.0, input_tokens=5, output_tokens=2)
    assert workload(lengths).metadata.content == "lengths"
    assert workload(lengths).capabilities == ("open_loop",)
    turns = (chat("a", 0.0, session_id="s", response="x"), chat("b", 1.0, session_id="s", parent_ids=("a",)))
    assert workload(*turns).capabilities == ("open_loop", "closed_loop", "prefix", "quality")
    assert workload(chat("a", None)).capabilities == ("prefix",)
    assert workload().capabilities == ()


def test_asking_for_what_a_workload_cannot_drive_is_an_error() -> None:
    with pytest.raises(WorkloadError, match=r"cannot drive quality \(it can: open_loop, prefix\)"):
        workload(chat("a", 0.0)).require("quality")


def test_a_broken_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w.parquet"
    write_workload(path, [chat("a", 0.0)], metadata())
    with pytest.raises(WorkloadError):
        write_workload(path, [chat("a", 0.0), chat("a", 1.0)], metadata())
    assert len(read_workload(path)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_columns_may_be_missing_or_of_a_castable_type(tmp_path: Path) -> None:
    table = pa.table({"request_id": ["b", "a"], "arrival_s": [1, 0], "model": ["m", None], "input_tokens": [3, 4]})
    write_workload(tmp_path / "w.parquet", table, metadata())
    first = next(iter(read_workload(tmp_path / "w.parquet")))
    assert (first.request_id, first.arrival_s, first.model, first.input_tokens) == ("a", 0.0, None, 4)


def test_row_groups_are_read_one_at_a_time_with_the_columns_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "w.parquet"
    table = pa.table({"request_id": [f"{i}" for i in range(70_000)], "input_tokens": [1] * 70_000})
    write_workload(path, table, metadata())
    file = WorkloadFile(path)
    parts = list(file.tables(["input_tokens"]))
    assert [len(part) for part in parts] == [65_536, 4_464]
    assert file.num_requests == 70_000
    assert parts[0].schema.equals(WORKLOAD_SCHEMA)


BROKEN: list[tuple[str, dict[str, Any], str, str]] = [
    ("a negative count", {"output_tokens": -1}, "output_tokens", "not a number >= 0"),
    ("no input", {"input_tokens": 0}, "input_tokens", "no input tokens"),
    ("a time before zero", {"arrival_s": -1.0}, "arrival_s", "not a time >= 0"),
    ("a time that is no number", {"arrival_s": float("inf")}, "arrival_s", "not a time >= 0"),
    ("a status of its own", {"status": "done"}, "status", "unknown status"),
    ("an absent parent", {"parent_ids": ("x",), "session_id": "s"}, "parent_ids", "not in the workload"),
    ("itself as parent", {"parent_ids": ("b",), "session_id": "s"}, "parent_ids", "waits for itself"),
    ("a parent elsewhere", {"parent_ids": ("a",), "session_id": "s"}, "parent_ids", "another session"),
    ("messages that are no JSON", {"messages": "hello"}, "messages", "not JSON"),
    ("messages that are no list", {"messages": '{"role":"user"}'}, "messages", "not a list of objects"),
    ("a body that is no object", {"extra_body": "[]"}, "extra_body", "not a JSON object"),
    ("an unknown check", {"checks": (Check(kind="vibes", spec="1"),)}, "checks", "unknown check kind 'vibes'"),
    ("a check that does not parse", {"checks": (Check(kind="regex", spec='"("'),)}, "checks", "does not compile"),
    ("a weightless check", {"checks": (Check(kind="exact", spec='"x"', weight=0),)}, "checks", "incomplete"),
    ("hashes without a block size", {"prefix_hashes": (1,)}, "prefix_hashes", "without a block size"),
    ("a negative token id", {"prompt_token_ids": (1, -2)}, "prompt_token_ids", "negative or null"),
]


@pytest.mark.parametrize(("change", "column", "words"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_request_with(tmp_path: Path, change: dict[str, Any], column: str, words: str) -> None:
    """... is refused on write, and on read when someone else wrote it; the error names file, row and column."""
    good, bad = chat("a", 0.0), replace(chat("b", 1.0), **change)
    with pytest.raises(WorkloadError, match=words):
        workload(good, bad)
    path = tmp_path / "foreign.parquet"
    table = pa.Table.from_pylist([_row(good), _row(bad)], schema=WORKLOAD_SCHEMA)
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: metadata().to_json()}), path)
    with pytest.raises(WorkloadError, match=words) as caught:
        read_workload(path)
    assert f"({path}:row 1, column {column})" in str(caught.value)
    assert "\n" not in str(caught.value)


def _row(request: Request) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(request, name) for name in WORKLOAD_SCHEMA.names}
    row["checks"] = [{"kind": c.kind, "spec": c.spec, "weight": c.weight} for c in request.checks]
    return row


def test_request_ids_are_unique() -> None:
    with pytest.raises(WorkloadError, match=r"occurs twice: 'a' \(workload:row 2, column request_id\)"):
        workload(chat("a", 0.0), chat("b", 1.0), chat("a", 2.0))


def test_a_cycle_of_parents_is_refused() -> None:
    a = chat("a", 0.0, session_id="s", parent_ids=("b",))
    b = chat("b", 1.0, session_id="s", parent_ids=("a",))
    with pytest.raises(WorkloadError, match="waits for itself"):
        workload(a, b)


def test_a_value_that_fits_no_column_names_its_row() -> None:
    with pytest.raises(WorkloadError, match=r"row 1, column input_tokens"):
        workload(chat("a", 0.0), chat("b", 1.0, input_tokens=2**40))


@pytest.mark.parametrize(
    ("tail_hashed", "num_hashes", "fits"),
    [(True, 3, True), (True, 2, False), (False, 2, True), (False, 3, False), (None, 2, True), (None, 4, False)],
)
def test_the_number_of_hashes_fits_the_tokens(tail_hashed: bool | None, num_hashes: int, fits: bool) -> None:
    # 10 tokens in blocks of 4: two whole blocks and a tail
    prefix = PrefixHashing(block_size=4, tail_hashed=tail_hashed)
    made = Request(request_id="a", input_tokens=10, output_tokens=1, prefix_hashes=tuple(range(num_hashes)))
    if fits:
        workload(made, prefix=prefix)
    else:
        with pytest.raises(WorkloadError, match="do not fit 10 input tokens in blocks of 4"):
            workload(made, prefix=prefix)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"no file .*nothing\.parquet\. Give the path"):
        read_workload(tmp_path / "nothing.parquet")


def test_a_truncated_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "w.parquet"
    write_workload(path, [chat(str(i), float(i)) for i in range(50)], metadata())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WorkloadError, match="truncated or not parquet") as caught:
        read_workload(path)
    assert "\n" not in str(caught.value)


def test_a_file_damaged_inside_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "w.parquet"
    write_workload(path, [chat(str(i), float(i)) for i in range(50)], metadata())
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with pytest.raises(WorkloadError, match="truncated or not parquet"):
        read_workload(path)


def test_parquet_of_someone_else_is_one_line(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(WorkloadError, match="parquet but not a workload"):
        read_workload(tmp_path / "x.parquet")


def test_another_schema_version_is_one_line() -> None:
    text = metadata().to_json().replace("workload/1", "workload/7")
    with pytest.raises(WorkloadError, match="has schema 'workload/7'"):
        parse_metadata(text, where="x")
    with pytest.raises(WorkloadError, match="not JSON"):
        parse_metadata("{", where="x")


def test_unknown_metadata_and_columns_are_refused(tmp_path: Path) -> None:
    values = json.loads(metadata().to_json()) | {"colour": "blue"}
    with pytest.raises(WorkloadError, match="metadata field colour"):
        parse_metadata(json.dumps(values), where="x")
    with pytest.raises(WorkloadError, match="unknown column 'colour'"):
        write_workload(tmp_path / "w.parquet", pa.table({"request_id": ["a"], "colour": ["blue"]}), metadata())


def test_metadata_survives_its_json() -> None:
    full = metadata(prefix=PrefixHashing(block_size=16), slo_classes={"chat": {"ttft_ms": 300}}, losses=("x",))
    assert isinstance(full, WorkloadMetadata)
    assert parse_metadata(full.to_json(), where="x") == full
