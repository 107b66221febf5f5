"""Which GPUs an engine gets: the user's own choice first, then the first free ones, each to one engine."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import devices
from engine.backend import EngineError, FailureKind
from engine.devices import DevicePool, visible_devices


@pytest.fixture
def machine_of_four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for bus in ("0000:01:00.0", "0000:02:00.0", "0000:41:00.0", "0000:42:00.0"):
        (tmp_path / bus).mkdir()
    monkeypatch.setattr(devices, "NVIDIA_GPUS", tmp_path)


@pytest.mark.usefixtures("machine_of_four")
def test_all_of_the_machine_are_visible_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert visible_devices() == ("0", "1", "2", "3")
    for said, seen in {
        "2,3": ("2", "3"),
        " 3 , 1 ": ("3", "1"),
        "GPU-8932f937": ("GPU-8932f937",),
        "": (),
        "-1": (),
        "0,-1,2": ("0",),
    }.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
        assert visible_devices() == seen, said


def test_a_machine_that_does_not_tell_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "NVIDIA_GPUS", tmp_path / "none")
    assert visible_devices() is None
    pool = DevicePool(None)
    assert pool.refusals(64) == []
    with pool.take(64) as mine:
        assert mine is None


def test_the_first_free_ones_are_given_and_come_back() -> None:
    pool = DevicePool(("2", "3", "5"))
    with pool.take(1) as first, pool.take(2) as second:
        assert (first, second) == (("2",), ("3", "5"))
        assert pool.free == ()
    assert pool.free == ("2", "3", "5")
    with pytest.raises(ValueError, match="served"), pool.take(3):
        raise ValueError("served")
    assert pool.free == ("2", "3", "5")


def test_more_than_there_are_is_refused_and_more_than_are_free_waits() -> None:
    pool = DevicePool((0, 1))
    [refusal] = pool.refusals(4)
    assert refusal.kind is FailureKind.REFUSED
    assert refusal.reason.startswith("the config needs 4 devices, 2 may be used here (0, 1). Lower the parallel split")
    with pool.take(1):
        [refusal] = pool.refusals(2)
        assert refusal.kind is FailureKind.OUT_OF_MEMORY
        assert refusal.reason == "the config needs 2 devices, 1 of 2 are free beside the engines that run"
        with pytest.raises(EngineError, match="1 of 2 are free") as caught, pool.take(2):
            pass
        assert caught.value.kind is FailureKind.OUT_OF_MEMORY
    assert pool.refusals(2) == []
    [refusal] = DevicePool(()).refusals(1)
    assert "needs 1 device, none may be used here." in refusal.reason


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4)), max_size=30), st.integers(0, 8))
def test_no_device_is_ever_given_twice(steps: list[tuple[bool, int]], size: int) -> None:
    pool = DevicePool(range(size))
    open_takes = []
    for opens, amount in steps:
        if opens and not pool.refusals(amount):
            take = pool.take(amount)
            open_takes.append((take, take.__enter__()))
        elif open_takes:
            open_takes.pop(amount % len(open_takes))[0].__exit__(None, None, None)
        held = [device for _, mine in open_takes for device in mine or ()]
        assert len(held) == len(set(held))
        assert sorted([*held, *(pool.free or ())]) == sorted(map(str, range(size)))
