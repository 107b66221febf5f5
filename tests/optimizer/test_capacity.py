"""How much traffic one replica holds: saturation, and bisection under SLOs."""

from collections.abc import Callable

import numpy as np
import pytest
from fakes.fake_server import Behaviour
from fakes.serving import Serve
from hypothesis import given
from hypothesis import strategies as st
from traffic_cases import chats, sessions

from engine.backend import EngineError
from optimizer.capacity import probe_capacity
from optimizer.client import Client
from optimizer.fidelity import choose_window
from optimizer.measurement import measure
from optimizer.saturation import Span, saturate, steady_span, token_rate
from optimizer.slo import parse_slos
from optimizer.slo_rate import Bracket, bisect, deciding_rule, thinned
from workloads.record_arrays import RecordArrays
from workloads.records import RequestRecord

ClientOf = Callable[..., Client]


def record(number: int, *, sent_s: float, tokens_s: list[float], input_tokens: int = 10) -> RequestRecord:
    return RequestRecord(
        request_id=f"r{number}",
        intended_start_s=sent_s,
        sent_s=sent_s,
        token_times_s=tuple(tokens_s),
        end_s=tokens_s[-1],
        input_tokens=input_tokens,
        output_tokens=len(tokens_s),
        status="ok",
    )


def test_the_rate_counts_inputs_at_the_first_token_and_outputs_as_they_come() -> None:
    records = [record(i, sent_s=float(i), tokens_s=[i + 0.25, i + 0.75]) for i in range(8)]
    # each second: 10 input tokens and 2 output tokens
    estimate = token_rate(records, Span(0.0, 8.0))
    assert estimate is not None
    assert estimate.value == pytest.approx(12.0)
    assert (estimate.low, estimate.high) == (pytest.approx(12.0), pytest.approx(12.0))
    assert estimate.num_samples == 8


def test_tokens_outside_the_span_do_not_count() -> None:
    records = [record(i, sent_s=float(i), tokens_s=[i + 0.25, i + 0.75]) for i in range(8)]
    estimate = token_rate(records, Span(2.0, 4.0))
    assert estimate is not None
    assert estimate.value == pytest.approx(12.0)


def test_hardly_any_token_is_no_rate() -> None:
    assert token_rate([record(0, sent_s=0.0, tokens_s=[1.0])], Span(0.0, 8.0)) is None


def test_an_uneven_rate_has_an_interval_that_stays_positive() -> None:
    records = [record(i, sent_s=float(i), tokens_s=[i + 0.5], input_tokens=1 + 100 * (i % 2)) for i in range(8)]
    estimate = token_rate(records, Span(0.0, 8.0))
    assert estimate is not None
    # batches of 2 and 102 tokens/s: mean 52, s 53.5; exp(2.365 x 53.5 / (52 x √8)) = exp(0.860) = 2.36
    assert estimate.value == pytest.approx(52.0)
    assert (estimate.low, estimate.high) == (pytest.approx(52 / 2.36, rel=0.01), pytest.approx(52 * 2.36, rel=0.01))


def test_a_slow_engine_is_given_more_time(serve: Serve, client_of: ClientOf) -> None:
    server = serve(Behaviour(ttft_s=0.15, tpot_s=0.01))
    assert saturate(client_of(server), chats(40), concurrency=4, probe_s=0.08).value > 0


def test_an_engine_too_slow_for_any_probe_is_a_failure_in_words(serve: Serve, client_of: ClientOf) -> None:
    server = serve(Behaviour(ttft_s=0.5))
    with pytest.raises(EngineError, match="too slow"):
        saturate(client_of(server), chats(4), concurrency=4, probe_s=0.01)


def test_ramp_up_is_left_out_and_so_is_the_drain_when_the_requests_run_out() -> None:
    records = [record(i, sent_s=i / 2, tokens_s=[i / 2 + 1]) for i in range(10)]
    assert steady_span(records, cut=True, end_s=5.0) == Span(1.0, 5.0)
    assert steady_span(records, cut=False, end_s=5.5) == Span(pytest.approx(1.1), 4.5)


def test_a_probe_that_drains_from_the_start_counts_as_a_whole() -> None:
    records = [record(i, sent_s=0.0, tokens_s=[1.0, 2.0]) for i in range(4)]
    assert steady_span(records, cut=False, end_s=2.0) == Span(0.0, 2.0)


def test_a_server_with_two_slots_saturates_at_what_two_slots_give(serve: Serve, client_of: ClientOf) -> None:
    server = serve(Behaviour(ttft_s=0.02, tpot_s=0.01, max_num_seqs=2))
    workload = chats(120)
    estimate = saturate(client_of(server), workload, concurrency=8, probe_s=1.0)
    requests = list(workload)
    tokens = np.mean([(r.input_tokens or 0) + (r.output_tokens or 0) for r in requests])
    seconds = np.mean([0.02 + 0.01 * (r.output_tokens or 0) for r in requests])
    # each of two slots serves one request after the other; a busy machine makes it slower, never faster
    assert 0.3 * 2 * tokens / seconds <= estimate.value <= 1.1 * 2 * tokens / seconds


