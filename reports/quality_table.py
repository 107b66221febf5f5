"""Quality by quality class: divergence from the reference and checks by task, with intervals.

Does not know how quality is evaluated.
"""

from __future__ import annotations

from optimizer.results import QualityScore, StudyResult
from reports.numbers import share, with_interval
from reports.table import NOTHING, Cell, Column, Table
from workloads.estimate import Estimate

_BOUND = "KL is taken over the reference's most likely tokens, so it is a lower bound."
_COLUMNS = (
    Column(name="Class", means="everything that changes the numbers the model computes"),
    Column(name="Quality", numeric=True, means="1 means as good as the unquantized reference"),
    Column(name="Top-1 agreement", numeric=True, means="share of tokens where the most likely one is the same"),
    Column(name="KL, nats/token", numeric=True, means="distance of token probabilities from the reference's"),
    Column(name="Checks passed", numeric=True, means="share of answers that pass the workload's own checks"),
)


def quality_table(study: StudyResult) -> Table | None:
    """One row a class, the reference first; None when quality was not evaluated."""
    scores = list({t.quality.quality_class: t.quality for t in study.trials if t.quality}.values())
    if not scores:
        return None
    scores.sort(key=lambda score: (not score.is_reference, -score.quality.value))
    tasks = sorted({task for score in scores for task in score.checks_by_task})
    by_task = (Column(name=task, numeric=True, means=f"checks passed, task {task}") for task in tasks)
    notes = [f"{class_words(score.quality_class)}: {score.note.rstrip('.')}." for score in scores if score.note]
    return Table(
        title="Quality by class",
        columns=(*_COLUMNS, *by_task, Column(name="Requests", numeric=True)),
        rows=tuple(_row(score, tasks) for score in scores),
        note=" ".join([*([_BOUND] if any(score.kl_nats for score in scores) else []), *notes]),
    )


def class_words(quality_class: str) -> str:
    """`int8 weights` for `auto/w-int8/a-bf16/kv-bf16/c-bf16`: only what is not the checkpoint's own."""
    dtype, *parts = quality_class.split("/")
    told = [words for part in parts if (words := _part_words(part))]
    told += [] if dtype == "auto" else [f"computed in {dtype}"]
    return ", ".join(told) or "unquantized"


def _part_words(part: str) -> str:
    names = {"w": "weights", "a": "activations", "kv": "cache", "c": "communication", "mix": "mix"}
    pattern, is_override, weights = part.rpartition("=")
    if is_override:
        return f"{weights} in {pattern}"
    key, _, value = part.partition("-")
    return "" if value == "bf16" else f"{value} {names.get(key, key)}".strip()


def _row(score: QualityScore, tasks: list[str]) -> tuple[Cell, ...]:
    name = f"{class_words(score.quality_class)}{' (reference)' if score.is_reference else ''}"
    return (
        Cell(text=name, title=score.quality_class),
        _cell(score.quality, "share"),
        _cell(score.top1_agreement, "share"),
        _cell(score.kl_nats, "number"),
        _cell(score.checks_score, "share"),
        *(_task_cell(score.checks_by_task.get(task)) for task in tasks),
        Cell(text=f"{score.num_requests:,}", sort=score.num_requests, title=f"{score.num_tokens:,} tokens"),
    )


def _cell(estimate: Estimate | None, style: str) -> Cell:
    if estimate is None:
        return NOTHING
    title = f"from {estimate.num_samples:,} samples"
    return Cell(text=with_interval(estimate, style=style), sort=estimate.value, title=title)


def _task_cell(value: float | None) -> Cell:
    return NOTHING if value is None else Cell(text=share(value), sort=value)
