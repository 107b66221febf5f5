"""Scores of free answers by the checks that requests carry, and which task each request belongs to.

Does not generate answers and does not compare candidates.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping

from workloads.checks import score_response
from workloads.request import Check, Request


def scoring_checks(request: Request) -> tuple[Check, ...]:
    """The checks that are scored: all but Python ones, which would run the workload's code."""
    return tuple(check for check in request.checks if check.kind != "python")


def score_answer(request: Request, text: str) -> float | None:
    """Weighted mean of the request's checks, 0..1; None when it has none to score.

    Raises:
        WorkloadError: a check whose spec does not parse.
    """
    checks = scoring_checks(request)
    return score_response(checks, text) if checks else None


def task_of(request: Request) -> str:
    """`extra.task` where the workload says it, else the kinds of its checks."""
    extra = json.loads(request.extra) if request.extra else {}
    task = extra.get("task") if isinstance(extra, Mapping) else None
    return str(task) if task else "+".join(sorted({check.kind for check in scoring_checks(request)}))


def mean_by_task(scores: Iterable[tuple[Request, float]]) -> dict[str, float]:
    """Mean score of each task's requests, in order of name."""
    by_task: dict[str, list[float]] = defaultdict(list)
    for request, score in scores:
        by_task[task_of(request)].append(score)
    return {task: sum(values) / len(values) for task, values in sorted(by_task.items())}
