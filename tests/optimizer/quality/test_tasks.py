"""Scores of free answers by the checks they come with."""

from traffic_cases import METADATA, chats, lengths_only

from optimizer.quality.sample import choose_sample
from optimizer.quality.tasks import mean_by_task, score_answer, task_of
from workloads.request import Check, Request
from workloads.workload import Workload


def request(name: str, *checks: Check, extra: str | None = None, input_tokens: int = 5) -> Request:
    return Request(request_id=name, prompt="x", input_tokens=input_tokens, output_tokens=2, checks=checks, extra=extra)


EXACT, CONTAINS = Check(kind="exact", spec='"yes"'), Check(kind="contains", spec='["y", "n"]', weight=3.0)
PYTHON = Check(kind="python", spec='"os:system"')


def test_the_score_is_the_weighted_mean_of_the_checks() -> None:
    # exact 1 x 1, contains 0.5 x 3, over 4
    assert score_answer(request("a", EXACT, CONTAINS), "yes") == (1 + 1.5) / 4


def test_python_checks_are_never_run() -> None:
    assert score_answer(request("a", PYTHON), "yes") is None
    assert score_answer(request("a", PYTHON, EXACT), "yes") == 1.0


def test_a_task_is_what_the_workload_says_else_the_kinds_of_checks() -> None:
    assert task_of(request("a", EXACT, extra='{"task": "edit"}')) == "edit"
    assert task_of(request("a", EXACT, CONTAINS)) == "contains+exact"


def test_each_task_has_its_mean() -> None:
    a, b = request("a", EXACT), request("b", CONTAINS)
    assert mean_by_task([(a, 1.0), (a, 0.0), (b, 0.25)]) == {"contains": 0.25, "exact": 0.5}


def test_requests_with_checks_are_preferred_and_the_order_is_everybodys() -> None:
    mixed = Workload.from_requests([*chats(6), *(request(f"plain{i}") for i in range(6))], METADATA)
    sample = choose_sample(mixed, 10)
    assert {r.request_id for r in sample.requests} == {f"r{i}" for i in range(6)}
    assert choose_sample(mixed, 3).requests == sample.requests[:3]


def test_very_long_prompts_are_left_out_as_long_as_there_are_others() -> None:
    long = [request(f"long{i}", input_tokens=5000) for i in range(2)]
    sample = choose_sample(Workload.from_requests([*long, request("short")], METADATA), 3)
    assert [r.request_id for r in sample.requests] == ["short"]
    assert "2 requests with prompts over 4096 tokens" in sample.notes[0]
    assert len(choose_sample(Workload.from_requests(long, METADATA), 3).requests) == 2


def test_prompts_that_have_to_be_made_up_are_told() -> None:
    assert "synthetic" in choose_sample(lengths_only(3), 3).notes[0]
