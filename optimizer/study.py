"""`Study`: which candidates were asked for and what became of them, on disk, so that it can be killed and resumed.

Does not measure. Files are the truth: `study.json` (the question), `trials/NNNN/suggestion.json` (asked) and
`result.json` (answered). Optuna's `study.db` is told from them and can be rebuilt.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engine.config import EngineConfig
from optimizer.atomic_file import write_text
from optimizer.errors import OptimizerError
from optimizer.measure import closest
from optimizer.objective import Objective
from optimizer.results import TrialResult
from optimizer.slo import Slo
from optimizer.study_database import StudyDatabase
from optimizer.study_files import Question, Suggested, read_question, suggested, write_question
from optimizer.suggest import DEFAULT_STRATEGY, SUGGESTERS
from optimizer.suggest.pool import CandidatePool, assignment_key
from optimizer.suggest.suggester import Observation, Problem
from optimizer.trial_folder import TrialFolder
from search_spaces.parameter import Value
from search_spaces.space import SearchSpace


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A candidate to evaluate under this number."""

    number: int
    assignment: dict[str, Value]
    config: EngineConfig
    origin: str


class Study:
    """Ask, evaluate, tell. Trial 0 is the default config; no config is asked for twice."""

    def __init__(self, directory: Path, problem: Problem, strategy: str) -> None:
        """Use `create_or_resume`."""
        self.directory = directory
        self._problem = problem
        self._suggester = SUGGESTERS[strategy](problem)
        self._asked: dict[int, Suggested] = {s.number: s for s in suggested(directory)}
        self._results: dict[int, TrialResult] = {}
        self._handed_out: set[int] = set()
        self._database = StudyDatabase(directory / "study.db", problem)
        for number in sorted(self._asked):
            result = TrialFolder(directory, number).result()
            if result is not None:
                self._learn(result)

    @classmethod
    def create_or_resume(
        cls,
        directory: Path,
        *,
        space: SearchSpace,
        base: EngineConfig,
        objective: Objective,
        slos: tuple[Slo, ...],
        seed: int,
        strategy: str = DEFAULT_STRATEGY,
        workload_fingerprint: str = "",
        resume: bool = True,
    ) -> Study:
        """Begin a study in the directory, or go on with the one that is there.

        Raises:
            OptimizerError: unknown strategy; the study there asked something else; or there is one and `resume` is
                False, or none and nothing to begin with.
        """
        if strategy not in SUGGESTERS:
            raise OptimizerError(f"there is no search strategy {strategy!r}. {closest(strategy, list(SUGGESTERS))}")
        question = Question(
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            objective=objective.text,
            slos=tuple(map(str, slos)),
            space_name=space.name,
            space_fingerprint=space.fingerprint(),
            base_fingerprint=base.fingerprint(),
            workload_fingerprint=workload_fingerprint,
            seed=seed,
            strategy=strategy,
        )
        asked_before = read_question(directory)
        if asked_before is None:
            write_question(directory, question)
        elif not resume:
            raise OptimizerError(
                f"{directory} already holds a study. Go on with it by --resume, or choose another --name"
            )
        else:
            asked_before.check_same(question, directory)
        pool = CandidatePool(space, base, seed=seed)
        return cls(directory, Problem(pool=pool, objective=objective, slos=slos, seed=seed), strategy)

    @property
    def results(self) -> list[TrialResult]:
        """Of every finished trial, by number."""
        return [self._results[number] for number in sorted(self._results)]

    def ask(self) -> Suggestion | None:
        """The trial a killed run left unfinished, else the next candidate; None when every config was tried."""
        for number, left in self._asked.items():
            if number not in self._results and number not in self._handed_out:
                return self._hand_out(left)
        pending = [s.assignment for number, s in self._asked.items() if number not in self._results]
        proposal = self._suggester.suggest(self._history(), pending)
        if proposal is None:
            return None
        assert assignment_key(proposal.assignment) not in {assignment_key(s.assignment) for s in self._asked.values()}
        number = max(self._asked, default=-1) + 1
        suggestion = Suggested(number=number, assignment=dict(proposal.assignment), origin=proposal.origin)
        write_text(suggestion.path(self.directory), suggestion.model_dump_json(indent=2))
        self._asked[number] = suggestion
        return self._hand_out(suggestion)

    def tell(self, result: TrialResult) -> None:
        """What became of a suggestion; written to its `result.json` unless the evaluator did.

        Raises:
            OptimizerError: nobody asked for a trial of this number.
        """
        if result.number not in self._asked:
            raise OptimizerError(f"trial {result.number} was not asked for. Tell a study only what it suggested")
        folder = TrialFolder(self.directory, result.number)
        if folder.result() is None:
            folder.finish(result)
        self._learn(result)

    def _hand_out(self, suggested: Suggested) -> Suggestion:
        self._handed_out.add(suggested.number)
        return Suggestion(
            number=suggested.number,
            assignment=suggested.assignment,
            config=self._problem.pool.config(suggested.assignment),
            origin=suggested.origin,
        )

    def _learn(self, result: TrialResult) -> None:
        before = self.results
        self._results[result.number] = result
        self._database.tell(self._asked[result.number].assignment, result, before)

    def _history(self) -> list[Observation]:
        return [Observation(self._asked[result.number].assignment, result) for result in self.results]


def newest_study(runs_dir: Path, *, workload_fingerprint: str) -> Path | None:
    """The folder of the study of this workload that began last; None when there is none."""
    found = []
    for path in runs_dir.glob("*/study.json"):
        question = read_question(path.parent)
        if question is not None and question.workload_fingerprint == workload_fingerprint:
            found.append((question.created_at, path.parent))
    return max(found)[1] if found else None
