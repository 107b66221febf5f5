"""The replayer against a mock OpenAI server."""

import asyncio
import re
import signal
import time
from collections.abc import Sequence
from typing import Any

import pytest
from mock_server import MockServer
from workload_cases import chat, metadata, workload

from workloads.errors import WorkloadError
from workloads.metadata import PrefixHashing
from workloads.metrics import summarize
from workloads.records import RequestRecord
from workloads.replay.loop_lag import LoopLag
from workloads.replay.replayer import Replayer
from workloads.replay.result import ReplayResult, void_reason
from workloads.replay.server_clocks import ServerClocks
from workloads.request import Request
from workloads.stopping.limit import PercentileLimit
from workloads.stopping.stop_rule import InFlight
from workloads.stopping.violated import Violated
from workloads.workload import Workload


def replay(server: MockServer, what: Workload, **options: Any) -> ReplayResult:
    return Replayer(base_url=server.base_url, model="mock", timeout_s=10, **options).replay(what)


def statuses(records: Sequence[RequestRecord]) -> list[str]:
    return [record.status for record in records]


def test_requests_go_out_at_their_recorded_arrivals(server: MockServer) -> None:
    arrivals = [0.0, 0.05, 0.05, 0.2]
    result = replay(server, workload(*(chat(str(i), 5.0 + a) for i, a in enumerate(arrivals))))
    assert [r.intended_start_s for r in result.records] == pytest.approx(arrivals, abs=1e-6)
    assert all(0 <= r.sent_s - r.intended_start_s < 0.5 for r in result.records)
    assert statuses(result.records) == ["ok"] * 4
    assert result.ended_by == "completion"
    assert result.num_unsent == 0


def test_arrivals_in_whole_seconds_do_not_all_start_together(server: MockServer) -> None:
    seconds = workload(*(chat(str(i), 0.0) for i in range(20)), time_resolution_s=1.0)
    result = replay(server, seconds, speedup=10)
    starts = [record.intended_start_s for record in result.records]
    assert len(set(starts)) == 20
    assert max(starts) < 0.1
    assert any("steps of 1 s" in note for note in result.notes)


def test_speedup_divides_arrivals(server: MockServer) -> None:
    result = replay(server, workload(chat("a", 0.0), chat("b", 1.0)), speedup=10)
    assert result.records[1].intended_start_s == pytest.approx(0.1)


def test_pinned_lengths_are_asked_for_and_every_token_is_timed(server: MockServer) -> None:
    server.behaviour.gap_s = 0.01
    result = replay(server, workload(chat("a", 0.0, max_tokens=99, temperature=0.5, stop=("x",))))
    body, record = server.bodies[0], result.records[0]
    assert (body["min_tokens"], body["max_tokens"], body["ignore_eos"]) == (3, 3, True)
    assert (body["temperature"], body["stop"], body["stream"]) == (0.5, ["x"], True)
    assert "top_p" not in body
    assert record.output_tokens == len(record.token_times_s) == 3
    assert record.first_token_s == record.token_times_s[0]
    assert record.token_times_s[2] - record.token_times_s[0] > 0.015
    assert (record.input_tokens, record.finish_reason, record.http_status) == (7, "length", 200)


def test_free_lengths_send_the_recorded_limit_alone(server: MockServer) -> None:
    replay(server, workload(chat("a", 0.0, max_tokens=9)), pin_lengths=False)
    assert server.bodies[0]["max_tokens"] == 9
    assert "min_tokens" not in server.bodies[0]
    assert "ignore_eos" not in server.bodies[0]


def test_tokens_of_one_chunk_share_its_time(server: MockServer) -> None:
    server.behaviour.tokens_per_chunk = 4
    server.behaviour.gap_s = 0.02
    record = replay(server, workload(chat("a", 0.0, output_tokens=6))).records[0]
    assert len(record.token_times_s) == 6
    assert len(set(record.token_times_s)) == 2
    assert record.token_times_s[0] == record.token_times_s[3] < record.token_times_s[4] == record.token_times_s[5]


