"""A workload's profile in words for the terminal, one row a fact.

Does not know how the numbers are found, or what they mean for a config (`reports`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from workloads.profile import (
    Arrivals,
    CacheSize,
    Drawing,
    PrefixSharing,
    Quantiles,
    Repetition,
    Sessions,
    WorkloadProfile,
)


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
    if profile.lengths.correlation is not None:
        told = f"{signed(profile.lengths.correlation)} (of the logarithms of input and output tokens)"
        rows.append(Row("length correlation", told))
    rows += _session_rows(profile.sessions)
    rows += _prefix_rows(profile.prefix)
    rows += _repetition_rows(profile.repetition)
    groups = (
        ("SLO classes", profile.slo_classes),
        ("tenants", profile.tenants),
        ("models", profile.models),
        ("adapters", profile.adapters),
        ("status", profile.statuses),
        ("checks", profile.checks),
    )
    rows += [Row(what, _counts(counts)) for what, counts in groups if counts]
    rows += [Row(f"SLO of {name}", told) for name, told in profile.slo_limits.items()]
    rows += _drawing_rows(profile.drawing)
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
        stamped = f"; {arrivals.stamped_cv:.2f} as stamped" if arrivals.stamped_cv is not None else ""
        rows.append(Row("inter-arrival CV", f"{arrivals.interarrival_cv:.2f} (Poisson: 1{stamped})"))
    if arrivals.dispersion:
        told = ", ".join(f"{value:.1f} at {scale} s" for scale, value in arrivals.dispersion.items())
        rows.append(Row("burstiness", f"{told} (variance / mean of counts; Poisson: 1)"))
    return rows


def _session_rows(sessions: Sessions | None) -> list[Row]:
    if sessions is None:
        return []
    rows = [Row("sessions", f"{sessions.num_sessions:,} holding {sessions.num_requests:,} requests")]
    rows.append(Row("turns a session", _quantiles(sessions.turns)))
    rows.append(Row("wait for others", f"{sessions.num_parents:,} requests"))
    return rows + ([Row("think time, s", _quantiles(sessions.think_s))] if sessions.think_s else [])


def _quantiles(q: Quantiles) -> str:
    names = ("mean", "p50", "p90", "p95", "p99", "max")
    return "  ".join(f"{name} {_four_digits(getattr(q, name))}" for name in names)


def _four_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _prefix_rows(prefix: PrefixSharing | None) -> list[Row]:
    if prefix is None:
        return []
    rows = [Row("prefix sharing", f"{prefix.ideal_hit_ratio:.1%} (infinite cache, {prefix.basis})")]
    told = ", ".join(f"{size.hit_ratio:.1%} at {amount(size.capacity)}" for size in told_sizes(prefix.lru))
    return rows + ([Row("with an LRU cache", f"{told} {prefix.unit}")] if told else [])


def told_sizes(lru: Sequence[CacheSize], most: int = 6) -> list[CacheSize]:
    """The last so many capacities where the hit ratio still grows: larger and smaller ones say no more."""
    if not lru:
        return []
    enough = next(i for i, size in enumerate(lru) if size.hit_ratio >= 0.999 * lru[-1].hit_ratio)
    return list(lru[max(0, enough - most + 1) : enough + 1])


def amount(count: float) -> str:
    """A count in three digits: 832, 65.5k, 1.05M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g}{letter}"
    return f"{count:.3g}"


def signed(value: float) -> str:
    """Two decimals with a sign, zero as +0.00."""
    return f"{round(value, 2) + 0.0:+.2f}"


def _repetition_rows(repetition: Repetition | None) -> list[Row]:
    if repetition is None:
        return []
    shares = ", ".join(f"{share:.0%} of {n}-grams" for n, share in repetition.copied.items())
    looked = f"{repetition.basis} of {repetition.num_requests:,} requests"
    return [
        Row("copied from prompts", f"{shares} ({looked})"),
        Row(f"lookup, {repetition.basis}/step", f"{_quantiles(repetition.tokens_per_step)} (1: nothing gained)"),
    ]


def _drawing_rows(drawing: Drawing) -> list[Row]:
    rows = [Row("drawing", _drawing(drawing))]
    if drawing.temperatures:
        rows.append(Row("temperatures", _counts(drawing.temperatures)))
    told = {name: count for name, count in drawing.sent.items() if count}
    return rows + ([Row("sent with", _counts(told))] if told else [])


def _drawing(drawing: Drawing) -> str:
    parts = ((drawing.greedy, "greedy"), (drawing.drawn, "drawn"), (drawing.unset, "temperature not sent"))
    return ", ".join(f"{count:,} {what}" for count, what in parts if count) or "no requests"
