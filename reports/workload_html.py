"""A workload's profile as one self-contained page, in the style of `report.html`: pictures, and what each means.

Does not know how the numbers were found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from reports import workload_meaning as meaning
from reports import workload_pictures as pictures
from reports.numbers import three_digits
from reports.page import HALF, both, environment
from reports.whole_file import write_whole
from workloads.description import amount, describe
from workloads.histograms import Histogram
from workloads.profile import Quantiles, Sessions, WorkloadProfile


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One of the big numbers."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture, or none, under its name."""

    title: str
    picture: Markup


@dataclass(frozen=True, kw_only=True)
class Share:
    """One name of a group, with its requests."""

    name: str
    count: int
    share: float
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """Figures, or groups of names, and what they mean."""

    title: str
    meaning: str
    figures: tuple[Figure, ...] = ()
    groups: tuple[tuple[str, tuple[Share, ...]], ...] = ()


def write_workload_html(profile: WorkloadProfile, path: Path) -> Path:
    """Write the page; the file appears whole or not at all."""
    return write_whole(path, workload_html(profile))


def workload_html(profile: WorkloadProfile) -> str:
    """The page; everything that came from outside is escaped."""
    return (
        environment()
        .get_template("workload.html.j2")
        .render(
            profile=profile,
            headline=meaning.headline(profile),
            facts=_facts(profile),
            sections=[section for section in _sections(profile) if section is not None],
            rows=[row for row in describe(profile) if row.what != "note"],
            notes=profile.notes,
        )
    )


def _facts(profile: WorkloadProfile) -> list[Fact]:
    found = []
    if (arrivals := profile.arrivals) is not None:
        peak = f"at most {arrivals.peak_rps or 0:.0f} in one second"
        found.append(Fact(name="Rate", value=f"{three_digits(arrivals.rate_rps)} /s", detail=peak))
        if arrivals.dispersion:
            window = "60" if "60" in arrivals.dispersion else list(arrivals.dispersion)[-1]
            index = arrivals.dispersion[window]
            detail = f"variance / mean of counts in {window} s; random: 1"
            found.append(Fact(name="Burstiness", value=three_digits(index), detail=detail))
    for name, lengths in (("Prompt tokens", profile.input_tokens), ("Output tokens", profile.output_tokens)):
        if lengths is not None:
            found.append(Fact(name=name, value=amount(lengths.p50), detail=f"median; p99 {amount(lengths.p99)}"))
    if profile.prefix is not None:
        value = f"{profile.prefix.ideal_hit_ratio:.1%}"
        found.append(Fact(name="Prefix reuse", value=value, detail=f"of prompt {profile.prefix.unit}, at best"))
    if profile.repetition is not None:
        value = three_digits(profile.repetition.tokens_per_step.mean)
        found.append(
            Fact(name="Lookup drafts", value=value, detail=f"{profile.repetition.basis} a step; nothing gained: 1")
        )
    return found


def _sections(profile: WorkloadProfile) -> list[Section | None]:
    return [
        _arrivals(profile),
        _burstiness(profile),
        _lengths(profile),
        _joint(profile),
        None if profile.sessions is None else _sessions(profile.sessions, profile),
        _cache(profile),
        _copying(profile),
        _classes(profile),
        _adapters(profile),
        _drawing(profile),
        _origins(profile),
    ]


def _arrivals(profile: WorkloadProfile) -> Section:
    figure = both(lambda width: pictures.arrivals_picture(profile.arrivals, width=width))
    figures = (Figure(title="", picture=figure),) if figure else ()
    return Section(title="Arrivals over time", meaning=meaning.arrivals_meaning(profile), figures=figures)


def _burstiness(profile: WorkloadProfile) -> Section | None:
    arrivals = profile.arrivals
    if arrivals is None or not arrivals.dispersion:
        return None
    drawn = both(lambda width: pictures.burstiness_picture(arrivals.dispersion, width=width), wide=HALF)
    figure = Figure(title="Variance / mean of the requests in windows", picture=drawn)
    return Section(title="Burstiness", meaning=meaning.burstiness_meaning(arrivals), figures=(figure,))


def _lengths(profile: WorkloadProfile) -> Section | None:
    drawn = [
        Figure(title=title, picture=both(_histogram(histogram, name, "tokens", quantiles), wide=HALF))
        for title, name, histogram, quantiles in (
            ("Prompts", "prompt length", profile.lengths.input_tokens, profile.input_tokens),
            ("Answers", "output length", profile.lengths.output_tokens, profile.output_tokens),
        )
    ]
    figures = tuple(figure for figure in drawn if figure.picture)
    return Section(title="Lengths", meaning=meaning.lengths_meaning(profile), figures=figures) if figures else None


