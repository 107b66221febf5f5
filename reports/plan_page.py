"""What the page of `fopt plan` tells: dollars an hour by latency limit for each kind of fleet, and what they rest on.

Does not know planners or simulators, and not how a page looks. Everything in it is predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

from reports.numbers import three_digits
from reports.table import NOTHING, Cell, Column, Table

MIXED = "mixed"


@dataclass(frozen=True, kw_only=True)
class FleetPoint:
    """One kind of fleet under one scaling of the limits."""

    kind: str  # a SKU, or MIXED
    fleet: str  # such as "2 x (8 x h100_sxm)"
    usd_per_hour: float | None  # None: it does not hold the limits
    p95_ttft_ms: float | None = None
    p95_tpot_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Notch:
    """`factor` times the limits that were asked for."""

    factor: float
    limits: str
    points: tuple[FleetPoint, ...]

    @property
    def cheapest(self) -> FleetPoint | None:
        """None where no fleet holds the limits."""
        held = [point for point in self.points if point.usd_per_hour is not None]
        return min(held, key=lambda point: point.usd_per_hour or 0.0) if held else None

    def of(self, kind: str) -> FleetPoint | None:
        return next((point for point in self.points if point.kind == kind), None)


@dataclass(frozen=True, kw_only=True)
class Basis:
    """Where a SKU's step times come from, and how far off they are known to be (a share; None: nobody measured it)."""

    sku: str
    source: str  # silicon, roofline, calibrated, ...
    detail: str
    median_error: float | None
    num_held_out: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PlanPage:
    """A plan as it is told to people. `notches` by factor, one of them 1."""

    workload: str
    model: str
    headline: str
    load: str
    notches: tuple[Notch, ...]
    bases: tuple[Basis, ...]

    @property
    def asked(self) -> Notch:
        return next(notch for notch in self.notches if notch.factor == 1.0)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind of fleet, SKUs in the order of `bases`."""
        return (*(basis.sku for basis in self.bases), MIXED)


def notch_table(page: PlanPage) -> Table:
    """What each scaling of the limits costs, and how much more or less than what was asked."""
    columns = (
        Column(name="With these limits"),
        Column(name="Cheapest fleet"),
        Column(name="$/hour", numeric=True),
        Column(name="Against asked", numeric=True),
        *(Column(name=kind, numeric=True) for kind in page.kinds),
    )
    before = page.asked.cheapest
    rows = []
    for notch in page.notches:
        best = notch.cheapest
        limits = Cell(text=f"{notch.limits or 'none'} (asked)" if notch.factor == 1 else notch.limits,
                      tone="strong" if notch.factor == 1 else "")  # fmt: skip
        fleet = Cell(text=best.fleet) if best else Cell(text="none holds them", tone="bad")
        rows.append((limits, fleet, _usd(best), _change(best, before), *(_usd(notch.of(kind)) for kind in page.kinds)))
    return Table(title="What the next notch costs", columns=columns, rows=tuple(rows),
                 note="– : no fleet of that kind holds the limits. All figures are predicted.")  # fmt: skip


def fleet_table(page: PlanPage) -> Table:
    """The fleets at the limits that were asked for."""
    columns = (
        Column(name="Kind"),
        Column(name="Fleet"),
        Column(name="$/hour", numeric=True),
        Column(name="p95 TTFT ms", numeric=True, means="time to the first token, queueing included"),
        Column(name="p95 TPOT ms", numeric=True, means="time per output token after the first"),
        Column(name="Limits"),
    )
    rows = [
        (Cell(text=p.kind, tone="strong"), Cell(text=p.fleet), _usd(p), _latency(p.p95_ttft_ms),
         _latency(p.p95_tpot_ms),
         Cell(text="missed", tone="bad") if p.usd_per_hour is None else Cell(text="met", tone="good"))
        for p in page.asked.points
    ]  # fmt: skip
    return Table(title="Fleets for the limits that were asked for", columns=columns, rows=tuple(rows))


def basis_table(page: PlanPage) -> Table:
    """What the predictions rest on."""
    columns = (Column(name="Hardware"), Column(name="Step times"), Column(name="Median step error", numeric=True),
               Column(name="From"))  # fmt: skip
    rows = tuple(
        (Cell(text=b.sku, tone="strong"), Cell(text=b.source), _error(b), Cell(text="; ".join((b.detail, *b.notes))))
        for b in page.bases
    )
    note = (
        "The error is of single engine steps that a calibration did not see; it says nothing about silicon tables or "
        "rooflines, and latencies near saturation are farther off than steps."
    )
    return Table(title="What the predictions rest on", columns=columns, rows=rows, note=note)


def _usd(point: FleetPoint | None) -> Cell:
    if point is None or point.usd_per_hour is None:
        return NOTHING
    return Cell(text=f"${three_digits(point.usd_per_hour)}", sort=point.usd_per_hour)


def _change(point: FleetPoint | None, before: FleetPoint | None) -> Cell:
    if point is None or before is None or point.usd_per_hour is None or not before.usd_per_hour:
        return NOTHING
    change = point.usd_per_hour / before.usd_per_hour - 1
    return Cell(text=f"{change:+.0%}" if abs(change) >= 0.005 else "same")


def _latency(milliseconds: float | None) -> Cell:
    return NOTHING if milliseconds is None else Cell(text=three_digits(milliseconds), sort=milliseconds)


def _error(basis: Basis) -> Cell:
    if basis.median_error is None:
        return Cell(text="not known", tone="muted")
    return Cell(text=f"{basis.median_error:.1%} (n={basis.num_held_out:,})", sort=basis.median_error)
