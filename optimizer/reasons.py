"""Why a trial is recommended, in sentences a reader without background understands.

Does not decide which trial that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from engine.config import Disaggregation, EngineConfig, SpeculativeConfig
from optimizer.errors import OptimizerError
from optimizer.measure import Measure
from optimizer.objective import Objective
from optimizer.pareto import AXES
from optimizer.results import SloOutcome, TrialResult, known_by

QUALITY, LATENCY, COST = AXES


def explain(
    chosen: TrialResult,
    default: TrialResult | None,
    objective: Objective,
    *,
    num_measured: int,
    num_feasible: int,
    tied: Sequence[TrialResult],
) -> tuple[str, ...]:
    """What was compared, what changes, what it brings."""
    known = known_by([chosen])
    first = f"Of {num_measured} {known} configs {num_feasible} meet every limit; trial {chosen.number} has the "
    sentences = [first + f"{objective.describe()}{'' if len(tied) == 1 else ', within the noise'}."]
    if chosen.number == 0:
        return (*sentences, f"It is the default config: nothing {known} beats it beyond the noise.")
    if len(tied) > 1:
        others = trials_in_words(trial.number for trial in tied if trial is not chosen)
        sentences.append(f"{others} did as well within the noise; this one changes fewer settings.")
    return (*sentences, *what_changes(chosen, default), *what_it_brings(chosen, default))


def trials_in_words(numbers: Iterable[int]) -> str:
    """As a sentence begins with them: `Trial 3`, or `Trials 3, 5 and 9`."""
    *first, last = map(str, numbers)
    return f"Trials {', '.join(first)} and {last}" if first else f"Trial {last}"


def explain_nearest(
    nearest: TrialResult, measured: Sequence[TrialResult], default: TrialResult | None, objective: Objective
) -> tuple[str, ...]:
    """Which limits stand in the way, and how near this trial comes."""
    missed = [outcome for outcome in nearest.slos if outcome.violation > 0]
    sentences = [
        f"None of the {len(measured)} {known_by(measured)} configs meets every limit; trial {nearest.number} comes "
        f"nearest (objective: {objective.describe()})."
    ]
    sentences += [_missed(outcome, measured) for outcome in missed]
    if nearest.number != 0:
        sentences += [*what_changes(nearest, default), *what_it_brings(nearest, default)]
    return tuple(sentences)


def _missed(outcome: SloOutcome, measured: Sequence[TrialResult]) -> str:
    same = [o for trial in measured for o in trial.slos if o.slo == outcome.slo]
    past = (
        f"It misses {outcome.slo} by {outcome.violation:.1%}" if outcome.violation < 1e6 else f"It misses {outcome.slo}"
    )
    if all(o.violation > 0 for o in same):
        return f"{past}; no {known_by(measured)} config meets that limit."
    return f"{past}; configs that meet that limit miss another one."


def num_changes(trial: TrialResult, default: TrialResult | None) -> int:
    """Settings that differ from the default's; the fields of speculation count as one."""
    return len(changed_settings(trial, default))


def changed_settings(trial: TrialResult, default: TrialResult | None) -> list[str]:
    """Dotted names that differ; `speculative_config`, `disaggregation` and overrides stand for all their fields."""
    if default is None:
        return []
    names = trial.config.differences(default.config)
    groups = ("speculative_config", "disaggregation", "quantization.overrides")
    return list(dict.fromkeys(next((g for g in groups if name.startswith(g)), name) for name in names))


def what_changes(trial: TrialResult, default: TrialResult | None) -> list[str]:
    """One sentence for each setting that is not the default's."""
    if default is None:
        return []
    names = [name for name in changed_settings(trial, default) if name != "hardware.count"]  # told with the split
    return [_change(name, trial, default.config) for name in names]


def _change(name: str, trial: TrialResult, default: EngineConfig) -> str:
    mine, theirs = _value(trial.config, name), _value(default, name)
    if name in _CHANGES:
        return _CHANGES[name](mine, theirs, trial)
    if name.startswith("engine_args."):
        return f"{name.removeprefix('engine_args.')} is {_argument(mine)} instead of {_argument(theirs)}."
    return f"{name} is {mine} instead of {theirs}."


