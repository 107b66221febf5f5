"""The comment above `best.yaml`: what it is, why, on which evidence, and how to serve it.

Does not know the YAML below it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from optimizer.results import Provenance, StudyResult, TrialResult
from reports.config_words import config_sentence
from reports.numbers import verdict, with_interval
from reports.words import metric_words

_WIDTH = 108


def deployment_comment(study: StudyResult, path: str) -> str:
    """Comment lines in plain words; the study must recommend a trial."""
    lines = [line for paragraph in _paragraphs(study, path) for line in _wrapped(paragraph)]
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _wrapped(paragraph: str) -> list[str]:
    if ":" not in paragraph[:10]:
        return textwrap.wrap(paragraph, _WIDTH) or [""]
    return textwrap.wrap(paragraph, _WIDTH, subsequent_indent=" " * 10, break_long_words=False, break_on_hyphens=False)


def _paragraphs(study: StudyResult, path: str) -> Iterator[str]:
    recommendation = study.recommendation
    assert recommendation is not None
    trial = study.trial(recommendation.trial)
    label = trial.config.label(study.default.config)
    yield f"The configuration fopt recommends for the workload {study.workload_name}: {label}."
    yield ""
    yield f"Serve:    {how_to_serve(trial, path)}"
    yield f"Changes:  {config_sentence(trial.config, study.default.config)}."
    yield f"Asked:    {'; '.join((study.objective, *study.slos))}."
    yield f"Why:      {' '.join(recommendation.reasons)}"
    if not recommendation.feasible:
        yield "Beware:   no configuration met every limit; this is the nearest one."
    yield from (f"Evidence: {line}" for line in evidence_sentences(study))


def how_to_serve(trial: TrialResult, path: str) -> str:
    """The command that starts a recommended config; a predicted one has no engine here."""
    if trial.config.engine == "simulated":
        hardware = f"{trial.config.hardware.count} x {trial.config.hardware.sku}"
        if apart := trial.config.disaggregation:
            instances = f"{apart.prefill_instances} prefill and {apart.decode_instances} decode"
            return f"vllm serve --config best.vllm.yaml in each of {instances} instances, on {hardware} in all"
        return f"vllm serve --config best.vllm.yaml, on {hardware}"
    if trial.config.engine == "endpoint":
        return f"it runs already, at {trial.config.engine_args.get('url')}"
    return f"fopt serve {path}"


def evidence_sentences(study: StudyResult) -> Iterator[str]:
    """What was measured, one sentence each; what was not, said as plainly."""
    checked = study.verification
    trial = study.trial(study.recommendation.trial) if study.recommendation else study.default
    if checked is None:
        how = "predicted, not measured" if trial.provenance is Provenance.PREDICTED else "measured once"
        if trial.basis:
            yield f"step times: {trial.basis}."
        yield f"trial {trial.number} was {how}; it was not compared again with the default on held-out requests."
        return
    yield (
        f"default and recommended took turns ({' '.join(checked.order)}) on {checked.num_requests:,} held-out requests "
        f"of {checked.workload_name}; {'the advantage held' if checked.holds else 'the advantage did NOT hold'}."
    )
    for comparison in checked.comparisons:
        words = metric_words(comparison.metric)
        yield (
            f"{words.name} {with_interval(comparison.recommended, style=words.style, unit=words.unit)} instead of "
            f"{with_interval(comparison.default, style=words.style, unit=words.unit)}: "
            f"{verdict(comparison.improvement)}."
        )
