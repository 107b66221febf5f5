import json
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from trial_cases import failed, stopped, trial

from engine.config import EngineConfig
from optimizer.errors import OptimizerError
from optimizer.objective import parse_objective
from optimizer.outcome import RUNS, outcome
from optimizer.results import TrialResult, TrialState
from optimizer.slo import evaluate_trial, parse_slos
from optimizer.study import Study, newest_study
from search_spaces.space import SearchSpace

BASE = EngineConfig(model="m")
SPACE = SearchSpace.model_validate(
    {"name": "small", "parameters": {"dtype": ["auto", "float32"], "max_num_seqs": [64, 32, 16]}}
)
SLOS = parse_slos("quality>=0.99")


def study(
    directory: Path,
    *,
    objective: str = "latency",
    slos: str = "quality>=0.99",
    base: EngineConfig = BASE,
    space: SearchSpace = SPACE,
    strategy: str = "random",
    workload_fingerprint: str = "w",
    resume: bool = True,
) -> Study:
    return Study.create_or_resume(
        directory,
        space=space,
        base=base,
        objective=parse_objective(objective),
        slos=parse_slos(slos),
        seed=1,
        strategy=strategy,
        workload_fingerprint=workload_fingerprint,
        resume=resume,
    )


def answered(number: int, config: EngineConfig, p95_s: float = 1.0) -> TrialResult:
    found = trial(number, p95_s=p95_s, config=config)
    return found.model_copy(update={"slos": tuple(evaluate_trial(slo, found) for slo in SLOS)})


def finish(running: Study, num: int) -> list[str]:
    """Fingerprints asked for, in order."""
    asked = []
    for _ in range(num):
        suggestion = running.ask()
        assert suggestion is not None
        asked.append(suggestion.config.fingerprint())
        running.tell(answered(suggestion.number, suggestion.config))
    return asked


def optuna_trials(directory: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="fopt", storage=f"sqlite:///{directory}/study.db").get_trials()


def test_trial_0_is_the_default_and_the_space_is_exhausted_without_repeats(tmp_path: Path) -> None:
    running = study(tmp_path)
    first = running.ask()
    assert first is not None
    assert (first.number, first.config, first.origin) == (0, BASE, "default")
    running.tell(answered(0, first.config))
    rest = finish(running, 5)
    assert running.ask() is None
    assert len({BASE.fingerprint(), *rest}) == SPACE.size()
    assert [t.number for t in running.results] == list(range(6))


def test_a_resumed_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = finish(study(tmp_path / "whole"), 6)
    halves = finish(study(tmp_path / "halves"), 3) + finish(study(tmp_path / "halves"), 3)
    assert halves == whole


def test_the_unfinished_trial_is_handed_out_again_under_its_number(tmp_path: Path) -> None:
    running = study(tmp_path)
    finish(running, 2)
    lost = running.ask()
    assert lost is not None
    again = study(tmp_path).ask()
    assert again == lost


def test_a_result_on_disk_that_nobody_told_is_told_on_resume(tmp_path: Path) -> None:
    running = study(tmp_path)
    suggestion = running.ask()
    assert suggestion is not None
    result = answered(0, suggestion.config)
    (tmp_path / "trials/0000/result.json").write_text(result.model_dump_json())
    resumed = study(tmp_path)
    assert resumed.results == [result]
    assert len(optuna_trials(tmp_path)) == 1
    assert (resumed.ask() or suggestion).number == 1


def test_a_lost_database_is_filled_again(tmp_path: Path) -> None:
    finish(study(tmp_path), 3)
    before = [t.params for t in optuna_trials(tmp_path)]
    (tmp_path / "study.db").unlink()
    study(tmp_path)
    assert [t.params for t in optuna_trials(tmp_path)] == before


def test_two_candidates_can_be_out_at_once(tmp_path: Path) -> None:
    running = study(tmp_path)
    one, two = running.ask(), running.ask()
    assert one is not None
    assert two is not None
    assert one.config != two.config
    running.tell(answered(two.number, two.config))
    running.tell(answered(one.number, one.config))
    assert [t.number for t in running.results] == [0, 1]


