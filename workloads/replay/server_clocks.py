"""`ServerClocks`: what the engine's own clocks say about a replay, and how that agrees with ours.

Does not know engines beyond the names of vLLM's Prometheus histograms; where a server has none, nothing is said.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from workloads.records import RequestRecord
from workloads.replay.client import StreamingClient

_TTFT: Final = "time_to_first_token_seconds"
_QUEUE: Final = "request_queue_time_seconds"
_PREFILL: Final = "request_prefill_time_seconds"
_LINE = re.compile(rb"^\w+:(%b)_(sum|count)(?:\{.*\})? (\S+)" % "|".join((_TTFT, _QUEUE, _PREFILL)).encode(), re.M)
_ROUNDING_S: Final = 0.0005  # by which two honest clocks may cross


class _Total(NamedTuple):
    sum_s: float
    num: float


class ServerClocks:
    """Sums and counts of the server's latencies at one moment."""

    def __init__(self, text: bytes) -> None:
        numbers: dict[str, dict[bytes, float]] = defaultdict(lambda: {b"sum": 0.0, b"count": 0.0})
        for name, part, value in _LINE.findall(text):
            numbers[name.decode()][part] += float(value)  # over models and engines
        self._totals = {name: _Total(parts[b"sum"], parts[b"count"]) for name, parts in numbers.items()}

    @classmethod
    async def read(cls, client: StreamingClient) -> Self:
        """What /metrics says now."""
        return cls(await client.get("/metrics") or b"")

    def notes(self, before: ServerClocks, records: Sequence[RequestRecord]) -> list[str]:
        """In words: mean TTFT on both clocks, and whether the server had other traffic meanwhile."""
        server = self._since(before, _TTFT)
        ours = [r for r in records if r.first_token_s is not None]
        if server is None or not ours:
            return []
        if server.num > len(records):
            others = f"the server began {server.num - len(records):g} answers to others during the replay"
            return [f"{others}: its latencies are not those of this traffic alone"]
        mean_s = sum((r.first_token_s or 0.0) - r.intended_start_s for r in ours) / len(ours)
        server_s = server.sum_s / server.num
        parts = [f"{what} {1000 * t.sum_s / t.num:.2f}" for what, t in self._parts(before)]
        inside = f"{1000 * server_s:.2f} ms by the server's" + (f" ({', '.join(parts)})" if parts else "")
        clocks = f"mean TTFT is {1000 * mean_s:.2f} ms by the client's clock, {inside}"
        if len(ours) == server.num and server_s > mean_s + _ROUNDING_S:
            return [f"{clocks}: the server claims more than there was, one of the two is wrong"]
        return [clocks]

    def _parts(self, before: ServerClocks) -> list[tuple[str, _Total]]:
        found = (("queue", self._since(before, _QUEUE)), ("prefill", self._since(before, _PREFILL)))
        return [(what, total) for what, total in found if total is not None]

    def _since(self, before: ServerClocks, name: str) -> _Total | None:
        now, then = self._totals.get(name), before._totals.get(name, _Total(0.0, 0.0))
        if now is None or now.num <= then.num:  # nothing new, or the server was started anew
            return None
        return _Total(now.sum_s - then.sum_s, now.num - then.num)