def _argument(value: Any) -> str:
    """A flag's value as people say it; None is the server's own default."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "left to the server" if value is None else str(value)


def _value(config: EngineConfig, dotted: str) -> Any:
    section, _, argument = dotted.partition(".")
    if section == "engine_args":
        return config.engine_args.get(argument)
    value: Any = config
    for part in dotted.split("."):
        value = getattr(value, part)
    return value


_SOURCES = {
    "draft_model": "a small draft model proposes",
    "medusa": "further output heads propose",
    "eagle": "a one-layer head on the model proposes",
    "eagle3": "a one-layer head on three of the model's layers proposes",
}


def _speculation(mine: SpeculativeConfig | None, _: object, trial: TrialResult) -> str:
    if mine is None:
        return "Speculative decoding is off."
    source = _SOURCES.get(mine.method, "repeated text proposes")
    length = trial.metrics.get("acceptance_length")
    measured = f"; {length:.1f} tokens come out of each step on this workload" if length else ""
    most = mine.num_speculative_tokens
    number = "as many tokens ahead as pay at the time" if most == "auto" else f"{most} tokens ahead"
    tree = f", {mine.tree_nodes} guesses in all," if mine.tree_nodes else ""
    ahead = f"{source} {number}{tree} and the model checks them"
    return f"Speculative decoding: {ahead}{measured}."


def _weights(mine: str, theirs: str, _: TrialResult) -> str:
    return f"Weights are stored as {mine} instead of {theirs}."


def _activations(mine: str, _: object, __: TrialResult) -> str:
    if mine == "bf16":
        return "What layers hand on is not rounded."
    return f"What layers hand on is rounded to {mine}, so that they multiply in {mine}."


def _kv_cache(mine: str, _: object, __: TrialResult) -> str:
    if mine == "bf16":
        return "What the model remembers of a conversation is stored as it was computed."
    return f"What the model remembers of a conversation is stored as {mine}, so that more of it fits into memory."


_OVERRIDES_SHOWN = 3


def _overrides(mine: dict[str, str], _: object, __: TrialResult) -> str:
    if not mine:
        return "All layers have the same weight format."
    shown = list(mine.items())[:_OVERRIDES_SHOWN]
    told = [f"{pattern} as {weights}" for pattern, weights in shown]
    more = [f"{len(mine) - len(shown)} more"] if len(mine) > len(shown) else []
    return f"Some layers have a weight format of their own: {', '.join([*told, *more])}."


def _dtype(mine: str, theirs: str, _: TrialResult) -> str:
    return f"The model computes in {mine} instead of {_dtype_words(theirs)}."


def _dtype_words(dtype: str) -> str:
    return "the checkpoint's own type" if dtype == "auto" else dtype


def _max_num_seqs(mine: int, theirs: int, _: TrialResult) -> str:
    return f"At most {mine} requests are decoded together instead of {theirs}."


def _batched_tokens(mine: int, theirs: int, _: TrialResult) -> str:
    size = "smaller" if mine < theirs else "larger"
    return f"A step takes at most {mine} tokens instead of {theirs}, so long prompts are read in {size} pieces."


def _sku(mine: str, theirs: str, trial: TrialResult) -> str:
    return f"Each replica runs on {trial.config.hardware.count} x {mine}; the default on {theirs}."


def _split(mine: int, theirs: int, _: TrialResult) -> str:
    return f"Each layer is split over {mine} device{'s' * (mine > 1)} instead of {theirs}."


def _disaggregation(mine: Disaggregation | None, _: object, __: TrialResult) -> str:
    if mine is None:
        return "Every instance reads prompts and writes answers."
    prefill, decode = mine.prefill_instances, mine.decode_instances
    return (
        f"Prompts are read by {prefill} instance{'s' * (prefill > 1)} and answers written by {decode} "
        f"other{'s' * (decode > 1)} of each replica."
    )


def _prefix_caching(mine: bool, _: object, __: TrialResult) -> str:
    return f"Shared prompt beginnings are {'kept and reused' if mine else 'not kept, which saves their bookkeeping'}."


def _num_threads(mine: int | None, theirs: int | None, _: TrialResult) -> str:
    return (
        f"The engine uses {mine or 'every'} CPU core{'s' if mine and mine > 1 else ''} instead of {theirs or 'every'}."
    )


_CHANGES: dict[str, Callable[[Any, Any, TrialResult], str]] = {
    "speculative_config": _speculation,
    "quantization.weights": _weights,
    "quantization.activations": _activations,
    "quantization.kv_cache": _kv_cache,
    "quantization.overrides": _overrides,
    "dtype": _dtype,
    "hardware.sku": _sku,
    "tensor_parallel_size": _split,
    "disaggregation": _disaggregation,
    "max_num_seqs": _max_num_seqs,
    "max_num_batched_tokens": _batched_tokens,
    "enable_prefix_caching": _prefix_caching,
    "num_threads": _num_threads,
}


def what_it_brings(trial: TrialResult, default: TrialResult | None) -> list[str]:
    """Latency, cost and quality against the default's."""
    if default is None:
        return []
    sentences = [_latency_gain(trial, default), _cost_gain(trial, default), _quality_change(trial, default)]
    return [sentence for sentence in sentences if sentence]


def _latency_gain(trial: TrialResult, default: TrialResult) -> str:
    pair = _pair(LATENCY, trial, default)
    if pair is None:
        return ""
    mine, theirs = pair
    numbers = f"{_milliseconds(mine)} instead of {_milliseconds(theirs)} at p95"
    if mine < theirs:
        return (
            f"Answers are complete {theirs / mine:.1f}x sooner: {numbers}, from the recorded arrival to the last token."
        )
    return f"Answers take {mine / theirs:.2f}x as long: {numbers}."


def _cost_gain(trial: TrialResult, default: TrialResult) -> str:
    pair = _pair(COST, trial, default)
    if pair is None:
        return ""
    mine, theirs = pair
    relation = f"{theirs / mine:.1f}x less" if mine < theirs else f"{mine / theirs:.2f}x as much"
    return f"A million tokens cost {relation}: ${mine:.3g} instead of ${theirs:.3g}."


def _quality_change(trial: TrialResult, default: TrialResult) -> str:
    if trial.config.quality_class() == default.config.quality_class():
        speculation = trial.config.speculative_config is not None
        why = "speculation is lossless" if speculation else "nothing changes the numbers the model computes"
        return f"Quality is unchanged, because {why}."
    if trial.quality is None:
        return ""
    quality = trial.quality.quality
    return f"Quality is {quality.value:.3f} of the reference (95% interval {quality.low:.3f} to {quality.high:.3f})."


def _pair(axis: Measure, trial: TrialResult, default: TrialResult) -> tuple[float, float] | None:
    try:
        mine, theirs = axis.read_trial(trial).value, axis.read_trial(default).value
    except OptimizerError:
        return None
    return (mine, theirs) if mine > 0 and theirs > 0 else None


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"
