"""`Watcher`: passes what happens in a study on to the terminal and to the tracker.

Does not measure or decide.
"""

from __future__ import annotations

from dataclasses import dataclass

from optimizer.cli.progress import StudyProgress
from optimizer.results import TrialResult
from optimizer.run import Job
from reports.tracking import Tracker


@dataclass(kw_only=True)
class Watcher:
    """An `optimizer.run.Observer`."""

    job: Job
    progress: StudyProgress
    tracker: Tracker

    def phase(self, label: str, text: str) -> None:
        self.progress.phase(label, text)

    def say(self, text: str) -> None:
        self.progress.say(text)

    def trial_done(self, result: TrialResult, so_far: list[TrialResult]) -> None:
        self.tracker.log_trial(result, self.job.directory / result.directory)
        label = result.config.label(self.job.base)
        self.progress.finished(result, label=label, best=self._best(so_far))

    def _best(self, trials: list[TrialResult]) -> str:
        """The best feasible trial so far, in words."""
        good = [trial for trial in trials if trial.feasible and trial.objective is not None]
        if not good:
            return "none meets the limits yet"
        best = min(good, key=lambda trial: trial.objective or 0.0)
        return f"trial {best.number} ({best.config.label(self.job.base)})"