def test_a_server_that_refuses_token_ids_is_asked_without_and_counted_by_usage(server: MockServer) -> None:
    server.behaviour.refuses = frozenset({"return_token_ids"})
    server.behaviour.sends_token_ids = False
    result = replay(server, workload(chat("a", 0.0, output_tokens=5)))
    assert result.records[0].output_tokens == 5
    assert "return_token_ids" not in server.bodies[0]
    assert any("refuses return_token_ids" in note for note in result.notes)


def test_chunks_of_several_tokens_without_ids_are_spread_and_reported(server: MockServer) -> None:
    server.behaviour.sends_token_ids = False
    server.behaviour.tokens_per_chunk = 3
    result = replay(server, workload(chat("a", 0.0, output_tokens=6)))
    assert result.records[0].output_tokens == 6
    assert any("spread evenly" in note for note in result.notes)


def test_a_server_that_cannot_pin_lengths_is_reported(server: MockServer) -> None:
    server.behaviour.refuses = frozenset({"ignore_eos"})
    result = replay(server, workload(chat("a", 0.0)))
    assert server.bodies[0]["max_tokens"] == 3
    assert any("not pinned" in note for note in result.notes)


def test_prompts_and_token_ids_go_to_completions(server: MockServer) -> None:
    text = chat("a", 0.0, messages=None, prompt="once")
    ids = chat("b", 0.1, messages=None, prompt_token_ids=(5, 6, 7))
    replay(server, workload(text, ids))
    assert [body["prompt"] for body in server.bodies] == ["once", [5, 6, 7]]
    assert server.paths == ["/v1/completions"] * 2


def test_hashes_become_token_ids_with_the_recorded_shared_prefix(server: MockServer) -> None:
    first = Request(request_id="a", arrival_s=0.0, input_tokens=10, output_tokens=2, prefix_hashes=(1, 2, 3))
    second = Request(request_id="b", arrival_s=0.1, input_tokens=11, output_tokens=2, prefix_hashes=(1, 2, 9))
    prefix = PrefixHashing(block_size=4, tail_hashed=True)
    replay(server, workload(first, second, prefix=prefix, vocab_size=1000))
    a, b = (body["prompt"] for body in server.bodies)
    assert (len(a), len(b)) == (10, 11)
    assert a[:8] == b[:8]
    assert a[8:] != b[8:10]
    assert all(100 <= token < 900 for token in a + b)


def test_a_prompt_without_text_needs_a_vocabulary_size(server: MockServer) -> None:
    lengths = Request(request_id="a", arrival_s=0.0, input_tokens=10, output_tokens=2)
    with pytest.raises(WorkloadError, match="vocabulary size"):
        replay(server, workload(lengths))


def test_lengths_beyond_the_servers_context_are_cut_and_counted(server: MockServer) -> None:
    server.behaviour.max_model_len = 32
    long = Request(request_id="a", arrival_s=0.0, input_tokens=100, output_tokens=8)
    result = replay(server, workload(long, vocab_size=1000))
    assert len(server.bodies[0]["prompt"]) == 24
    assert server.bodies[0]["max_tokens"] == 8
    assert "1 prompts cut to the server's max_model_len" in result.notes


def test_a_stalled_server_is_charged_to_every_request_intended_in_the_stall(server: MockServer) -> None:
    server.behaviour.fault = lambda _: "stall" if len(server.bodies) == 5 else None
    result = replay(server, workload(*(chat(str(i), 0.01 * i) for i in range(200))))
    begin, end = (moment - result.zero_monotonic_s for moment in server.stalled)
    caught = [r for r in result.records if begin <= r.intended_start_s < end]
    assert len(caught) >= 9  # one is due every 10 ms, and the stall lasts 100
    for record in caught:
        assert record.first_token_s is not None
        # Nothing answers before the stall ends, so a request intended in it waits at least for the rest of it.
        assert record.first_token_s - record.intended_start_s >= end - record.intended_start_s


