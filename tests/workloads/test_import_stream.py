"""Traces of times and lengths, streamed: the same file as when read row by row, or none."""

import gc
import gzip
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.columns import table_from_requests
from workloads.errors import WorkloadError
from workloads.importers import IMPORTERS, import_workload
from workloads.importers.session_links import EarlierCall, LoggedCall, SessionLinks
from workloads.importers.stream import ROW_BY_ROW, import_streamed
from workloads.importers.stream_links import StreamLinks
from workloads.metadata import Source, WorkloadMetadata
from workloads.parquet import read_workload, write_tables_atomically
from workloads.request import Request
from workloads.validation import validate_table
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
    done = import_streamed(path, output, IMPORTERS[name], update={"name": path.stem})
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


def hashed(path: Path, rows: list[tuple[int, int, int]], unit: float) -> Path:
    lines = [
        json.dumps(
            {
                "timestamp": ticks // 1000 if unit == 1 else ticks / 1000,
                "input_length": inputs,
                "output_length": outputs,
                "hash_ids": list(range(-(-inputs // 512))),
            }
        )
        for ticks, inputs, outputs in rows
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, unit=st.sampled_from([1, 1000]))
def test_a_hashed_trace_is_as_read_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]], unit: int
) -> None:
    name = "mooncake" if unit == 1 else "vllm-timed-trace"
    same(hashed(tmp_path_factory.mktemp("hashed") / "t.jsonl", rows, unit), name)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 9000), st.integers(0, 300)), min_size=1).map(sorted)
)
def test_a_burstgpt_trace_is_as_read_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("burst") / "b.csv"
    lines = [f"{t},{'GPT-4' if i % 3 else 'ChatGPT'},{i},{o},{i + o},API log" for t, i, o in rows]
    path.write_text("\n".join(["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type", *lines]))
    same(path, "burstgpt")


def same(path: Path, name: str) -> None:
    """Streamed and whole: the same rows and the same words about them."""
    found, slow = streamed(path, name), import_workload(path, format=name)
    assert found is not None
    assert found.fingerprint == slow.fingerprint
    changes = {"converter": None}
    assert found.metadata.model_copy(update=changes) == slow.metadata.model_copy(update=changes)


CASES = {
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.1,0,1\n2023-11-16 18:17:04.1,3,1\n",
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Log Type\n1,m,5,5,API log\n2,m,4,0,\n",
    "mooncake": '{"timestamp":7,"input_length":600,"output_length":2,"hash_ids":[1,2],"note":"x"}\n',
    "vidur": "num_prefill_tokens,num_decode_tokens\n3,4\n5,6\n",
    "vllm-timed-trace": '{"timestamp":0.5,"input_length":9,"output_length":2,"who":"x"}\n' * 3,
    "aiperf": '{"text":"a","timestamp":5,"output_length":3}\n{"text":"b","timestamp":9}\n',
    "guidellm": '{"prompt":"a","prompt_tokens_count":3,"output_tokens_count":4,"relative_timestamp":0.5}\n',
    "agent-sessions": '{"id":"s","block_size":64,"requests":'
    '[{"t":0,"in":70,"out":5},{"t":9,"in":80,"out":5,"think_time":2}]}',
    "fine-tuning": '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n' * 2,
    "qwen-bailian": '{"chat_id":7,"parent_chat_id":-1,"timestamp":5,"input_length":9,"output_length":2,"note":"x"}\n'
    '{"chat_id":3,"parent_chat_id":7,"timestamp":6,"input_length":9,"output_length":2,"turn":2}\n',
    "sharegpt": '{"id":"a","conversations":[{"from":"human","value":"x"},{"from":"gpt","value":"y"}]}',
    "vllm-custom": '{"prompt":"a","output_tokens":3}\n{"prompt":"b"}\n',
}


@pytest.mark.parametrize("name", sorted(ROW_BY_ROW))
def test_rows_with_more_than_the_plain_columns_are_streamed_as_requests(tmp_path: Path, name: str) -> None:
    path = tmp_path / "trace.log"
    path.write_text(CASES[name])
    same(path, name)


def test_what_goes_backwards_is_read_whole(tmp_path: Path) -> None:
    assert streamed(azure(tmp_path / "back.csv", [(5, 1, 1), (4, 1, 1)]), "azure") is None
    assert streamed(azure(tmp_path / "empty.csv", []), "azure") is None


@pytest.mark.parametrize("cell", ["x", "", "-3", "1.5", "99999999999"])
def test_a_bad_cell_is_named_and_leaves_nothing(tmp_path: Path, cell: str) -> None:
    path = azure(tmp_path / "code.csv", [(1, 5, 5)] * 3)
    path.write_text(path.read_text() + f"\n2023-11-16 18:17:03.9799600,{cell},1\n")
    with pytest.raises(WorkloadError, match=r"code\.csv:(line 5|row 3), column (ContextTokens|input_tokens)"):
        streamed(path, "azure")
    assert [p.name for p in tmp_path.iterdir()] == ["code.csv"]


