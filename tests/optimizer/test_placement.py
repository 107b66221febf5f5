"""Client and engine on different cores, where there are any."""

import os

import pytest

from optimizer.placement import Placement, available_cores, plan_placement


@pytest.fixture(autouse=True)
def without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.placement.visible_devices", lambda: None)


def test_the_client_gets_the_last_core_and_the_engine_the_others() -> None:
    placement = plan_placement({0, 1, 2, 3})
    assert placement == Placement(engine_cores=(0, 1, 2), client_cores=(3,))


def test_several_client_processes_get_a_core_each_and_the_engine_keeps_one() -> None:
    assert plan_placement({0, 1, 2, 3}, num_clients=2) == Placement(engine_cores=(0, 1), client_cores=(2, 3))
    assert plan_placement({0, 1, 2}, num_clients=5) == Placement(engine_cores=(0,), client_cores=(1, 2))


def test_one_core_is_not_divided_and_the_reader_is_told() -> None:
    placement = plan_placement([5])
    assert placement.engine_cores is None
    assert "one core" in placement.note


def test_engines_get_the_visible_devices_unless_the_user_names_some(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_placement([0, 1]).devices is None
    monkeypatch.setattr("optimizer.placement.visible_devices", lambda: ("0", "1"))
    assert plan_placement([0, 1]).devices == ("0", "1")
    assert plan_placement([0], devices=("1",)).devices == ("1",)


def test_nothing_is_pinned_without_a_plan() -> None:
    before = os.sched_getaffinity(0)
    with plan_placement([0]).client_pinned():
        assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(len(available_cores()) < 2, reason="needs two cores")
def test_the_pin_holds_inside_and_is_gone_outside() -> None:
    before = os.sched_getaffinity(0), os.sched_getscheduler(0)
    placement = plan_placement()
    with placement.client_pinned():
        assert os.sched_getaffinity(0) == set(placement.client_cores or ())
    assert (os.sched_getaffinity(0), os.sched_getscheduler(0)) == before