def test_later_turns_wait_for_their_parents_and_think(server: MockServer) -> None:
    server.behaviour.first_token_s = 0.05
    first = chat("a", 0.0, session_id="s", turn=0)
    second = chat("b", 0.01, session_id="s", turn=1, parent_ids=("a",), think_s=0.1)
    result = replay(server, workload(first, second))
    a, b = result.records
    assert b.intended_start_s == pytest.approx(a.end_s + 0.1, abs=1e-6)
    assert b.sent_s >= b.intended_start_s
    assert "replayed in mode sessions" in result.notes


def test_fan_in_waits_for_the_slowest_parent(server: MockServer) -> None:
    server.behaviour.gap_s = 0.02
    quick, slow = chat("a", 0.0, session_id="s", output_tokens=1), chat("b", 0.0, session_id="s", output_tokens=5)
    join = chat("c", 0.0, session_id="s", parent_ids=("a", "b"), think_s=0.0)
    records = {r.request_id: r for r in replay(server, workload(quick, slow, join)).records}
    assert records["c"].intended_start_s == pytest.approx(records["b"].end_s, abs=1e-6)


def test_a_recorded_gap_stands_in_for_a_missing_think_time(server: MockServer) -> None:
    first = chat("a", 0.0, session_id="s", e2el_s=0.5)
    second = chat("b", 0.6, session_id="s", parent_ids=("a",))
    a, b = replay(server, workload(first, second)).records
    assert b.intended_start_s == pytest.approx(a.end_s + 0.1, abs=1e-6)


def test_open_loop_ignores_parents(server: MockServer) -> None:
    server.behaviour.first_token_s = 0.1
    first = chat("a", 0.0, session_id="s")
    second = chat("b", 0.02, session_id="s", parent_ids=("a",), think_s=1.0)
    result = replay(server, workload(first, second), mode="open_loop")
    assert result.records[1].intended_start_s == pytest.approx(0.02)


def test_concurrency_keeps_that_many_in_flight_and_sessions_in_order(server: MockServer) -> None:
    server.behaviour.first_token_s = 0.03
    requests = [chat(str(i), None) for i in range(6)]
    requests += [chat("x", None, session_id="s"), chat("y", None, session_id="s", parent_ids=("x",))]
    result = replay(server, workload(*requests), mode="concurrency", concurrency=3)
    assert summarize(result.records).max_concurrent_requests == 3
    records = {r.request_id: r for r in result.records}
    assert records["y"].sent_s >= records["x"].end_s
    assert statuses(result.records) == ["ok"] * 8


def test_a_workload_without_arrivals_cannot_drive_open_loop(server: MockServer) -> None:
    with pytest.raises(WorkloadError, match="cannot drive open_loop"):
        replay(server, workload(chat("a", None)))


@pytest.mark.parametrize(
    ("fault", "words"),
    [("500", "engine exploded"), ("cut_stream", ""), ("error_event", "out of memory")],
)
def test_a_failed_request_is_a_record(server: MockServer, fault: str, words: str) -> None:
    server.behaviour.fault = lambda body: fault if body["max_tokens"] == 5 else None
    result = replay(server, workload(chat("a", 0.0, output_tokens=5), chat("b", 0.05)))
    assert statuses(result.records) == ["error", "ok"]
    error = result.records[0].error
    assert error is not None
    assert words in error


def test_a_slow_request_times_out(server: MockServer) -> None:
    server.behaviour.fault = lambda body: "hang" if body["max_tokens"] == 5 else None
    what = workload(chat("a", 0.0, output_tokens=5), chat("b", 0.0))
    result = Replayer(base_url=server.base_url, model="mock", timeout_s=1.0).replay(what)
    assert {r.request_id: r.status for r in result.records} == {"a": "timeout", "b": "ok"}


def test_an_absent_server_gives_error_records() -> None:
    result = Replayer(base_url="http://127.0.0.1:9", model="mock").replay(workload(chat("a", 0.0)))
    assert statuses(result.records) == ["error"]


