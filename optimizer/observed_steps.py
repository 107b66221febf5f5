"""`observed_steps`: the steps of an engine that keeps no log, from when its tokens came to the client.

A step gives every request in it a token, and all of them come together: tokens are put into one step until the same
request has another, or nothing came for a good part of a usual step. Where tokens are written while the next step runs,
begin and end shift alike. What cannot be seen: parts of a prompt that were computed in earlier steps (the whole prompt
is counted in the step of its first token), prompts found in a prefix cache (replay without one), drafts (replay without
speculation).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.bundled.step_log import StepRecord
from engine.config import EngineConfig
from engine.simulator.calibrated import MeasuredSteps
from engine.simulator.step_times import config_beside, number_format
from optimizer.errors import OptimizerError
from workloads.records import RequestRecord, is_records_file, read_records

_APART = 0.4  # of the median time between a request's tokens: longer silence ends a step
_MIN_REQUESTS = 8


class _Token(NamedTuple):
    time_s: float
    request: int
    place: int  # in its answer


def observed_steps(records: Sequence[RequestRecord]) -> list[StepRecord]:
    """One record a step, oldest first; seconds since the replay began.

    Args:
        records: of one replay at which every token was timed by itself, without speculation and prefix caching.

    Raises:
        OptimizerError: too few answers, or tokens that came several at a time.
    """
    answered = [record for record in records if record.status in ("ok", "cut") and record.token_times_s]
    gaps = np.concatenate([np.diff(record.token_times_s) for record in answered] or [np.empty(0)])
    if len(answered) < _MIN_REQUESTS or not len(gaps):
        raise OptimizerError("too few answers to see an engine's steps by. Replay more requests")
    if np.mean(gaps <= 0) > 0.05:
        raise OptimizerError("several tokens come at a time: steps cannot be told apart. Replay without speculation")
    tokens = sorted(
        _Token(time_s, number, index)
        for number, record in enumerate(answered)
        for index, time_s in enumerate(record.token_times_s)
    )
    return _described(_grouped(tokens, _APART * float(np.median(gaps))), answered)


def are_records(path: Path) -> bool:
    """Whether a file holds a replay's records; False where it cannot be read at all."""
    try:
        return is_records_file(path)
    except (OSError, ValueError):
        return False


def observed_trial(path: Path) -> tuple[MeasuredSteps, EngineConfig | None]:
    """The steps in a trial's `records.parquet`, and the `config.yaml` beside it where it is.

    Raises:
        WorkloadError, SimulatorError: unreadable files.
        OptimizerError: records that show no steps.
    """
    config, name = config_beside(path), f"{path.parent.name}/{path.name}"
    if config is not None and (config.speculative_config is not None or config.enable_prefix_caching):
        raise OptimizerError(
            f"{name}: steps are not to be seen in the records of a config with speculation or prefix caching. Measure "
            "one without (a --base file with enable_prefix_caching: false), or give a steps.parquet"
        )
    try:
        steps = observed_steps(read_records(path))
    except OptimizerError as error:
        raise OptimizerError(f"{name}: {error}") from None
    format_of = "" if config is None else number_format(config)
    return MeasuredSteps(records=steps, name=f"{name} (seen from outside)", number_format=format_of), config


def _grouped(tokens: Sequence[_Token], apart_s: float) -> list[list[_Token]]:
    """Tokens of one step together."""
    groups: list[list[_Token]] = []
    seen: set[int] = set()
    for token in tokens:
        if not groups or token.request in seen or token.time_s - groups[-1][-1].time_s > apart_s:
            groups.append([])
            seen = set()
        groups[-1].append(token)
        seen.add(token.request)
    return groups


def _described(groups: Sequence[Sequence[_Token]], records: Sequence[RequestRecord]) -> list[StepRecord]:
    sent_s = np.array([record.sent_s for record in records])
    last_s = np.array([record.token_times_s[-1] for record in records])
    steps: list[StepRecord] = []
    before_s = -np.inf
    for group in groups:
        end_s = group[0].time_s
        waiting = sent_s[(sent_s < end_s) & (last_s > before_s)]  # and running
        begin_s = max(before_s, float(waiting.min()))
        first = [token for token in group if token.place == 0]
        later = [token for token in group if token.place]
        inputs = {token.request: records[token.request].input_tokens for token in group}
        steps.append(
            StepRecord(
                start_s=begin_s,
                duration_s=end_s - begin_s,
                gap_s=0.0,
                num_added_seqs=int(((sent_s > before_s) & (sent_s <= begin_s)).sum()),
                num_prefill_seqs=len(first),
                num_prefill_tokens=sum(inputs[token.request] for token in first),
                num_prefill_context_tokens=0,
                num_decode_seqs=len(later),
                num_decode_context_tokens=sum(inputs[token.request] + token.place for token in later),
                num_draft_tokens=0,
                num_new_tokens=len(group),
            )
        )
        before_s = end_s
    return steps
