"""`WorkloadProfile`: what is in a workload, in numbers; JSON-able.

Does not know how the numbers are found (`characterize.py`), told (`description.py`) or drawn (`reports`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from workloads.histograms import Histogram, JointHistogram, TimeSeries
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


def quantiles(values: npt.ArrayLike) -> Quantiles | None:
    """The distribution of the values, None when there are none."""
    numbers = np.asarray(values, np.float64)
    if not len(numbers):
        return None
    p50, p90, p95, p99 = np.percentile(numbers, [50, 90, 95, 99], method="inverted_cdf").tolist()
    return Quantiles(mean=float(numbers.mean()), p50=p50, p90=p90, p95=p95, p99=p99, max=float(numbers.max()))


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
    stamped_cv: float | None = None  # of the gaps as stamped, where stamps are coarse and were spread
    over_time: TimeSeries | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sessions:
    """Conversations; requests without a session_id are not among them."""

    num_sessions: int
    num_requests: int
    turns: Quantiles
    think_s: Quantiles | None = None
    num_parents: int = 0  # requests that wait for others
    turns_histogram: Histogram | None = None  # sessions by their requests
    think_histogram: Histogram | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Tokens in and out; `correlation` is Pearson's of log(1 + tokens)."""

    input_tokens: Histogram | None = None
    output_tokens: Histogram | None = None
    joint: JointHistogram | None = None  # x: input, y: output
    correlation: float | None = None


class CacheSize(NamedTuple):
    """A capacity in tokens (or characters) and the hit ratio of a cache that large."""

    capacity: int
    hit_ratio: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixSharing:
    """Tokens (or characters) that a cache of infinite size would have held / all, over the requests looked at.

    `lru` has the same for caches that evict the least recently used block; its last one holds everything.
    """

    ideal_hit_ratio: float
    block_size: int
    basis: str  # what was hashed
    num_requests: int
    unit: str = "tokens"  # or characters, of capacities and block_size
    lru: tuple[CacheSize, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Repetition:
    """What of the responses stands in the prompts, in tokens or, without a tokenizer, in words.

    `copied` maps n to the share of the responses' n-grams that their prompts hold; `copied_share` is the distribution
    over requests for n = 4. `tokens_per_step` is what a drafter that looks up the last three tokens and drafts five
    would reach on the recorded responses; `per_request` has its values.
    """

    basis: str
    num_requests: int
    copied: Mapping[str, float]
    copied_share: Quantiles | None
    tokens_per_step: Quantiles
    per_request: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """How tokens were asked to be drawn, in requests."""

    greedy: int  # temperature 0
    drawn: int
    unset: int  # temperature not sent
    with_stop: int
    with_max_tokens: int
    with_top_p: int = 0
    with_top_k: int = 0
    with_seed: int = 0
    with_response_format: int = 0
    with_tools: int = 0
    temperatures: Mapping[str, int] = field(default_factory=dict)  # the five most frequent ones sent

    @property
    def sent(self) -> dict[str, int]:
        """Requests that sent each parameter, by its name in the API."""
        return {
            "max_tokens": self.with_max_tokens,
            "top_p": self.with_top_p,
            "top_k": self.with_top_k,
            "seed": self.with_seed,
            "stop": self.with_stop,
            "response_format": self.with_response_format,
            "tools": self.with_tools,
        }


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
    lengths: Lengths
    sessions: Sessions | None
    prefix: PrefixSharing | None
    slo_classes: Mapping[str, int]  # requests of each
    slo_limits: Mapping[str, str]  # of each class that the metadata defines, in words
    tenants: Mapping[str, int]  # the ten largest
    num_tenants: int
    models: Mapping[str, int]
    adapters: Mapping[str, int]
    statuses: Mapping[str, int]
    drawing: Drawing
    checks: Mapping[str, int]  # requests that carry a check of each kind
    num_responses: int
    repetition: Repetition | None = None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain objects, for `json.dumps`."""
        return asdict(self)