def test_hashes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"timestamp":0,"input_length":600,"output_length":2,"hash_ids":[1]}\n' * 2)
    with pytest.raises(WorkloadError, match=r"t\.jsonl:row 0, column prefix_hashes"):
        streamed(path, "mooncake")


def test_a_gzip_trace_is_streamed_too(tmp_path: Path) -> None:
    plain = azure(tmp_path / "code.csv", [(i, 5 + i, i) for i in range(100)])
    packed = tmp_path / "code.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    first, second = streamed(plain, "azure"), streamed(packed, "azure")
    assert first is not None
    assert second is not None
    assert first.fingerprint == second.fingerprint


def test_several_tables_are_one_file(tmp_path: Path) -> None:
    whole = import_workload(azure(tmp_path / "code.csv", [(i, 5 + i, i) for i in range(100)]))
    tables = (whole.table.slice(first, 30) for first in range(0, 100, 30))
    write_tables_atomically(tmp_path / "w.parquet", tables, lambda: whole.metadata)
    found = read_workload(tmp_path / "w.parquet")
    assert (found.fingerprint, found.metadata) == (whole.fingerprint, whole.metadata)
    with pytest.raises(WorkloadError, match="cannot write"):
        write_tables_atomically(tmp_path / "no" / "w.parquet", (), lambda: whole.metadata)


def test_turns_of_sessions_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    row = {"input_length": 3, "output_length": 2, "hash_ids": [1]}
    rows = [{"timestamp": n, **row} | ({} if n % 3 == 0 else {"session_id": f"s{n % 3}", "delay": n}) for n in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    same(path, "mooncake")


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 9), st.sampled_from(["a", "b", "", "nan", "NA"]), st.sampled_from(["", 0, 0.5, 3, 40])
        ),
        min_size=1,
    )
)
def test_a_burstgpt_trace_with_sessions_is_as_read_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str, float | str]]
) -> None:
    path = tmp_path_factory.mktemp("burst") / "b.csv"
    lines, now = ["Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Log Type"], 0
    for number, (gap, session, elapsed) in enumerate(rows):
        now += gap
        lines.append(
            f"{now},{session},{elapsed},{'GPT-4' if number % 2 else 'ChatGPT'},{5 + number},{number % 4},API log"
        )
    path.write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workloads.importers.stream.ROW_BY_ROW", ())
        patch.setattr("workloads.importers.length_tables._BLOCK_BYTES", 200)
        same(path, "burstgpt")


