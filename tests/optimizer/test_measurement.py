"""One replay of a window and what is made of it."""

from collections.abc import Callable

import pytest
from fakes.fake_server import Behaviour
from fakes.serving import Serve
from traffic_cases import chats, lengths_only

from engine.backend import EngineError, EngineStatistics, FailureKind
from optimizer.client import Client
from optimizer.fidelity import TrialWindow, choose_window
from optimizer.measurement import measure, statistics_difference, thresholds
from optimizer.placement import Placement, available_cores
from optimizer.slo import parse_slos
from workloads.replay.num_clients import CORES_PER_CLIENT
from workloads.slo import SloThresholds
from workloads.workload import Workload

ClientOf = Callable[..., Client]


def window(num_requests: int = 30, *, num_warmup: int = 3) -> TrialWindow:
    return choose_window(chats(num_requests + num_warmup, rate_rps=40.0), num_requests / 40, num_warmup=num_warmup)


@pytest.mark.usefixtures("never_late")
def test_every_request_of_the_window_is_replayed_with_its_recorded_length(serve: Serve, client_of: ClientOf) -> None:
    traffic = window()
    measurement = measure(client_of(serve(Behaviour())), traffic)
    lengths = {request.request_id: request.output_tokens for request in traffic.window}
    assert {record.request_id: record.output_tokens for record in measurement.records} == lengths
    assert measurement.flat["completed"] == len(traffic.window)


@pytest.mark.usefixtures("never_late")
def test_objectives_and_slos_get_intervals_around_their_values(serve: Serve, client_of: ClientOf) -> None:
    slos = parse_slos("ttft:p90<1s; tpot:p50<1s")
    measurement = measure(client_of(serve(Behaviour())), window(), slos=slos, wanted=["p99_e2el_ms"])
    for name in ("p95_e2el_ms", "p50_tpot_ms", "mean_itl_ms", "p90_ttft_ms", "p99_e2el_ms", "request_goodput"):
        estimate = measurement.estimates[name]
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.value == pytest.approx(measurement.flat[name], rel=0.01)


@pytest.mark.usefixtures("never_late")
def test_the_prefix_cache_is_empty_and_warm_up_is_not_counted(serve: Serve, client_of: ClientOf) -> None:
    server = serve(Behaviour(num_accepted_per_draft=2))
    measurement = measure(client_of(server), window())
    assert server.num_resets == 1
    sent = [body for body in server.bodies if body.get("min_tokens", 1) > 1]
    assert len(sent) == len(measurement.records) + 3
    assert measurement.flat["acceptance_length"] == 3.0
    assert measurement.flat["prefix_cache_hit_rate"] == pytest.approx(0.4)


def test_a_late_load_generator_is_retried_once_and_then_voids_the_measurement(
    serve: Serve, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workloads.replay.outcome.void_reason", lambda *_: "the load generator was late")
    phases: list[str] = []
    server = serve(Behaviour())
    measurement = measure(client_of(server), window(10), report=phases.append)
    assert measurement.void_reason == "the load generator was late"
    assert server.num_resets == 2
    assert "replaying again: the load generator was late" in phases


@pytest.mark.skipif(not available_cores(), reason="needs a system that pins processes")
def test_a_rate_beyond_one_core_is_sent_from_the_clients_other_cores_too(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def two(_: Workload, *, num_cores: int, **__: object) -> int:
        asked.append(num_cores)
        return 2

    monkeypatch.setattr("optimizer.client.num_clients", two)
    placement = Placement(engine_cores=None, client_cores=available_cores()[-1:] * 2)
    result = Client(server=serve(Behaviour()), placement=placement).send(chats(12, rate_rps=200.0))
    assert asked == [2 * CORES_PER_CLIENT]  # which allow for two clients
    assert "sent by 2 client processes" in result.notes
    assert [record.status for record in result.records] == ["ok"] * 12


@pytest.mark.usefixtures("never_late")
def test_progress_is_told_in_requests(serve: Serve, client_of: ClientOf) -> None:
    phases: list[str] = []
    measure(client_of(serve(Behaviour())), window(10), report=phases.append)
    assert phases[0] == "warming up"
    assert phases[-1].startswith("replaying ")
    assert phases[-1].split()[-1].split("/")[0] == phases[-1].split("/")[1]


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (Behaviour(hangs_after=8), FailureKind.HANG),
        (Behaviour(hangs_after=1), FailureKind.HANG),  # in the warm-up
        (Behaviour(dies_after=8), FailureKind.DIED),
    ],
)
def test_a_failing_engine_is_told_by_kind(
    serve: Serve, client_of: ClientOf, behaviour: Behaviour, kind: FailureKind
) -> None:
    with pytest.raises(EngineError) as caught:
        measure(client_of(serve(behaviour), hang_s=0.6), window(20))
    assert caught.value.kind is kind
    assert caught.value.log_path is not None


@pytest.mark.usefixtures("never_late")
def test_a_trace_of_lengths_is_sent_as_synthetic_tokens(serve: Serve, client_of: ClientOf) -> None:
    traffic = choose_window(lengths_only(20), 0.5, num_warmup=2)
    server = serve(Behaviour())
    measurement = measure(client_of(server), traffic)
    assert [record.input_tokens for record in measurement.records] == [r.input_tokens for r in traffic.window]


def test_a_difference_of_counters_describes_a_run() -> None:
    before = EngineStatistics(num_drafts=10, num_accepted_tokens=5, accepted_tokens_per_position=(3, 2))
    after = EngineStatistics(num_drafts=30, num_accepted_tokens=45, accepted_tokens_per_position=(20, 15, 8))
    run = statistics_difference(after, before)
    assert run.accepted_tokens_per_position == (17, 13, 8)
    # 1 + (45 - 5) / (30 - 10) = 3
    assert run.acceptance_length == 3.0


def test_a_good_request_meets_the_tightest_limit_on_each_latency() -> None:
    slos = parse_slos("ttft:p95<300ms; ttft:p50<100ms; tpot:mean<20ms; quality>=0.99; goodput>1")
    assert thresholds(slos) == SloThresholds(ttft_s=0.1, tpot_s=0.02)
    assert thresholds(parse_slos("quality>=0.99")) is None
