"""Numbers as people read them: three significant digits, an interval wherever one exists.

Does not know what the numbers mean.
"""

from __future__ import annotations

import math

from workloads.estimate import Estimate


def three_digits(value: float) -> str:
    """Three significant digits without exponents: 0.000123, 1.94, 812, 12,300."""
    if math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "unlimited" if value > 0 else "-unlimited"
    if value == 0:
        return "0"
    decimals = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    if abs(rounded) >= 1000:
        return f"{rounded:,.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{decimals}f}"


def share(value: float) -> str:
    """A fraction near one, such as a quality, to four decimals: 0.9934."""
    return f"{value:.4f}" if math.isfinite(value) else three_digits(value)


def times(value: float) -> str:
    """`1.94x`."""
    return f"{three_digits(value)}x"


def has_interval(estimate: Estimate) -> bool:
    """False for a bare number: both ends equal the value, or are not finite."""
    return math.isfinite(estimate.low) and math.isfinite(estimate.high) and estimate.low != estimate.high


def with_interval(estimate: Estimate, *, style: str = "number", unit: str = "") -> str:
    """`812 ms [790, 833]`; the value alone where no interval exists.

    Args:
        style: a key of `STYLES`.
    """
    write = STYLES[style]
    text = f"{write(estimate.value)}{f' {unit}' if unit else ''}"
    return f"{text} [{write(estimate.low)}, {write(estimate.high)}]" if has_interval(estimate) else text


def times_better(estimate: Estimate) -> str:
    """`1.94x [1.71, 2.20]`."""
    if not has_interval(estimate):
        return times(estimate.value)
    return f"{times(estimate.value)} [{three_digits(estimate.low)}, {three_digits(estimate.high)}]"


def verdict(improvement: Estimate) -> str:
    """`1.94x [1.71, 2.20] better`, or that nothing is proved: an interval that holds 1 decides neither way."""
    if has_interval(improvement) and improvement.low <= 1 <= improvement.high:
        return f"no clear difference ({times_better(improvement)})"
    if improvement.value > 1:
        return f"{times_better(improvement)} better"
    worse = Estimate(
        value=1 / improvement.value,
        low=1 / improvement.high,
        high=1 / improvement.low if improvement.low > 0 else math.inf,
        num_samples=improvement.num_samples,
    )
    return f"{times_better(worse)} worse"


def duration(seconds: float) -> str:
    """`43 s`, `12 min 5 s`, `2 h 3 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def memory(num_bytes: int) -> str:
    """`512 MiB`, `1.5 GiB`."""
    gibibytes = num_bytes / 2**30
    return f"{gibibytes:.4g} GiB" if gibibytes >= 1 else f"{num_bytes / 2**20:.4g} MiB"


STYLES = {"number": three_digits, "share": share, "times": times}
