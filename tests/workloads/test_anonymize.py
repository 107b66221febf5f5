"""Anonymized workloads say nothing and share the same prefixes."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_cases import metadata

from workloads.anonymize import anonymize_file
from workloads.errors import WorkloadError
from workloads.metadata import Adapter, PrefixHashing, SloClass, Source, SourceFile
from workloads.parquet import WorkloadFile, save_workload, write_workload
from workloads.request import Check, Request, json_text
from workloads.tokenizer import TokenCounter

SALT = b"0123456789abcdef"
DEMO = Path(__file__).parents[2] / "workloads" / "demo"


def private(number: int, turn: int) -> Request:
    messages = [{"role": "user", "content": f"secret-{number}-{i} " + "word " * 40} for i in range(turn + 1)]
    calls = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "secret-tool", "arguments": "{}"}}],
    }
    return Request(
        request_id=f"secret-id-{number}.{turn}",
        arrival_s=10.0 * number + turn,
        session_id=f"secret-session-{number}",
        turn=turn,
        parent_ids=(f"secret-id-{number}.{turn - 1}",) if turn else (),
        think_s=0.5 if turn else None,
        model="secret-model",
        adapter="secret-adapter",
        tenant="secret-tenant",
        slo_class="secret-class",
        input_tokens=45 * (turn + 1),
        output_tokens=7,
        messages=json_text([*messages, calls]),
        tools=json_text([{"type": "function", "function": {"name": "secret-tool"}}]),
        stop=("secret-stop",),
        extra_body=json_text({"user": "secret-user"}),
        response="secret-response",
        status="ok",
        checks=(Check(kind="exact", spec='"secret"'),),
        extra=json_text({"k": "secret-extra"}),
    )


def private_file(folder: Path) -> WorkloadFile:
    requests = [private(number, turn) for number in range(5) for turn in range(3)]
    about = metadata(
        name="secret-name",
        start_time="2026-01-01T00:00:00",
        source=Source(format="test", files=(SourceFile(name="secret.jsonl", sha256="00"),)),
        model="secret/folder",
        tokenizer="secret/tokenizer",
        adapters=(Adapter(name="secret-adapter", path="secret/path"),),
        slo_classes={"secret-class": SloClass(ttft_ms=300)},
        losses=("secret-loss",),
    )
    write_workload(folder / "private.parquet", requests, about)
    return WorkloadFile(folder / "private.parquet")


def test_nothing_that_was_said_or_named_is_left(tmp_path: Path) -> None:
    found = anonymize_file(private_file(tmp_path), SALT)
    save_workload(tmp_path / "public.parquet", found.workload)
    table = pq.read_table(tmp_path / "public.parquet")
    assert "secret" not in json.dumps(table.to_pydict())
    assert b"secret" not in b"".join(table.schema.metadata.values())
    assert b"2026" not in b"".join(table.schema.metadata.values())
    assert found.gone["messages"] == found.gone["response"] == 15
    assert "quality" not in found.workload.capabilities


def test_times_lengths_and_order_stay(tmp_path: Path) -> None:
    file = private_file(tmp_path)
    found = anonymize_file(file, SALT).workload
    kept = ["arrival_s", "turn", "think_s", "input_tokens", "output_tokens"]
    assert found.table.select(kept).equals(file.read().select(kept))
    ids = found.table.column("request_id").to_pylist()
    parents = [parents or [] for parents in found.table.column("parent_ids").to_pylist()]
    assert all(([ids[row - 1]] if row % 3 else []) == parents[row] for row in range(15))
    assert set(found.capabilities) == {"open_loop", "closed_loop", "prefix"}
    [slo_class] = found.metadata.slo_classes
    assert set(found.table.column("slo_class").to_pylist()) == {slo_class}


def test_a_salt_makes_names_that_another_does_not(tmp_path: Path) -> None:
    file = private_file(tmp_path)
    one, same, other = (anonymize_file(file, salt).workload.fingerprint for salt in (SALT, SALT, b"x" * 16))
    assert one == same != other
    with pytest.raises(WorkloadError, match="16 random bytes"):
        anonymize_file(file, b"short")


def test_with_the_tokenizer_prefixes_are_shared_as_before() -> None:
    file = WorkloadFile(DEMO / "heldout.parquet")
    found = anonymize_file(file, SALT, tokenizer=TokenCounter(DEMO / "models" / "target"))
    assert found.prefix_hit_ratio == pytest.approx(found.prefix_hit_ratio_before, abs=1e-3)


def test_without_it_about_as_before() -> None:
    found = anonymize_file(WorkloadFile(DEMO / "heldout.parquet"), SALT)
    assert found.prefix_hit_ratio == pytest.approx(found.prefix_hit_ratio_before, abs=0.03)
    assert any("--tokenizer" in note for note in found.notes)


def test_text_of_unknown_length_needs_the_tokenizer(tmp_path: Path) -> None:
    write_workload(tmp_path / "w.parquet", [Request(request_id="a", prompt="hello")], metadata())
    with pytest.raises(WorkloadError, match="--tokenizer"):
        anonymize_file(WorkloadFile(tmp_path / "w.parquet"), SALT)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=12),
    st.sampled_from(["global", "session"]),
)
def test_recorded_hashes_keep_their_sharing(
    tmp_path_factory: pytest.TempPathFactory, hashes: list[list[int]], scope: str
) -> None:
    path = tmp_path_factory.mktemp("hashes") / "w.parquet"
    requests = [
        Request(
            request_id=str(i),
            session_id=f"s{i % 2}",
            input_tokens=4 * len(h) - 1,
            output_tokens=1,
            prefix_hashes=tuple(h),
        )
        for i, h in enumerate(hashes)
    ]
    prefix = PrefixHashing.model_validate({"block_size": 4, "scope": scope, "tail_hashed": True})
    write_workload(path, requests, metadata(prefix=prefix))
    found = anonymize_file(WorkloadFile(path), SALT)
    assert found.prefix_hit_ratio == pytest.approx(found.prefix_hit_ratio_before)
    assert found.workload.metadata.prefix == prefix
