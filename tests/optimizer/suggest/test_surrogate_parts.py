import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.pareto import hypervolume
from optimizer.suggest.acquisition import (
    LogNormal,
    expected_below,
    expected_hypervolume_improvement,
    expected_improvement,
)
from optimizer.suggest.failure_risk import SURPRISE, failure_risk
from optimizer.suggest.gaussian_process import GaussianProcess, Prior, _negative_log_posterior
from optimizer.suggest.lessons import Lessons
from optimizer.suggest.surrogate import _Predictor, above, soften

REFERENCE = np.array([1.0, 1.5, 1.5])
PRIOR = Prior(constant=0.1, parameter=0.3, pairs=0.1, noise=0.05)


def lognormal(mean: float, deviation: float) -> LogNormal:
    return LogNormal(np.array([mean]), np.array([deviation]))


@settings(max_examples=25)
@given(st.lists(st.tuples(*[st.floats(0.1, 1.4)] * 3), max_size=6), st.tuples(*[st.floats(-1.5, 0.5)] * 3))
def test_the_expected_hypervolume_improvement_is_the_mean_of_improvements(
    front: list[tuple[float, float, float]], means: tuple[float, float, float]
) -> None:
    points = np.array(front, float).reshape(-1, 3)
    predictions = (lognormal(means[0], 0.3), lognormal(means[1], 0.2), lognormal(means[2], 0.4))
    (expected,) = expected_hypervolume_improvement(predictions, points, REFERENCE)
    rng = np.random.default_rng(0)
    draws = np.exp(np.column_stack([rng.normal(p.mean[0], p.deviation[0], 1500) for p in predictions]))
    base = hypervolume(points, REFERENCE)
    gains = np.array([hypervolume(np.vstack([points, draw]), REFERENCE) - base for draw in draws])
    assert expected == pytest.approx(gains.mean(), abs=5 * gains.std() / np.sqrt(len(gains)) + 1e-4)


def test_a_certain_prediction_gains_exactly_its_own_volume() -> None:
    sure = tuple(lognormal(np.log(value), 1e-9) for value in (0.5, 1.0, 0.5))
    assert expected_hypervolume_improvement(sure, np.empty((0, 3)), REFERENCE)[0] == pytest.approx(0.5 * 0.5 * 1.0)  # type: ignore[arg-type]
    dominating = np.array([[0.4, 0.9, 0.4]])
    assert expected_hypervolume_improvement(sure, dominating, REFERENCE)[0] == pytest.approx(0, abs=1e-9)  # type: ignore[arg-type]


def test_the_expected_room_below_an_edge_is_the_mean_of_rooms() -> None:
    draws = np.exp(np.random.default_rng(1).normal(0.1, 0.5, 200_000))
    room = expected_below(lognormal(0.1, 0.5), np.array([0.5, 1.5]))[0]
    assert room == pytest.approx([np.maximum(edge - draws, 0).mean() for edge in (0.5, 1.5)], rel=0.02)


def test_the_expected_improvement_is_the_mean_of_improvements() -> None:
    draws = np.random.default_rng(2).normal(-0.2, 0.3, 200_000)
    expected = np.maximum(np.log(0.7) - draws, 0).mean()
    assert expected_improvement(lognormal(-0.2, 0.3), 0.7)[0] == pytest.approx(expected, rel=0.02)


