"""A workload's conversations as calibration data."""

import json
from pathlib import Path

import pytest

from engine.artifacts.checkpoint_record import CalibrationRecord
from engine.artifacts.quantize_worker import read_rows
from optimizer.calibration import write_calibration
from optimizer.errors import OptimizerError
from workloads.metadata import Source, WorkloadMetadata
from workloads.request import Request
from workloads.workload import Workload

METADATA = WorkloadMetadata(name="w", source=Source(format="test"))


def rows(workload: Workload, path: Path, num_rows: int) -> list[dict[str, object]]:
    write_calibration(workload, path, num_rows=num_rows)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_worker_reads_texts_with_unusual_line_ends(tmp_path: Path) -> None:
    text = "one\u2028two\u2029three\x85four"
    workload = Workload.from_requests([Request(request_id="r", arrival_s=0.0, prompt=text, response="a")], METADATA)
    write_calibration(workload, tmp_path / "rows.jsonl", num_rows=1)
    assert read_rows(tmp_path / "rows.jsonl") == [{"text": text + "a"}]


def test_rows_are_spread_over_the_workload_with_their_answers(tmp_path: Path) -> None:
    requests = [Request(request_id=f"r{i}", arrival_s=float(i), prompt=f"p{i} ", response=f"a{i}") for i in range(10)]
    workload = Workload.from_requests(requests, METADATA)
    found = rows(workload, tmp_path / "rows", 5)
    texts = [f"p{i} a{i}" for i in range(10)]
    assert [texts.index(str(row["text"])) // 2 for row in found] == [0, 1, 2, 3, 4]
    assert [row["text"] for row in rows(workload, tmp_path / "all", 128)] == texts


def test_every_form_of_prompt_is_kept(tmp_path: Path) -> None:
    messages = '[{"role":"user","content":"hello"}]'
    requests = [
        Request(request_id="a", arrival_s=0.0, messages=messages, response="hi", tools="[]"),
        Request(request_id="b", arrival_s=1.0, prompt_token_ids=(1, 2), response_token_ids=(3,)),
        Request(request_id="c", arrival_s=2.0, input_tokens=5),
    ]
    found = rows(Workload.from_requests(requests, METADATA), tmp_path / "rows", 8)
    answered = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    assert found == [{"messages": answered, "tools": []}, {"token_ids": [1, 2, 3]}]


def test_a_workload_without_prompts_cannot_calibrate(tmp_path: Path) -> None:
    workload = Workload.from_requests([Request(request_id="a", arrival_s=0.0, input_tokens=5)], METADATA)
    with pytest.raises(OptimizerError, match="holds no prompts"):
        write_calibration(workload, tmp_path / "rows")
    assert not (tmp_path / "rows").exists()


def test_the_sample_is_the_same_for_the_same_seed_and_is_named(tmp_path: Path) -> None:
    requests = [Request(request_id=f"r{i}", arrival_s=float(i), prompt=f"p{i}") for i in range(400)]
    workload = Workload.from_requests(requests, METADATA)
    first, again, other = (
        write_calibration(workload, tmp_path / name, num_rows=40, seed=seed)
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    )
    assert first.path.read_bytes() == again.path.read_bytes() != other.path.read_bytes()
    assert first.record == CalibrationRecord(workload_fingerprint=workload.fingerprint, num_rows=40, seed=3)
