"""Looks of several clients as one: nothing that began before a look comes after it, and nothing comes twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workloads.records import RequestRecord
from workloads.replay.merged_looks import MergedLooks
from workloads.stopping.stop_rule import InFlight


def record(name: str, start_s: float, end_s: float) -> RequestRecord:
    return RequestRecord(
        request_id=name,
        intended_start_s=start_s,
        sent_s=start_s,
        end_s=end_s,
        input_tokens=1,
        output_tokens=1,
        status="ok",
    )


def test_a_look_waits_for_the_slowest_client() -> None:
    looks = MergedLooks(2)
    looks.report(0, 1.0, [record("a", 0.0, 0.9)], [InFlight("b", 0.6)])
    assert looks.take() is None
    looks.report(1, 0.5, [], [InFlight("c", 0.2)])
    look = looks.take()
    assert look is not None
    assert (look.now_s, [r.request_id for r in look.ended]) == (0.5, ["a"])
    assert [flight.request_id for flight in look.in_flight] == ["c"]  # b began later than client 1 has told of
    assert looks.take() is None


def test_a_client_that_has_ended_holds_nothing_up() -> None:
    looks = MergedLooks(2)
    looks.report(0, float("inf"), [record("a", 0.0, 0.1)], [])
    looks.report(1, 2.0, [], [])
    look = looks.take()
    assert look is not None
    assert look.now_s == 2.0
    looks.report(1, float("inf"), [], [])
    assert looks.take() is None


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0.01, 1), st.floats(0, 5)), min_size=1, max_size=40))
def test_requests_are_met_in_order_of_start_whoever_sends_them(events: list[tuple[int, float, float]]) -> None:
    """Each event: a client's next request starts so much later than its last one, and lasts so long."""
    starts: list[list[tuple[str, float, float]]] = [[], []]
    for number, (client, gap_s, length_s) in enumerate(events):
        begin_s = (starts[client][-1][1] if starts[client] else 0.0) + gap_s
        starts[client].append((str(number), begin_s, begin_s + length_s))
    looks, seen, latest_s, ended = MergedLooks(2), set[str](), 0.0, list[str]()
    told = [set[str](), set[str]()]
    moments = sorted(begin_s for client in starts for _, begin_s, _ in client)
    for turn, now_s in enumerate([*moments, 100.0, 100.1]):
        client = turn % 2
        over = [record(*one) for one in starts[client] if one[2] <= now_s and one[0] not in told[client]]
        told[client] |= {r.request_id for r in over}
        flying = [InFlight(name, begin_s) for name, begin_s, end_s in starts[client] if begin_s <= now_s < end_s]
        looks.report(client, now_s, over, flying)
        look = looks.take()
        if look is None:
            continue
        met = {r.request_id: r.intended_start_s for r in (*look.ended, *look.in_flight)}
        assert all(begin_s > latest_s for name, begin_s in met.items() if name not in seen)
        assert all(begin_s <= look.now_s for begin_s in met.values())
        seen |= met.keys()
        latest_s = look.now_s
        ended += [r.request_id for r in look.ended]
    assert sorted(ended) == sorted(str(number) for number in range(len(events)))
