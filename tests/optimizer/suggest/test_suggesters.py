"""The contract of the family, on every member."""

import time
from collections.abc import Callable

import pytest
from answers import answer

from engine.backend import FailureKind
from engine.config import EngineConfig
from optimizer.candidate import space_around
from optimizer.objective import parse_objective
from optimizer.results import TrialResult, TrialState
from optimizer.slo import evaluate_trial, parse_slos, with_quality_floor
from optimizer.suggest import SUGGESTERS
from optimizer.suggest.pool import CandidatePool, assignment_key
from optimizer.suggest.suggester import Observation, Problem, Suggester
from search_spaces.space import SearchSpace, load_search_space

BASE = EngineConfig(model="m")
Answer = Callable[[int, EngineConfig], TrialResult]


def small_space() -> SearchSpace:
    """2 x 3 x 2 x 2 = 24 configs at most, with a condition."""
    return SearchSpace.model_validate(
        {
            "name": "small",
            "parameters": {
                "dtype": ["auto", "float32"],
                "quantization.weights": ["bf16", "int8"],
                "speculation": {
                    "options": {
                        "none": {"speculative_config": None},
                        "ngram": {"speculative_config.method": "ngram"},
                    }
                },
                "ngram_tokens": {
                    "sets": "speculative_config.num_speculative_tokens",
                    "choices": [2, 4],
                    "when": {"speculation": ["ngram"]},
                },
                "max_num_seqs": [64, 16],
            },
        }
    )


@pytest.fixture(params=sorted(SUGGESTERS))
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def problem(space: SearchSpace | None = None, *, objective: str = "latency", slos: str = "", seed: int = 3) -> Problem:
    pool = CandidatePool(space_around(space or small_space(), BASE), BASE, seed=seed)
    limits = with_quality_floor(parse_slos(slos) if slos else ())
    return Problem(pool=pool, objective=parse_objective(objective), slos=limits, seed=seed)


def run(suggester: Suggester, question: Problem, num: int, measure: Answer = answer) -> list[Observation]:
    history: list[Observation] = []
    while len(history) < num and (proposal := suggester.suggest(history, [])) is not None:
        trial = measure(len(history), question.pool.config(proposal.assignment))
        slos = tuple(evaluate_trial(s, trial) for s in question.slos) if trial.state is TrialState.COMPLETE else ()
        history.append(Observation(proposal.assignment, trial.model_copy(update={"slos": slos})))
    return history


def keys(history: list[Observation]) -> list[object]:
    return [assignment_key(observation.assignment) for observation in history]


def test_the_default_comes_first_and_then_every_config_exactly_once(strategy: str) -> None:
    question = problem()
    history = run(SUGGESTERS[strategy](question), question, 1000)
    assert history[0].assignment == question.pool.space.default_assignment
    assert len(set(keys(history))) == len(history) == len(question.pool) == 24


def test_the_same_seed_gives_the_same_search_even_when_resumed(strategy: str) -> None:
    question = problem()
    whole = run(SUGGESTERS[strategy](question), question, 10)
    fresh = problem()
    for stop in (1, 5, 9):
        proposal = SUGGESTERS[strategy](fresh).suggest(whole[:stop], [])
        assert proposal is not None
        assert assignment_key(proposal.assignment) == keys(whole)[stop]


def test_what_is_pending_is_not_proposed(strategy: str) -> None:
    question = problem()
    suggester = SUGGESTERS[strategy](question)
    history = run(suggester, question, 3)
    pending: list[dict[str, object]] = []
    while (proposal := suggester.suggest(history, pending)) is not None:  # type: ignore[arg-type]
        pending.append(dict(proposal.assignment))
    assert len(pending) == len(question.pool) - 3


def test_failures_and_void_trials_do_not_stop_it(strategy: str) -> None:
    def fails(number: int, config: EngineConfig) -> TrialResult:
        if number % 3 == 2:
            return answer(number, config).model_copy(update={"reason": "the client was late"})
        return TrialResult(number=number, config=config, state=TrialState.FAILED, failure=FailureKind.DIED, reason="x")

    question = problem()
    assert len(run(SUGGESTERS[strategy](question), question, 1000, fails)) == len(question.pool)


def stopped(number: int, config: EngineConfig) -> TrialResult:
    """Every other one is rejected early, at 90% of what it would have measured."""
    whole = answer(number, config)
    if number % 2 == 0:
        return whole
    assert whole.cost is not None
    bounds = {"p95_e2el_ms": 0.9 * whole.metrics["p95_e2el_ms"]}
    bounds["usd_per_million_tokens"] = 0.9 * whole.cost.usd_per_million_tokens.value
    return TrialResult(number=number, config=config, state=TrialState.STOPPED, reason="dominated", bounds=bounds)


def test_stopped_trials_teach_and_do_not_stop_it(strategy: str) -> None:
    question = problem(slos="e2el:p95<2s")
    history = run(SUGGESTERS[strategy](question), question, 12, stopped)
    assert len(set(map(str, keys(history)))) == 12


@pytest.mark.parametrize("objective", ["latency", "cost", "quality", "throughput", "balanced", "0.5*latency + cost"])
def test_every_objective_can_be_pursued(strategy: str, objective: str) -> None:
    question = problem(objective=objective, slos="e2el:p95<700ms; cost<0.9; throughput>1; kl<1")
    assert len(run(SUGGESTERS[strategy](question), question, 12)) == 12


@pytest.mark.slow  # times a suggestion: only meaningful on a quiet machine
def test_a_suggestion_after_200_trials_takes_a_moment(strategy: str) -> None:
    space = load_search_space("bundled").resolve({"draft": "d", "cores": 2}).space
    question = problem(space)
    history = run(SUGGESTERS["random"](question), question, 200)
    suggester = SUGGESTERS[strategy](question)
    suggester.suggest(history, [])  # lists the pool
    start = time.process_time()
    suggester.suggest(history, [])
    assert time.process_time() - start < 1.0  # 0.1 s on an idle machine; see the benchmark


def test_a_space_too_large_to_list_is_searched_all_the_same(strategy: str) -> None:
    space = load_search_space("bundled").resolve({"draft": "d", "cores": 2}).space
    pool = CandidatePool(space_around(space, BASE), BASE, seed=1, max_size=60)
    question = Problem(pool=pool, objective=parse_objective("latency"), slos=(), seed=1)
    assert 60 <= len(pool) <= 100
    history = run(SUGGESTERS[strategy](question), question, 8)
    assert len(set(keys(history))) == 8


def test_the_surrogate_finds_in_12_trials_what_random_search_misses() -> None:
    space = load_search_space("bundled").resolve({"draft": "d", "cores": 2}).space

    def best(name: str, seed: int) -> float:
        question = problem(space, seed=seed)
        history = run(SUGGESTERS[name](question), question, 12)
        return min(o.trial.metrics["p95_e2el_ms"] for o in history if o.trial.feasible)

    assert max(best("surrogate", seed) for seed in range(2)) < min(best("random", seed) for seed in range(2))