def _histogram(
    histogram: Histogram | None, name: str, unit: str, quantiles: Quantiles | None
) -> Callable[[float], str]:
    marked = {} if quantiles is None else {"p50": quantiles.p50, "p99": quantiles.p99}
    return lambda width: pictures.histogram_picture(histogram, width=width, name=name, unit=unit, marked=marked)


def _joint(profile: WorkloadProfile) -> Section | None:
    drawn = both(lambda width: pictures.joint_picture(profile.lengths.joint, width=width), wide=720.0)
    if not drawn:
        return None
    told = meaning.joint_meaning(profile.lengths.correlation)
    title = "Requests by both lengths; darker: more (logarithmic)"
    return Section(title="Prompt against answer", meaning=told, figures=(Figure(title=title, picture=drawn),))


def _sessions(sessions: Sessions, profile: WorkloadProfile) -> Section:
    drawn = [
        Figure(title=title, picture=both(_histogram(histogram, name, unit, quantiles), wide=HALF))
        for title, name, unit, histogram, quantiles in (
            ("Sessions by their turns", "turns", "requests", sessions.turns_histogram, sessions.turns),
            ("Think times", "from answer to next turn", "s", sessions.think_histogram, sessions.think_s),
        )
    ]
    figures = tuple(figure for figure in drawn if figure.picture)
    return Section(
        title=f"{sessions.num_sessions:,} sessions",
        meaning=meaning.sessions_meaning(sessions, profile),
        figures=figures,
    )


def _cache(profile: WorkloadProfile) -> Section | None:
    prefix = profile.prefix
    if prefix is None:
        return None
    drawn = both(lambda width: pictures.cache_picture(prefix, width=width), wide=720.0)
    order = "" if profile.arrivals is not None else "; sessions one after another, as the file has them"
    title = f"Hit ratio of a cache that evicts the least recently used block ({prefix.basis}{order})"
    figures = (Figure(title=title, picture=drawn),) if drawn else ()
    return Section(title="Shared prefixes", meaning=meaning.cache_meaning(prefix), figures=figures)


def _copying(profile: WorkloadProfile) -> Section | None:
    repetition = profile.repetition
    if repetition is None:
        return None
    shares = both(lambda width: pictures.copy_share_picture(repetition, width=width), wide=HALF)
    steps = both(lambda width: pictures.copy_picture(repetition, width=width), wide=HALF)
    figures = (
        Figure(title="Answers' n-grams that stand in the prompt", picture=shares),
        Figure(title=f"Requests by {repetition.basis} a step, 5 drafted after a match of 3", picture=steps),
    )
    return Section(title="Copying from the prompt", meaning=meaning.copying_meaning(repetition), figures=figures)


def _classes(profile: WorkloadProfile) -> Section:
    shares = _shares(profile.slo_classes, profile.slo_limits)
    return Section(
        title="SLO classes", meaning=meaning.classes_meaning(profile), groups=(("", shares),) if shares else ()
    )


def _adapters(profile: WorkloadProfile) -> Section:
    shares = _shares(profile.adapters)
    return Section(
        title="Adapters", meaning=meaning.adapters_meaning(profile), groups=(("", shares),) if shares else ()
    )


def _drawing(profile: WorkloadProfile) -> Section:
    drawing = profile.drawing
    kinds = {"greedy (temperature 0)": drawing.greedy, "drawn": drawing.drawn, "temperature not sent": drawing.unset}
    groups = [
        ("how tokens are drawn", _shares(kinds)),
        ("temperatures sent", _shares(drawing.temperatures, total=profile.num_requests)),
        ("sent with", _shares(drawing.sent, total=profile.num_requests)),
    ]
    return Section(
        title="Sampling parameters",
        meaning=meaning.drawing_meaning(drawing),
        groups=tuple(group for group in groups if group[1]),
    )


def _origins(profile: WorkloadProfile) -> Section | None:
    groups = [
        ("models", _shares(profile.models)),
        ("tenants" if profile.num_tenants <= 10 else f"tenants, ten of {profile.num_tenants:,}", _tenants(profile)),
        ("status", _shares(profile.statuses)),
        ("checks", _shares(profile.checks, total=profile.num_requests)),
    ]
    shown = tuple(group for group in groups if group[1])
    told = meaning.outcomes_meaning(profile)
    return Section(title="Models, tenants, outcomes", meaning=told, groups=shown) if shown else None


def _tenants(profile: WorkloadProfile) -> tuple[Share, ...]:
    return _shares(profile.tenants, total=profile.num_requests)


def _shares(
    counts: Mapping[str, int], details: Mapping[str, str] | None = None, *, total: int | None = None
) -> tuple[Share, ...]:
    whole = max(1, total if total is not None else sum(counts.values()))
    return tuple(
        Share(name=name, count=count, share=count / whole, detail=(details or {}).get(name, ""))
        for name, count in counts.items()
        if count
    )