def test_a_dropped_kept_connection_is_tried_once_more(server: MockServer) -> None:
    faults = iter([None, "drop", None])
    server.behaviour.fault = lambda _: next(faults)
    result = replay(server, workload(chat("a", 0.0), chat("b", 0.1)))
    assert statuses(result.records) == ["ok", "ok"]
    assert any("sent again" in note for note in result.notes)


def test_connections_are_reused(server: MockServer) -> None:
    replay(server, workload(*(chat(str(i), 0.0) for i in range(10))), mode="concurrency", concurrency=1)
    assert len(server.connections) == 1


def test_the_limit_cuts_what_is_in_flight_and_leaves_the_rest_unsent(server: MockServer) -> None:
    server.behaviour.gap_s = 0.05
    requests = [chat("a", 0.0, output_tokens=1), chat("b", 0.1, output_tokens=100), chat("c", 9.0)]
    result = replay(server, workload(*requests), limit_s=1.0)
    assert statuses(result.records) == ["ok", "cut"]
    assert result.records[1].output_tokens > 0
    assert result.ended_by == "limit"
    assert result.num_unsent == 1
    assert 1.0 <= result.duration_s < 5.0


def test_a_silent_server_ends_the_replay(server: MockServer) -> None:
    server.behaviour.fault = lambda _: "hang"
    result = replay(server, workload(chat("a", 0.0), chat("b", 5.0)), stall_s=0.2)
    assert result.ended_by == "stall"
    assert statuses(result.records) == ["timeout"]


class _Third:
    """Stops once it has seen three records."""

    def __init__(self) -> None:
        self.seen: list[RequestRecord] = []

    def look(self, now_s: float, ended: Sequence[RequestRecord], in_flight: Sequence[InFlight]) -> str | None:  # noqa: ARG002
        self.seen += ended
        return "seen enough" if len(self.seen) >= 3 else None


def test_a_stop_rule_ends_the_replay(server: MockServer) -> None:
    rule = _Third()
    result = replay(server, workload(*(chat(str(i), 0.05 * i) for i in range(20))), stop_rule=rule)
    assert (result.ended_by, result.stop_reason) == ("stop_rule", "seen enough")
    assert 3 <= len([r for r in result.records if r.status == "ok"]) < 20
    assert {r.request_id for r in rule.seen} == {r.request_id for r in result.records if r.status == "ok"}
    assert result.num_unsent == 20 - len(result.records)
    assert f"stopped early, {result.num_unsent} requests were not sent: seen enough" in result.notes


def test_requests_that_do_not_end_are_evidence_and_are_cut(server: MockServer) -> None:
    server.behaviour.fault = lambda _: "hang"
    limits = {"ttft:p50<100ms": PercentileLimit(metric="ttft", percentile=50, limit_s=0.1)}
    rule = Violated(limits, num_requests=6, clustering={})
    result = replay(server, workload(*(chat(str(i), 0.01 * i) for i in range(5)), chat("late", 30.0)), stop_rule=rule)
    assert result.ended_by == "stop_rule"
    assert result.stop_reason is not None
    assert re.match(r"ttft:p50<100ms is violated: [45] of 6 requests have TTFT above 100 ms", result.stop_reason)
    assert statuses(result.records) == ["cut"] * 5
    assert result.num_unsent == 1
    assert result.duration_s < 10


def test_an_exception_in_a_stop_rule_reaches_the_caller(server: MockServer) -> None:
    class Broken:
        def look(self, *_: object) -> str | None:
            raise RuntimeError("rule")

    with pytest.raises(RuntimeError, match="rule"):
        replay(server, workload(chat("a", 0.0), chat("b", 5.0)), stop_rule=Broken())


def test_an_exception_in_a_callback_reaches_the_caller(server: MockServer) -> None:
    def fail(_: RequestRecord) -> None:
        raise RuntimeError("callback")

    with pytest.raises(RuntimeError, match="callback"):
        replay(server, workload(chat("a", 0.0), chat("b", 5.0)), on_record=fail)


