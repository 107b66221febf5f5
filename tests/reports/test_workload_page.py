"""The page of a workload: complete, escaped, self-contained, and honest about what is not recorded."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from reports.workload_html import workload_html, write_workload_html
from reports.workload_meaning import burstiness_meaning, cache_meaning, copying_meaning, headline
from workloads.characterize import characterize
from workloads.description import describe
from workloads.metadata import PrefixHashing, SloClass, Source, WorkloadMetadata
from workloads.profile import Arrivals, CacheSize, PrefixSharing, Quantiles, Repetition, WorkloadProfile
from workloads.request import Request
from workloads.workload import Workload


def profile(requests: list[Request], **changes: object) -> WorkloadProfile:
    fields: dict[str, object] = {"name": "<test>", "source": Source(format="test")}
    return characterize(Workload.from_requests(requests, WorkloadMetadata(**(fields | changes))))  # type: ignore[arg-type]


def full() -> WorkloadProfile:
    """Something of everything."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 1500, 300)).tolist()
    requests = [
        Request(
            request_id=str(i),
            arrival_s=time,
            session_id=f"s{i // 3}",
            turn=i % 3,
            parent_ids=(str(i - 1),) if i % 3 else (),
            think_s=2.0 if i % 3 else None,
            model="<m>",
            adapter=f"lora-{i % 2}",
            tenant=f"t{i % 14}",
            slo_class="chat",
            input_tokens=100 + i,
            output_tokens=10 + i % 50,
            prompt=f"the quick brown fox {i // 3} " * 20,
            response="the quick brown fox jumps over it all",
            temperature=0.7 if i % 2 else 0.0,
            status="ok",
        )
        for i, time in enumerate(times)
    ]
    return profile(requests, slo_classes={"chat": SloClass(ttft_ms=300.0)})


class _Balanced(HTMLParser):
    """Every element that is opened is closed, in order."""

    VOID = frozenset(("meta", "br"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_part_of_a_rich_workload_has_a_picture_or_a_list_and_a_sentence() -> None:
    page = workload_html(full())
    sections = dict(re.findall(r"<h2>([^<]*)</h2>\s*<p class=\"meaning\">([^<]+)</p>", page))
    assert list(sections) == [
        *("Arrivals over time", "Burstiness", "Lengths", "Prompt against answer", "100 sessions", "Shared prefixes"),
        *("Copying from the prompt", "SLO classes", "Adapters", "Sampling parameters", "Models, tenants, outcomes"),
    ]
    assert page.count("<svg") == 2 * 10  # wide and narrow
    assert "ttft 300 ms at p95" in page
    assert "tenants, ten of 14" in page


def test_the_page_is_whole_escaped_and_needs_no_network() -> None:
    page = workload_html(full())
    parser = _Balanced()
    parser.feed(page)
    assert parser.open == []
    assert "<m>" not in page
    assert "<test>" not in page
    assert not re.search(r"(src|href)=|url\(|@import", page)
    assert "the quick brown" not in page  # contents stay out


@pytest.mark.parametrize(
    "requests",
    [
        [],
        [Request(request_id="a")],
        [Request(request_id=str(i), arrival_s=0.0, input_tokens=5, output_tokens=0) for i in range(3)],
        [Request(request_id=str(i), arrival_s=float(i), input_tokens=1, output_tokens=1) for i in range(7)],
    ],
    ids=["empty", "nothing known", "all at once", "all alike"],
)
def test_poor_workloads_have_a_page(requests: list[Request], tmp_path: Path) -> None:
    page = write_workload_html(profile(requests), tmp_path / "p.html")
    _Balanced().feed(page.read_text())
    assert "nan" not in page.read_text()


def test_hashes_alone_make_the_cache_picture() -> None:
    requests = [Request(request_id=str(i), input_tokens=8, prefix_hashes=(0, i % 200)) for i in range(600)]
    page = workload_html(profile(requests, prefix=PrefixHashing(block_size=4)))
    assert "sessions one after another" in page
    assert page.count("Prefix-cache hit ratio by capacity") == 2


def spread(mean: float, p50: float | None = None) -> Quantiles:
    return Quantiles(mean=mean, p50=p50 if p50 is not None else mean, p90=mean, p95=mean, p99=mean, max=mean)


@pytest.mark.parametrize(("mean", "words"), [(2.4, "worth searching"), (1.3, "may pay"), (1.01, "mostly be wrong")])
def test_copying_says_whether_lookup_pays(mean: float, words: str) -> None:
    found = Repetition(
        basis="tokens", num_requests=9, copied={"4": 0.5}, copied_share=None, tokens_per_step=spread(mean)
    )
    assert words in copying_meaning(found)


def test_a_cache_of_nothing_shared_buys_nothing() -> None:
    found = PrefixSharing(ideal_hit_ratio=0.001, block_size=16, basis="x", num_requests=3)
    assert "buys nothing" in cache_meaning(found)


def test_a_cache_is_sized_where_nine_tenths_of_the_hits_are() -> None:
    lru = tuple(CacheSize(capacity=1000 << i, hit_ratio=ratio) for i, ratio in enumerate((0.1, 0.3, 0.46, 0.5)))
    found = PrefixSharing(ideal_hit_ratio=0.5, block_size=16, basis="x", num_requests=3, lru=lru)
    told = cache_meaning(found)
    assert "46.0% with room for 4k tokens" in told
    assert "below 2k half of the hits are lost" in told


def test_burstiness_tells_bursts_from_drift() -> None:
    def arrivals(*values: float) -> Arrivals:
        windows = ("1", "10", "60", "300")
        return Arrivals(duration_s=9e3, rate_rps=1.0, dispersion=dict(zip(windows, values, strict=True)))

    assert "drifts slowly" in burstiness_meaning(arrivals(1.0, 1.5, 3.0, 8.0))
    assert "no autoscaler follows" in burstiness_meaning(arrivals(13.0, 70.0, 160.0, 140.0))
    assert "random arrivals do" in burstiness_meaning(arrivals(1.0, 1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((1.0, 3.0, 8.0), "a second, at a rate that drifts"),
        ((3.0, 5.0, 8.0), "a second, in bursts"),
        ((2.5, 3.0, 3.0), "a second, unevenly"),
        ((1.0, 1.1, 1.2), "a second, at random"),
        ((0.3, 0.2, 0.1), "a second, evenly"),
    ],
)
def test_the_headline_agrees_with_the_burstiness(values: tuple[float, ...], words: str) -> None:
    dispersion = dict(zip(("1", "10", "60"), values, strict=True))
    found = replace(full(), arrivals=Arrivals(duration_s=9e3, rate_rps=1.0, dispersion=dispersion))
    assert words in headline(found)


def test_lengths_of_many_digits_are_written_out() -> None:
    requests = [Request(request_id=str(n), input_tokens=12_345 * (n + 1), output_tokens=2) for n in range(9)]
    told = {row.what: row.value for row in describe(profile(requests))}
    assert told["input tokens"].startswith("mean 61,725  p50 61,725 ")
    assert "e+" not in told["input tokens"]


def test_what_was_repaired_is_said_before_one_relies_on_it() -> None:
    metadata = WorkloadMetadata(name="w", source=Source(format="test"), repairs={"row_impossible": 1234})
    found = characterize(Workload.from_requests([Request(request_id="a", input_tokens=3)], metadata))
    assert any(note.startswith("repaired on import: rows without") and note.endswith(": 1,234") for note in found.notes)
    assert "repaired on import" in workload_html(found)