@settings(max_examples=40, deadline=None)
@given(
    parents=st.lists(st.integers(-1, 12), min_size=1, max_size=12),
    seed=st.integers(0, 99),
    kind=st.sampled_from([None, "text"]),
)
def test_a_bailian_trace_is_as_read_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, parents: list[int], seed: int, kind: str | None
) -> None:
    path = tmp_path_factory.mktemp("chats") / "c.jsonl"
    chats = random.Random(seed).sample(range(13), len(parents))
    rows = [
        {
            "chat_id": chat,
            "parent_chat_id": parent,
            "timestamp": number * 0.7,
            "input_length": 20 + number,
            "output_length": number,
            "turn": number % 4,
            "hash_ids": [1, 2 + number],
        }
        | ({"type": kind} if kind else {})
        for number, (chat, parent) in enumerate(zip(chats, parents, strict=True))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workloads.importers.stream.ROW_BY_ROW", ())
        patch.setattr("workloads.importers.hashed_tables._BLOCK_BYTES", 400)
        same(path, "qwen-bailian")


def test_chats_that_repeat_or_are_impossible_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    line = '{{"chat_id":{},"parent_chat_id":-1,"timestamp":5,"input_length":9,"output_length":2}}\n'
    path.write_text(line.format(1) + line.format(1))
    assert streamed(path, "qwen-bailian") is None
    with pytest.raises(WorkloadError, match=r"c\.jsonl:row 1, column request_id"):
        import_workload(path)
    path.write_text(line.format(1) + line.format(-4))
    with pytest.raises(WorkloadError, match=r"c\.jsonl:line 2, column chat_id"):
        streamed(path, "qwen-bailian")


@settings(max_examples=60, deadline=None)
@given(
    parents=st.lists(st.sampled_from([None, 0, 1, 2, 3, 9]), min_size=1, max_size=5),
    sessions=st.lists(st.sampled_from(["a", "b", None]), min_size=5, max_size=5),
    ids=st.lists(st.integers(0, 4), min_size=5, max_size=5, unique=True) | st.just([0, 1, 2, 0, 4]),
    size=st.integers(1, 5),
)
def test_links_that_fit_are_those_of_a_workload_whose_parents_come_first(
    parents: list[int | None], sessions: list[str | None], ids: list[int], size: int
) -> None:
    requests = [
        Request(request_id=f"r{name}", session_id=session, parent_ids=() if parent is None else (f"r{parent}",))
        for name, session, parent in zip(ids, sessions, parents, strict=False)
    ]
    table, links = table_from_requests(requests), StreamLinks()
    for first in range(0, len(requests), size):
        links.add(table.slice(first, size))
    try:
        validate_table(table, WorkloadMetadata(name="w", source=Source(format="test")), where=None)
    except WorkloadError:
        assert not links.fit()
    else:
        assert links.fit() == first_come(requests)


def first_come(requests: list[Request]) -> bool:
    seen: set[str] = set()
    for request in requests:
        if not seen.issuperset(request.parent_ids):
            return False
        seen.add(request.request_id)
    return True


GAP = st.floats(0, 9, allow_subnormal=False)
CALL = st.tuples(st.sampled_from("abc"), GAP, GAP, st.sampled_from(["new", "continues", "quotes"]), st.integers(0, 30))


def gateway_log(path: Path, calls: list[tuple[str, float, float, str, int]]) -> Path:
    """LiteLLM calls in order of time; a call begins anew, continues its session's last, or quotes an answer of it."""
    now, told = 1.7e9, dict[str, list[dict[str, str]]]()
    with path.open("w") as file:
        for number, (session, gap, took, kind, name) in enumerate(calls):
            now += gap
            history = told.get(session, [])
            asked = f"ask {number}" + (f": {history[-1]['content']}" if kind == "quotes" and history else "")
            messages = [*(history if kind == "continues" else []), {"role": "user", "content": asked}]
            answer = {"role": "assistant", "content": f"the {number}th answer of session {session}"}
            told[session] = [*messages, answer]
            row = {"request_id": f"id-{name}", "call_type": "acompletion", "startTime": now, "endTime": now + took}
            row |= {"prompt_tokens": 9, "completion_tokens": 4, "model": "m", "session_id": session}
            file.write(json.dumps(row | {"messages": messages, "response": {"choices": [{"message": answer}]}}) + "\n")
    return path


@settings(max_examples=60, deadline=None)
@given(calls=st.lists(CALL, min_size=1, max_size=12))
def test_a_log_in_order_of_time_is_as_read_whole(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, float, float, str, int]]
) -> None:
    same(gateway_log(tmp_path_factory.mktemp("log") / "log.jsonl", calls), "litellm")


def test_a_log_out_of_order_or_linked_by_its_words_is_read_whole(tmp_path: Path) -> None:
    path = gateway_log(tmp_path / "log.jsonl", [("a", 1.0, 0.5, "new", 1), ("a", 3.0, 0.5, "continues", 2)])
    rows = path.read_text().splitlines()
    assert streamed(path, "litellm") is not None
    path.write_text("\n".join(reversed(rows)))
    assert streamed(path, "litellm") is None
    path.write_text("\n".join(rows).replace('"session_id": "a"', '"session_id": null'))
    assert streamed(path, "litellm") is None


def test_sessions_that_are_over_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    made = SessionLinks.add

    def add(self: SessionLinks, number: int, name: str, call: LoggedCall) -> list[EarlierCall]:
        alive.append(sum(type(other) is SessionLinks for other in gc.get_objects()))
        return made(self, number, name, call)

    monkeypatch.setattr(SessionLinks, "add", add)
    calls = [(f"s{n // 2}", 1.0, 0.5, "new", n) for n in range(60)]
    assert streamed(gateway_log(tmp_path / "log.jsonl", calls), "litellm") is not None
    assert max(alive) - min(alive) <= 1


@pytest.mark.parametrize("name", ["otel", "baseten"])
def test_other_logs_are_streamed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "log"
    if name == "otel":
        spans = [
            {"trace_id": f"t{n % 2}", "span_id": str(n), "start_time": f"2025-01-01T00:00:0{n}Z", "attributes": {}}
            for n in range(6)
        ]
        for span in spans[:-1]:
            span["attributes"] = {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 2}
        path.write_text("".join(json.dumps({"trace_id": "x", "spans": [span]}) + "\n" for span in spans))
    else:
        rows = [
            {
                "timestamp_start_unix_ms": n * 100,
                "input_tokens": 20,
                "output_tokens": 3,
                "provided_session_id": f"s{n % 2}",
            }
            | {"duration_e2e_ms": 50.0, "total_hashes": ["x", f"{n}"], "block_size": 16 if n else None}
            for n in range(9)
        ]
        pq.write_table(pa.Table.from_pylist(rows), path)
    same(path, name)
