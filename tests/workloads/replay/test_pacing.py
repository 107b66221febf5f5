"""When requests become due, and how exactly the timer keeps to it."""

import asyncio
import time

import pytest
from workload_cases import chat, workload

from workloads.errors import WorkloadError
from workloads.replay.pacing import Concurrency, OpenLoop, SessionAware, choose_mode, make_pacing
from workloads.replay.timer import PreciseTimer
from workloads.request import Request


def tree() -> list[Request]:
    """a → b, a → c, (b, c) → d."""
    return [
        chat("a", 2.0, session_id="s"),
        chat("b", 3.0, session_id="s", parent_ids=("a",), think_s=1.0),
        chat("c", 3.0, session_id="s", parent_ids=("a",), think_s=4.0),
        chat("d", 9.0, session_id="s", parent_ids=("b", "c"), think_s=0.5),
    ]


def test_open_loop_keeps_arrivals_from_the_first_on() -> None:
    assert OpenLoop(tree(), speedup=2.0).first() == [(0.0, 0), (0.5, 1), (0.5, 2), (3.5, 3)]


def test_sessions_fan_out_and_in() -> None:
    pacing = SessionAware(tree(), speedup=2.0)
    assert pacing.first() == [(0.0, 0)]
    assert pacing.finished(0, 10.0) == [(10.5, 1), (12.0, 2)]
    assert pacing.finished(2, 30.0) == []
    assert pacing.finished(1, 20.0) == [(30.25, 3)]


def test_concurrency_prefers_the_next_turn_of_the_session_that_ended() -> None:
    requests = [chat("x", None, session_id="s"), chat("y", None), chat("z", None)]
    requests.append(chat("x2", None, session_id="s", parent_ids=("x",)))
    pacing = Concurrency(requests, slots=1)
    assert pacing.first() == [(0.0, 0)]
    assert pacing.finished(0, 1.0) == [(1.0, 3)]
    assert pacing.finished(3, 2.0) == [(2.0, 1)]
    assert pacing.finished(1, 3.0) == [(3.0, 2)]
    assert pacing.finished(2, 4.0) == []


def test_auto_is_session_aware_where_turns_depend_on_replies() -> None:
    assert choose_mode(workload(*tree()), "auto") == "sessions"
    assert choose_mode(workload(chat("a", 0.0)), "auto") == "open_loop"


def test_what_a_mode_needs_is_said() -> None:
    with pytest.raises(WorkloadError, match="how many"):
        make_pacing([], "concurrency", speedup=1.0, concurrency=None)
    rootless = [chat("a", None, session_id="s"), chat("b", None, session_id="s", parent_ids=("a",))]
    with pytest.raises(WorkloadError, match="no recorded arrival"):
        make_pacing(rootless, "sessions", speedup=1.0, concurrency=None).first()


@pytest.mark.parametrize("has_timerfd", [True, False])
def test_the_timer_delivers_in_order_and_never_early(monkeypatch: pytest.MonkeyPatch, has_timerfd: bool) -> None:
    if not has_timerfd:
        monkeypatch.setattr("workloads.replay.timer._timerfd", lambda: None)
    delivered: list[tuple[int, float]] = []

    async def run() -> None:
        timer = PreciseTimer(asyncio.get_running_loop(), lambda item: delivered.append((item, time.monotonic())))
        zero = time.monotonic()
        due = {item: zero + 0.003 * item for item in range(20)}
        timer.add_all([(due[i], i) for i in range(19, 9, -1)])
        timer.add_all([(due[i], i) for i in range(10)])
        while len(delivered) < 20:
            await asyncio.sleep(0.01)
        timer.close()
        assert [item for item, _ in delivered] == list(range(20))
        assert all(when >= due[item] for item, when in delivered)

    asyncio.run(run())
