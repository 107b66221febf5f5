"""`study.db`: the study as Optuna knows it, for its dashboards, its plots and its samplers.

Does not decide anything and is not read back: a database that was lost is filled again from the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.storages import RDBStorage

from optimizer.atomic_file import replacing
from optimizer.outcome import outcome
from optimizer.pareto import AXES
from optimizer.results import TrialResult
from optimizer.suggest.suggester import Problem
from optimizer.suggest.tpe import distributions_of
from search_spaces.parameter import Assignment

STUDY_NAME = "fopt"
NUMBER = "number"  # user attribute: our trial number


class StudyDatabase:
    """One finished Optuna trial per result, each written in one transaction."""

    def __init__(self, path: Path, problem: Problem) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if not path.exists():
            _create(path)
        self._study = optuna.load_study(study_name=STUDY_NAME, storage=_storage(path))
        self._problem = problem
        self._distributions = distributions_of(problem)
        self._told = {trial.user_attrs[NUMBER] for trial in self._study.get_trials(deepcopy=False)}

    def tell(self, assignment: Assignment, result: TrialResult, before: Sequence[TrialResult]) -> None:
        """Add the result unless it is there."""
        if result.number in self._told:
            return
        told = outcome(result, self._problem.slos, before)
        complete, fail = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL
        self._study.add_trial(
            optuna.create_trial(
                state=fail if told.values is None else complete,
                values=told.values,
                params=dict(assignment),
                distributions={name: self._distributions[name] for name in assignment},
                constraints=told.constraints,
                user_attrs=_attributes(result),
            )
        )
        self._told.add(result.number)


def _attributes(result: TrialResult) -> dict[str, str | int | float | None]:
    return {
        NUMBER: result.number,
        "origin": result.origin,
        "state": result.state.value,
        "reason": result.reason,
        "objective": result.objective,
        "config": result.config.fingerprint(),
    }


def _create(path: Path) -> None:
    """Under another name first: a half-made database never has the name we look for."""
    with replacing(path) as temporary:
        storage = _storage(temporary)
        names = [str(axis) for axis in AXES]
        study = optuna.create_study(study_name=STUDY_NAME, storage=storage, directions=["minimize"] * len(AXES))
        study.set_user_attr("axes", names)
        storage.engine.dispose()


def _storage(path: Path) -> RDBStorage:
    return RDBStorage(f"sqlite:///{path}")