@given(st.floats(1.05, 40.0), st.floats(1.5, 50.0))
def test_bisection_brackets_the_speed_where_the_slos_break(threshold: float, saturation: float) -> None:
    found = bisect(lambda x: x <= threshold, Bracket(1.0, saturation), seconds_of=lambda _: 0.0, budget_s=1e9)
    assert found.held is not None
    assert found.held <= threshold
    assert found.broken >= min(threshold, saturation)
    assert found.broken / found.held <= 1.1


@given(st.floats(0.13, 0.99))
def test_an_slo_broken_at_the_recorded_rate_is_searched_below_it(threshold: float) -> None:
    found = bisect(lambda x: x <= threshold, Bracket(None, 1.0), seconds_of=lambda _: 0.0, budget_s=1e9)
    assert found.held is not None
    assert found.held <= threshold <= found.broken


def test_a_search_ends_when_the_next_try_would_not_fit() -> None:
    tried: list[float] = []

    def holds(speed: float) -> bool:
        tried.append(speed)
        return True

    assert bisect(holds, Bracket(1.0, 4.0), seconds_of=lambda _: 10.0, budget_s=5.0) == Bracket(1.0, 4.0)
    assert tried == []


def test_thinning_keeps_whole_sessions_spread_over_the_time() -> None:
    half = thinned(sessions(10), 0.5)
    assert sorted({request.session_id for request in half}) == ["s0", "s2", "s4", "s6", "s8"]
    assert len(half) == 15
    assert len(thinned(sessions(10), 0.01)) == 3


@pytest.mark.usefixtures("never_late")
def test_without_latency_slos_capacity_is_saturation(serve: Serve, client_of: ClientOf) -> None:
    window = choose_window(chats(60), 0.5, num_warmup=2)
    client = client_of(serve(Behaviour()))
    measured = measure(client, window)
    capacity = probe_capacity(client, window, measured, max_num_seqs=8, probe_s=0.5, slos=parse_slos("quality>=0.9"))
    assert capacity.basis == "saturation"
    assert capacity.tokens_per_second.low <= capacity.tokens_per_second.value


@pytest.mark.usefixtures("never_late")
def test_with_latency_slos_capacity_is_where_they_break(serve: Serve, client_of: ClientOf) -> None:
    window = choose_window(chats(60), 0.5, num_warmup=2)
    client, slos = client_of(serve(Behaviour())), parse_slos("e2el:p95<20s")
    measured = measure(client, window, slos=slos)
    capacity = probe_capacity(client, window, measured, max_num_seqs=8, probe_s=1.0, slos=slos)
    assert capacity.basis == "slo bisection"
    assert capacity.tokens_per_second.value >= 0.99 * window.tokens_per_second


@pytest.mark.usefixtures("never_late")
def test_slos_that_hold_at_no_rate_leave_the_saturation_and_say_so(serve: Serve, client_of: ClientOf) -> None:
    window = choose_window(chats(20), 0.3, num_warmup=2)
    client, slos = client_of(serve(Behaviour())), parse_slos("ttft:p50<1us")
    measured = measure(client, window, slos=slos)
    capacity = probe_capacity(client, window, measured, max_num_seqs=8, probe_s=0.5, slos=slos)
    assert capacity.basis == "saturation"
    assert "held at no rate" in capacity.notes[0]


@pytest.mark.usefixtures("never_late")
@pytest.mark.parametrize(("slo", "decision"), [("ttft:p50<1us", "violated"), ("ttft:p50<20s; e2el:p50<20s", "met")])
def test_a_replay_that_only_asks_whether_slos_hold_ends_when_that_is_settled(
    serve: Serve, client_of: ClientOf, slo: str, decision: str
) -> None:
    traffic = chats(80, rate_rps=40.0)
    measured = RecordArrays.from_records([record(i, sent_s=i / 40, tokens_s=[i / 40 + 0.01]) for i in range(80)])
    rule = deciding_rule(parse_slos(slo), measured, num_requests=80)
    assert rule is not None
    result = client_of(serve(Behaviour())).send(traffic, stop_rule=rule)
    assert rule.decision == decision
    assert result.num_unsent > 0


def test_no_rule_decides_what_is_no_percentile_of_requests() -> None:
    measured = RecordArrays.from_records([record(0, sent_s=0.0, tokens_s=[1.0])])
    assert deciding_rule(parse_slos("ttft:p50<1s; ttft:mean<1s"), measured, num_requests=9) is None
    assert deciding_rule(parse_slos("itl:p50<1s"), measured, num_requests=9) is None


def test_a_probe_with_a_late_client_is_repeated_once(
    serve: Serve, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays: list[int] = []

    def late_once(*_: object) -> str | None:
        replays.append(1)
        return "the load generator was late" if len(replays) == 1 else None

    monkeypatch.setattr("workloads.replay.outcome.void_reason", late_once)
    assert saturate(client_of(serve(Behaviour())), chats(40), concurrency=4, probe_s=1.0).value > 0
    assert len(replays) == 2