def test_ctrl_c_ends_the_replay_at_once(server: MockServer) -> None:
    what = workload(chat("a", 0.0), chat("b", 60.0))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in a shell's background ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            replay(server, what, on_record=lambda _: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)


def test_warm_up_requests_are_sent_first_and_not_recorded(server: MockServer) -> None:
    order: list[int] = []
    warmup = workload(chat("w", 0.0, output_tokens=2), chat("v", 9.0, output_tokens=2))
    result = replay(
        server, workload(chat("a", 0.0)), warmup=warmup, after_warmup=lambda: order.append(len(server.bodies))
    )
    assert order == [2]
    assert [r.request_id for r in result.records] == ["a"]
    assert [body["max_tokens"] for body in server.bodies] == [2, 2, 3]


def test_text_is_kept_only_when_asked_for(server: MockServer) -> None:
    what = workload(chat("a", 0.0))
    assert replay(server, what).responses == {}
    kept = replay(server, what, keep_text=True).responses["a"]
    assert kept.text == "t0 t1 t2 "
    assert kept.token_ids == (0, 1, 2)


def test_the_api_key_is_sent(server: MockServer) -> None:
    replay(server, workload(chat("a", 0.0)), api_key="secret")
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_the_recorded_body_is_honoured_where_it_does_not_contradict_the_replay(server: MockServer) -> None:
    request = chat(
        "a", 0.0, extra_body='{"n":3,"stream":false,"logit_bias":{"5":1}}', response_format='{"type":"text"}'
    )
    result = replay(server, workload(request))
    body = server.bodies[0]
    assert body["logit_bias"] == {"5": 1}
    assert body["stream"] is True
    assert "n" not in body
    assert "response_format" not in body
    assert any("guided decoding is off" in note for note in result.notes)
    replay(server, workload(request), pin_lengths=False)
    assert server.bodies[1]["response_format"] == {"type": "text"}


def test_adapters_are_named_where_the_server_has_them(server: MockServer) -> None:
    server.behaviour.models = ("mock", "lora-1")
    result = replay(server, workload(chat("a", 0.0, adapter="lora-1"), chat("b", 0.1, adapter="lora-2")))
    assert [body["model"] for body in server.bodies] == ["lora-1", "mock"]
    assert any("adapters the server does not have" in note for note in result.notes)


def test_sampling_parameters_are_sent_and_slo_classes_recorded_request_by_request(server: MockServer) -> None:
    drawn = chat("a", 0.0, temperature=0.7, top_p=0.9, top_k=40, seed=3, stop=("x",), slo_class="batch")
    result = replay(server, workload(drawn, chat("b", 0.1, temperature=0.0, slo_class="chat"), chat("c", 0.2)))
    first, second, third = server.bodies
    names = ("temperature", "top_p", "top_k", "seed", "stop")
    assert [first.get(name) for name in names] == [0.7, 0.9, 40, 3, ["x"]]
    assert [second.get(name) for name in names] == [0.0, None, None, None, None]
    assert [third.get(name) for name in names] == [None] * 5
    assert [record.slo_class for record in result.records] == ["batch", "chat", None]


def test_retries_are_counted_in_the_result_and_the_clock_runs_on(server: MockServer) -> None:
    faults = iter(["500", None, None])
    server.behaviour.fault = lambda _: next(faults)
    result = replay(server, workload(chat("a", 0.0), chat("b", 0.0)), max_retries=1)
    assert statuses(result.records) == ["ok", "ok"]
    assert result.num_retries == 1
    assert any("1 retries" in note for note in result.notes)
    waited = max((record.first_token_s or 0.0) - record.intended_start_s for record in result.records)
    assert waited >= 0.5  # the pause before a first retry


