"""What a reader must know before relying on the numbers: sample sizes, selection, what was not checked.

Does not know the numbers' layout.
"""

from __future__ import annotations

from collections.abc import Iterator

from optimizer.results import Provenance, StudyResult, TrialState
from reports.comparison import recommended_trial
from reports.measured import has_placeholder, is_usable, num_requests
from reports.numbers import duration

_P99_REQUESTS = 500
_P95_REQUESTS = 200  # ten requests beyond p95


def caveats(study: StudyResult) -> list[str]:
    """Sentences, the study's own notes last."""
    found = [*_adapters(study), *_provenance(study), *_samples(study), *_prices(study), *_selection(study)]
    notes = [*study.notes, *(study.verification.notes if study.verification else ())]
    return [*found, *(_sentence(note) for note in notes)]


def provenance(study: StudyResult) -> str:
    """How many trials were measured and how many predicted, in one sentence."""
    done = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    predicted = sum(trial.provenance is Provenance.PREDICTED for trial in done)
    measured = len(done) - predicted
    stopped = sum(trial.state is TrialState.STOPPED for trial in study.trials)
    rest = len(study.trials) - len(done) - stopped
    parts = [f"{measured} measured on a running engine"] if measured or not predicted else []
    parts += [f"{predicted} predicted by a simulator"] if predicted else []
    parts += [f"{stopped} stopped early, because they were rejected beyond doubt"] if stopped else []
    parts += [f"{rest} refused or failed"] if rest else []
    space = f" of {study.space_size:,} possible" if study.space_size else ""
    count = len(study.trials)
    took = f" It took {duration(study.duration_s)}." if study.duration_s else ""
    return f"{count} configuration{'' if count == 1 else 's'}{space}: {', '.join(parts)}.{took}"


def _adapters(study: StudyResult) -> Iterator[str]:
    if study.adapters is not None:
        yield _sentence(study.adapters.sentence())


def _provenance(study: StudyResult) -> Iterator[str]:
    if study.interrupted:
        yield "The study was interrupted: untried configurations may be better."
    trial = recommended_trial(study)
    if trial is not None and trial.provenance is Provenance.PREDICTED:
        yield f"The recommendation is predicted, not measured. It rests on {trial.basis or 'a simulation'}."
    elif study.verification is None and trial is not None and trial.number != 0:
        yield "The recommendation was not measured again on traffic the search had not seen."
    if any(t.provenance is Provenance.PREDICTED for t in study.trials if t.state is TrialState.COMPLETE):
        yield "Trials marked predicted come from a simulator, not from an engine."


def _samples(study: StudyResult) -> Iterator[str]:
    checked = study.verification
    if checked and checked.num_requests < _P95_REQUESTS:
        rests = _slowest(checked.num_requests)
        yield f"The comparison replayed {checked.num_requests} requests a run, so its p95 rests on {rests}."
    counts = [num_requests(trial) for trial in study.trials if is_usable(trial) and num_requests(trial)]
    if not counts:
        return
    fewest = min(counts)
    if fewest < _P95_REQUESTS:
        yield (
            f"A trial replayed as few as {fewest} requests, so its p95 rests on {_slowest(fewest)}: look at the "
            "intervals."
        )
    if fewest < _P99_REQUESTS:
        yield f"No p99 is shown: it takes {_P99_REQUESTS} requests, and a trial replayed {fewest}."


def _slowest(num_requests: int) -> str:
    beyond = max(1, num_requests // 20)
    return "the slowest one" if beyond == 1 else f"the {beyond} slowest"


def _prices(study: StudyResult) -> Iterator[str]:
    trial = recommended_trial(study)
    if trial is not None and has_placeholder(trial):
        yield "The price is a placeholder: how many times cheaper holds, the dollars do not. Tell yours with --price."


def _selection(study: StudyResult) -> Iterator[str]:
    measured = sum(is_usable(trial) for trial in study.trials)
    if measured > 2 and study.verification is not None:
        yield (
            f"The best of {measured} looks a little better in the search than it is, because luck helps to be chosen. "
            "The comparison on held-out traffic is free of that."
        )


def _sentence(note: str) -> str:
    note = note.strip()
    return note[:1].upper() + note[1:] + ("" if note.endswith((".", "!", "?")) else ".")
