"""A workload's conversations as calibration data."""

import json
from pathlib import Path

import pytest

from optimizer.calibration import write_calibration
from optimizer.errors import OptimizerError
from workloads.metadata import Source, WorkloadMetadata
from workloads.request import Request
from workloads.workload import Workload

METADATA = WorkloadMetadata(name="w", source=Source(format="test"))


def rows(workload: Workload, path: Path, num_rows: int) -> list[dict[str, object]]:
    write_calibration(workload, path, num_rows=num_rows)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_spread_over_the_workload_with_their_answers(tmp_path: Path) -> None:
    requests = [Request(request_id=f"r{i}", arrival_s=float(i), prompt=f"p{i} ", response=f"a{i}") for i in range(10)]
    workload = Workload.from_requests(requests, METADATA)
    found = rows(workload, tmp_path / "rows", 5)
    assert found == [{"text": f"p{i} a{i}"} for i in (0, 2, 4, 6, 8)]
    assert len(rows(workload, tmp_path / "all", 128)) == 10


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