def lagging(count: int, *, num_late: int) -> list[RequestRecord]:
    """TTFTs of 10 ms; the first `num_late` requests were sent 2 ms late."""
    return [
        RequestRecord(
            request_id=str(i),
            intended_start_s=float(i),
            sent_s=i + (0.002 if i < num_late else 0.0),
            first_token_s=i + 0.01,
            token_times_s=(i + 0.01,),
            end_s=i + 0.01,
            input_tokens=1,
            output_tokens=1,
            status="ok",
        )
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "num_late", "percentile"), [(500, 5, None), (500, 8, "p99"), (100, 3, None), (100, 7, "p95")]
)
def test_few_requests_are_judged_by_a_lower_percentile(count: int, num_late: int, percentile: str | None) -> None:
    reason = void_reason(lagging(count, num_late=num_late))
    assert (reason is None) if percentile is None else (reason is not None and f"{percentile} schedule lag" in reason)


def test_a_late_client_voids_the_run() -> None:
    # a lag of 2 ms against 5% of a 10 ms median TTFT = 0.5 ms
    late = lagging(10, num_late=10)
    reason = void_reason(late)
    assert reason is not None
    assert "2.00 ms is more than 5% of the median TTFT, 10.00 ms" in reason


def test_a_client_whose_loop_is_late_voids_the_run() -> None:
    # 2 ms against 5% of a 10 ms median TTFT = 0.5 ms; one beat of a thousand does not count
    punctual = lagging(10, num_late=0)
    assert void_reason(punctual, [0.0001] * 999 + [0.002]) is None
    reason = void_reason(punctual, [0.0001] * 900 + [0.002] * 100)
    assert reason is not None
    assert "p99 event loop lag 2.00 ms" in reason


def test_a_loop_that_is_held_up_is_noticed() -> None:
    async def run() -> list[float]:
        with LoopLag() as heart:
            await asyncio.sleep(0.05)
            time.sleep(0.1)
            await asyncio.sleep(0.05)
        return heart.lags_s

    lags = asyncio.run(run())
    assert sum(lag >= 0.02 for lag in lags) >= 4  # beats every 20 ms, and 100 ms without one
    assert all(lag >= 0 for lag in lags)


METRICS = """\
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{model_name="m",le="+Inf"} %d
vllm:time_to_first_token_seconds_count{model_name="m"} %d
vllm:time_to_first_token_seconds_sum{model_name="m"} %s
vllm:request_queue_time_seconds_count{model_name="m"} %d
vllm:request_queue_time_seconds_sum{model_name="m"} %s
"""


@pytest.mark.parametrize(
    ("count", "ttft_s", "words"),
    [
        (12, 0.016, "mean TTFT is 10.00 ms by the client's clock, 8.00 ms by the server's (queue 1.00)"),
        (12, 0.024, "12.00 ms by the server's (queue 1.00): the server claims more than there was"),
        (15, 0.05, "began 3 answers to others"),
        (10, 0.0, None),
        (3, 0.02, None),  # started anew meanwhile
    ],
)
def test_the_servers_clock_is_held_against_ours(count: int, ttft_s: float, words: str | None) -> None:
    before = ServerClocks((METRICS % (10, 10, "3.5", 10, "0.5")).encode())
    after = ServerClocks((METRICS % (count, count, 3.5 + ttft_s, count, "0.502")).encode())
    notes = after.notes(before, lagging(2, num_late=0))
    assert len(notes) == (words is not None)
    assert words is None or words in notes[0]


def test_a_server_without_metrics_is_not_spoken_of(server: MockServer) -> None:
    result = replay(server, workload(chat("a", 0.0)))
    assert not any("clock" in note for note in result.notes)


def test_an_empty_workload_replays_to_nothing(server: MockServer) -> None:
    result = replay(server, Workload.from_requests([], metadata()), mode="concurrency", concurrency=1)
    assert result.records == ()


def test_a_large_body_is_sent(server: MockServer) -> None:
    result = replay(server, workload(chat("a", 0.0, messages=None, prompt="x" * 3_000_000)))
    assert statuses(result.records) == ["ok"]
    assert len(server.bodies[0]["prompt"]) == 3_000_000
