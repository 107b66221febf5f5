"""`WorkloadProfile`: what is in a workload, in numbers; JSON-able.

Does not know how the numbers are found (`characterize.py`) or drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from workloads.metadata import Capability, Content


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantiles:
    """A distribution in six numbers; quantiles are values that occur (inverted CDF)."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrivals:
    """When requests come.

    `interarrival_cv` is std / mean of the gaps (1 for Poisson). `dispersion` maps a window in seconds to the index of
    dispersion of counts, variance / mean of the requests per window (1 for Poisson at every scale); windows of which
    fewer than five fit are left out.
    """

    duration_s: float  # last − first arrival
    rate_rps: float  # requests / duration
    interarrival_cv: float | None = None
    dispersion: Mapping[str, float] = field(default_factory=dict)
    peak_rps: float | None = None  # most requests in one second


@dataclass(frozen=True, kw_only=True, slots=True)
class Sessions:
    """Conversations; requests without a session_id are not among them."""

    num_sessions: int
    num_requests: int
    turns: Quantiles
    think_s: Quantiles | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixSharing:
    """Tokens (or characters) that a cache of infinite size would have held / all, over the requests looked at."""

    ideal_hit_ratio: float
    block_size: int
    basis: str  # what was hashed
    num_requests: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """How tokens were asked to be drawn, in requests."""

    greedy: int  # temperature 0
    drawn: int
    unset: int  # temperature not sent
    with_stop: int
    with_max_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkloadProfile:
    """Everything `fopt inspect` prints; None and empty mean that the workload does not say."""

    name: str
    num_requests: int
    content: Content | None
    capabilities: tuple[Capability, ...]
    arrivals: Arrivals | None
    input_tokens: Quantiles | None
    output_tokens: Quantiles | None
    longest: int | None  # most input plus output tokens of a request: the context length it needs
    sessions: Sessions | None
    prefix: PrefixSharing | None
    slo_classes: Mapping[str, int]  # requests of each
    tenants: Mapping[str, int]  # the ten largest
    num_tenants: int
    models: Mapping[str, int]
    adapters: Mapping[str, int]
    statuses: Mapping[str, int]
    drawing: Drawing
    checks: Mapping[str, int]  # requests that carry a check of each kind
    num_responses: int
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain objects, for `json.dumps`."""
        return asdict(self)


class Row(NamedTuple):
    """One line of a description."""

    what: str
    value: str


def describe(profile: WorkloadProfile) -> list[Row]:
    """The profile in words, one row a fact; nothing for what the workload does not say."""
    rows = [Row("requests", f"{profile.num_requests:,}"), Row("content", profile.content or "none")]
    rows += _arrival_rows(profile.arrivals)
    for what, lengths in (("input tokens", profile.input_tokens), ("output tokens", profile.output_tokens)):
        rows += [Row(what, _quantiles(lengths))] if lengths else []
    rows += [Row("longest request", f"{profile.longest:,} tokens")] if profile.longest else []
    rows += _session_rows(profile.sessions)
    if profile.prefix is not None:
        told = f"{profile.prefix.ideal_hit_ratio:.1%} (infinite cache, {profile.prefix.basis})"
        rows.append(Row("prefix sharing", told))
    groups = (
        ("SLO classes", profile.slo_classes),
        ("tenants", profile.tenants),
        ("models", profile.models),
        ("adapters", profile.adapters),
        ("status", profile.statuses),
        ("checks", profile.checks),
    )
    rows += [Row(what, _counts(counts)) for what, counts in groups if counts]
    rows.append(Row("drawing", _drawing(profile.drawing)))
    rows += [Row("recorded responses", f"{profile.num_responses:,}")] if profile.num_responses else []
    rows.append(Row("can drive", ", ".join(profile.capabilities) or "nothing but fixed concurrency"))
    return rows + [Row("note", note) for note in profile.notes]


def _arrival_rows(arrivals: Arrivals | None) -> list[Row]:
    if arrivals is None:
        return [Row("arrivals", "not recorded")]
    rows = [
        Row("duration", f"{arrivals.duration_s:,.1f} s"),
        Row("rate", f"{arrivals.rate_rps:.3g} requests/s, peak {arrivals.peak_rps or 0:.0f} in one second"),
    ]
    if arrivals.interarrival_cv is not None:
        rows.append(Row("inter-arrival CV", f"{arrivals.interarrival_cv:.2f} (Poisson: 1)"))
    if arrivals.dispersion:
        told = ", ".join(f"{value:.1f} at {scale} s" for scale, value in arrivals.dispersion.items())
        rows.append(Row("burstiness", f"{told} (variance / mean of counts; Poisson: 1)"))
    return rows


def _session_rows(sessions: Sessions | None) -> list[Row]:
    if sessions is None:
        return []
    rows = [Row("sessions", f"{sessions.num_sessions:,} holding {sessions.num_requests:,} requests")]
    rows.append(Row("turns a session", _quantiles(sessions.turns)))
    return rows + ([Row("think time, s", _quantiles(sessions.think_s))] if sessions.think_s else [])


def _quantiles(q: Quantiles) -> str:
    names = ("mean", "p50", "p90", "p95", "p99", "max")
    return "  ".join(f"{name} {getattr(q, name):,.4g}" for name in names)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _drawing(drawing: Drawing) -> str:
    parts = ((drawing.greedy, "greedy"), (drawing.drawn, "drawn"), (drawing.unset, "temperature not sent"))
    return ", ".join(f"{count:,} {what}" for count, what in parts if count) or "no requests"
