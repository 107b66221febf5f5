import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trial_cases import failed, trial

from optimizer.pareto import dominated_beyond_doubt, dominates, hypervolume, losses, non_dominated, pareto_front
from optimizer.results import TrialResult

GRID = st.integers(1, 5)  # few values, so that ties are common
TRIALS = st.lists(st.tuples(GRID, GRID, GRID), max_size=12).map(
    lambda rows: [trial(n, p95_s=s, usd=u, q=1 - 0.01 * q) for n, (s, u, q) in enumerate(rows)]
)
POINTS = st.lists(st.tuples(GRID, GRID, GRID), max_size=8).map(lambda rows: np.array(rows, float).reshape(-1, 3))
REFERENCE = np.array([5.0, 5.0, 5.0])


def losses_of(trials: list[TrialResult]) -> dict[int, tuple[float, ...]]:
    return {t.number: point for t in trials if (point := losses(t)) is not None}


@given(TRIALS)
def test_members_do_not_dominate_each_other_and_dominate_every_other_trial(trials: list[TrialResult]) -> None:
    front, points = pareto_front(trials), losses_of(trials)
    assert not any(dominates(points[a], points[b]) for a, b in itertools.permutations(front, 2))
    for number in points.keys() - set(front):
        assert any(dominates(points[member], points[number]) for member in front)


@given(TRIALS, st.randoms())
def test_the_order_of_trials_does_not_matter(trials: list[TrialResult], random: object) -> None:
    shuffled = list(trials)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert pareto_front(shuffled) == pareto_front(trials)


def test_ties_are_all_kept_and_what_was_not_measured_is_left_out() -> None:
    void = trial(3, p95_s=0.1).model_copy(update={"reason": "the client was late"})
    assert pareto_front([trial(0), trial(1), failed(2), void, trial(4, p95_s=2.0)]) == (0, 1)
    assert pareto_front([failed(0)]) == ()


def covered_cells(points: np.ndarray, reference: np.ndarray) -> int:
    """Volume by counting unit cells."""
    cells = itertools.product(*(range(int(r)) for r in reference))
    return sum(bool((points <= np.array(cell)).all(axis=1).any()) for cell in cells)


@given(POINTS)
def test_the_hypervolume_is_the_volume_of_the_dominated_cells(points: np.ndarray) -> None:
    assert hypervolume(points, REFERENCE) == pytest.approx(covered_cells(points, REFERENCE))


@given(POINTS)
def test_dominated_points_add_no_volume(points: np.ndarray) -> None:
    front = points[non_dominated(points)] if len(points) else points
    assert hypervolume(front, REFERENCE) == pytest.approx(hypervolume(points, REFERENCE))


def test_domination_beyond_doubt_needs_intervals_apart_or_shared() -> None:
    slow, fast = trial(0, p95_s=2.0, usd=2.0), trial(1, p95_s=1.0, usd=1.0)
    assert dominated_beyond_doubt(slow, fast)
    assert not dominated_beyond_doubt(fast, slow)
    assert not dominated_beyond_doubt(slow, trial(1, p95_s=1.0, usd=1.97))  # costs overlap
    assert not dominated_beyond_doubt(slow, trial(1, p95_s=1.0, usd=1.0, q=0.9))
    assert not dominated_beyond_doubt(slow, failed(1))
