"""`/metrics`: the engine's counters and the requests' latencies as Prometheus text, under vLLM's names.

Does not know what anybody concludes from them.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from engine.bundled.outputs import EngineCounters

_LATEST = 64  # finished requests that tell the pace
_LONGEST_WAIT_S = 60
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

GAUGES = {
    "num_requests_running": "Requests in the running batch.",
    "num_requests_waiting": "Requests waiting to be scheduled.",
    "kv_cache_usage": "Share of KV blocks in use, 0 to 1.",
}
COUNTERS = {
    "prefix_cache_queries": "Prompt tokens looked up in the prefix cache.",
    "prefix_cache_hits": "Prompt tokens found in the prefix cache.",
    "num_preemptions": "Requests put back to waiting for want of KV blocks.",
    "prompt_tokens": "Prompt tokens processed.",
    "generation_tokens": "Tokens generated.",
}
SPECULATION = {
    "num_drafts": "Drafts proposed.",
    "num_draft_tokens": "Draft tokens proposed.",
    "num_accepted_tokens": "Draft tokens accepted.",
}
FIRST_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
END_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480)


class RequestMetrics:
    """What the server itself measures, and the text that joins it with the engine's counters."""

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name
        self._registry = CollectorRegistry()
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "Arrival to first output.", FIRST_TOKEN_BUCKETS
        )
        self._end = self._histogram("e2e_request_latency_seconds", "Arrival to last output.", END_BUCKETS)
        self._finish_times: deque[float] = deque(maxlen=_LATEST)
        self._finished = Counter(
            "vllm:request_success", "Finished requests.", ("model_name", "finished_reason"), registry=self._registry
        )
        for reason in ("stop", "length", "abort"):
            self._finished.labels(model_name, reason)

    def _histogram(self, name: str, text: str, buckets: Iterable[float]) -> Histogram:
        family = Histogram(f"vllm:{name}", text, ("model_name",), registry=self._registry, buckets=tuple(buckets))
        child: Histogram = family.labels(self._model_name)
        return child

    def observe_first_token(self, seconds: float) -> None:
        self._first_token.observe(seconds)

    def observe_end(self, seconds: float) -> None:
        self._end.observe(seconds)

    def seconds_to_finish(self, number: int) -> int:
        """Whole seconds in which so many requests end at the latest pace, 1 to 60; 1 when nothing is known."""
        times = self._finish_times
        if len(times) < 2:
            return 1
        pace_s = (times[-1] - times[0]) / (len(times) - 1)
        return max(1, min(math.ceil(number * pace_s), _LONGEST_WAIT_S))

    def count_finished(self, reason: str) -> None:
        self._finish_times.append(time.monotonic())
        self._finished.labels(self._model_name, reason).inc()

    def text(self, counters: EngineCounters) -> bytes:
        """Everything in Prometheus' text format."""
        engine = CollectorRegistry()
        engine.register(_EngineCollector(self._model_name, counters))
        return generate_latest(engine) + generate_latest(self._registry)


class _EngineCollector:
    def __init__(self, model_name: str, counters: EngineCounters) -> None:
        self._model_name = model_name
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        for name, text in GAUGES.items():
            exposed = "kv_cache_usage_perc" if name == "kv_cache_usage" else name
            yield self._add(GaugeMetricFamily(f"vllm:{exposed}", text, labels=["model_name"]), name)
        for name, text in COUNTERS.items():
            yield self._add(CounterMetricFamily(f"vllm:{name}", text, labels=["model_name"]), name)
        for name, text in SPECULATION.items():
            yield self._add(CounterMetricFamily(f"vllm:spec_decode_{name}", text, labels=["model_name"]), name)
        yield self._accepted_per_position()

    def _add(self, family: GaugeMetricFamily | CounterMetricFamily, name: str) -> Metric:
        family.add_metric([self._model_name], getattr(self._counters, name))
        return family

    def _accepted_per_position(self) -> Metric:
        name, text = "vllm:spec_decode_num_accepted_tokens_per_pos", "Draft tokens accepted at each position."
        family = CounterMetricFamily(name, text, labels=["model_name", "position"])
        for position, count in enumerate(self._counters.accepted_tokens_per_position):
            family.add_metric([self._model_name, str(position)], count)
        return family