def similarities_of(codes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """A constant, three two-valued parameters and their pairs."""
    per_parameter = (codes[:, None, :] == others[None, :, :]).astype(float).transpose(2, 0, 1)
    total = per_parameter.sum(axis=0)
    pairs = (total**2 - (per_parameter**2).sum(axis=0)) / 6
    return np.concatenate([np.ones((1, *total.shape)), per_parameter, pairs[None]])


CODES = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T


def test_effects_seen_alone_add_up_in_the_prediction_of_their_combination() -> None:
    seen = CODES[[0, 1, 2, 4]]  # the default and one change each
    y = -np.array([0.0, 0.4, 0.3, 0.2])
    process = GaussianProcess.fit(similarities_of(seen, seen), y, PRIOR)
    mean, deviation = process.predict(similarities_of(CODES, seen), np.ones((5, 8)))
    assert mean[7] == pytest.approx(-0.9, abs=0.25)
    assert mean[7] < mean[[0, 1, 2, 4]].min() - 0.1
    assert mean[[0, 1, 2, 4]] == pytest.approx(y, abs=0.06)
    assert deviation[7] > deviation[0]


def test_the_gradient_of_the_fit_is_its_derivative() -> None:
    rng = np.random.default_rng(3)
    matrices = np.concatenate([similarities_of(CODES, CODES), np.eye(8)[None]])
    y, centre, spread = rng.normal(0, 0.3, 8), PRIOR.logs(3), PRIOR.spreads(3)
    at = centre + rng.normal(0, 0.3, len(centre))
    _, gradient = _negative_log_posterior(at, matrices, y, centre, spread)
    for i, step in enumerate(np.eye(len(at)) * 1e-5):
        above, _ = _negative_log_posterior(at + step, matrices, y, centre, spread)
        below, _ = _negative_log_posterior(at - step, matrices, y, centre, spread)
        assert gradient[i] == pytest.approx((above - below) / 2e-5, rel=1e-3, abs=1e-5)


def test_a_value_that_always_failed_is_suspect_and_its_company_is_cleared_by_successes() -> None:
    tried = np.array([[1, 1], [2, 1], [2, 2]])
    failed = np.array([False, True, True])
    risk = failure_risk(np.array([[1, 1], [1, 2], [2, 3]]), tried, failed)
    assert risk[0] < 0.5  # ran
    assert risk[2] > 0.6  # shares the value 2 that failed twice
    assert failure_risk(tried, tried, np.zeros(3, bool)).tolist() == [SURPRISE] * 3


def test_better_than_the_default_is_left_alone_and_worse_is_pressed_together() -> None:
    assert soften(np.array([-0.7, 0.0])) == pytest.approx([-0.7, 0.0])
    assert soften(np.log(np.array([2.0, 1000.0]))) == pytest.approx([0.53, 2.07], abs=0.01)


def test_what_is_above_a_bound_is_expected_where_draws_above_it_are() -> None:
    draws = np.random.default_rng(4).normal(0.3, 0.2, 200_000)
    for bound in (-1.0, 0.3, 0.7):
        expected = above(np.array([bound]), np.array([0.3]), np.array([0.2]))[0]
        assert expected == pytest.approx(draws[draws > bound].mean(), abs=0.01)
    assert above(np.array([50.0]), np.array([0.3]), np.array([0.2]))[0] == pytest.approx(50.0, abs=0.01)


def predicted(second: float, *, stopped: bool) -> float:
    """log(latency) of a config like one that was measured at, or stopped past, `second`; the default measured 0."""
    codes = np.array([[0], [1]])
    tables = [np.array([[1.0, 0.0], [0.0, 1.0]])]
    nothing = np.zeros(2)
    lessons = Lessons(
        at=np.array([0, 1]),
        losses=np.zeros((2, 3)),
        objective=nothing,
        limits=np.zeros((2, 0)),
        feasible=np.array([True, not stopped]),
        at_least=np.array([False, stopped]),
    )
    predictor = _Predictor(lessons, tables, codes, np.array([1]))
    return float(predictor.predict(np.array([0.0, second]), nothing).mean[0])


def test_a_bound_is_not_taken_for_a_measurement_but_moves_what_was_believed() -> None:
    assert predicted(-0.5, stopped=False) < -0.05  # measured: much faster
    assert predicted(-0.5, stopped=True) == pytest.approx(0.0, abs=0.02)  # at least so slow: nothing new
    assert predicted(0.5, stopped=True) > 0.02  # at least so slow: slower than believed


def test_an_unknown_number_of_a_stopped_trial_is_left_out() -> None:
    assert predicted(float("nan"), stopped=True) == pytest.approx(0.0, abs=1e-6)