def test_telling_twice_is_harmless_and_telling_what_was_not_asked_is_an_error(tmp_path: Path) -> None:
    running = study(tmp_path)
    suggestion = running.ask()
    assert suggestion is not None
    running.tell(answered(0, suggestion.config))
    running.tell(answered(0, suggestion.config))
    assert len(optuna_trials(tmp_path)) == 1
    with pytest.raises(OptimizerError, match="trial 7 was not asked for"):
        running.tell(answered(7, BASE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "cost"}, "it has the objective latency, not cost"),
        ({"slos": "quality>=0.9"}, "it has the SLOs quality>=0.99, not quality>=0.9"),
        ({"base": EngineConfig(model="other")}, "it has another base config"),
        ({"workload_fingerprint": "v"}, "it has another workload"),
        ({"space": SPACE.model_copy(update={"fixed": {"seed": 1}})}, "it has another search space"),
        ({"resume": False}, "already holds a study"),
    ],
)
def test_a_study_of_another_question_is_not_resumed(tmp_path: Path, change: dict[str, object], message: str) -> None:
    study(tmp_path)
    with pytest.raises(OptimizerError, match=message):
        study(tmp_path, **change)  # type: ignore[arg-type]


def test_an_unknown_strategy_gets_the_closest(tmp_path: Path) -> None:
    with pytest.raises(OptimizerError, match="Did you mean 'surrogate'"):
        study(tmp_path, strategy="surogate")


def test_a_foreign_study_file_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps({"schema_version": "study/9"}))
    with pytest.raises(OptimizerError, match="is not a study of this fopt"):
        study(tmp_path)


def test_the_newest_study_of_a_workload_is_found(tmp_path: Path) -> None:
    study(tmp_path / "one", workload_fingerprint="a")
    study(tmp_path / "two", workload_fingerprint="b")
    assert newest_study(tmp_path, workload_fingerprint="a") == tmp_path / "one"
    assert newest_study(tmp_path, workload_fingerprint="c") is None


KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from test_study import answered, study
running = study(Path({directory!r}), strategy="surrogate")
for _ in range(3):
    suggestion = running.ask()
    running.tell(answered(suggestion.number, suggestion.config))
running.ask()
os.kill(os.getpid(), 9)
"""


def test_kill_9_loses_at_most_the_running_trial(tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), directory=str(tmp_path))
    died = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    resumed = study(tmp_path, strategy="surrogate")
    assert [t.number for t in resumed.results] == [0, 1, 2]
    suggestion = resumed.ask()
    assert suggestion is not None
    assert suggestion.number == 3
    assert len(optuna_trials(tmp_path)) == 3


def test_optuna_is_told_losses_and_violations(tmp_path: Path) -> None:
    finish(study(tmp_path), 1)
    (told,) = optuna_trials(tmp_path)
    assert told.values == [0.0, 1.0, 1.0]
    assert told.constraints == {RUNS: 0.0, "quality>=0.99": pytest.approx(-0.0101, abs=1e-3)}
    assert told.user_attrs["origin"] == ""


def test_what_could_not_run_is_told_as_violating_everything_with_the_worst_values() -> None:
    before = [trial(0, p95_s=1.0, usd=3.0), trial(1, p95_s=2.0, usd=1.0)]
    for state in (TrialState.FAILED, TrialState.REFUSED):
        told = outcome(failed(2, state=state), SLOS, before)
        assert told.values == (0.0, 2.0, 3.0)
        assert told.constraints == {RUNS: 1.0, "quality>=0.99": 1.0}
    assert outcome(failed(0), SLOS, []).values == (1.0, 1.0, 1.0)


def test_what_was_stopped_early_is_told_as_losing_at_least_its_bounds() -> None:
    slos = parse_slos("quality>=0.99; e2el:p95<2s")
    before = [trial(0, p95_s=1.0, usd=3.0), trial(1, p95_s=5.0, usd=1.0, q=0.995)]
    told = outcome(stopped(2, bounds={"p95_e2el_ms": 2500.0, "usd_per_million_tokens": 2.0}, q=0.999), slos, before)
    assert told.values == (pytest.approx(0.001), 2.5, 2.0)
    assert told.constraints == {RUNS: 0.0, "quality>=0.99": 0.0, "e2el:p95<2s": pytest.approx(0.25)}
    unknown = outcome(stopped(2, bounds={"p95_ttft_ms": 9.0}), slos, before)
    assert unknown.values == (pytest.approx(0.005), 5.0, 3.0)  # the worst seen where nothing is known


def test_a_void_measurement_teaches_nothing() -> None:
    void = trial(1).model_copy(update={"reason": "the client was late"})
    assert outcome(void, SLOS, [trial(0)]).values is None
