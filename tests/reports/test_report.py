"""The report as Markdown and as one page: what it says in every kind of study, and what it must never hold."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import study_cases

from engine.config import EngineConfig
from optimizer.adapter_use import AdapterUse
from optimizer.results import StudyResult
from reports.headline import headline
from reports.html import to_html
from reports.markdown import to_markdown
from reports.story import tell
from reports.summary import study_json, summarize
from reports.words import FIELDS
from reports.write import write_reports

EXTERNAL = re.compile(r"""(?:src|href|action|poster|data)\s*=|url\(|@import|https?://|//[\w.-]+\.\w+/""")
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Balance(HTMLParser):
    """Fails on a tag that is not closed, or closed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def parsed(html: str) -> Balance:
    parser = Balance()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def test_report_md_is_the_golden_one(study: StudyResult, is_golden: Callable[[str, str], None]) -> None:
    is_golden("report.md", to_markdown(tell(study)))


def test_the_page_is_well_formed_and_reaches_for_nothing(any_study: StudyResult) -> None:
    html = to_html(any_study)
    parser = parsed(html)
    assert not any({"src", "href"} & attributes.keys() for _, attributes in parser.tags)
    assert not EXTERNAL.search(re.sub(r'data-(?:sort|label)="[^"]*"', "", html))
    assert len(html) < 300_000


def test_the_page_can_be_read_without_eyes(study: StudyResult) -> None:
    parser = parsed(to_html(study))
    pictures = [attributes for tag, attributes in parser.tags if tag == "svg"]
    assert pictures
    assert all(p["role"] == "img" and p["aria-label"] for p in pictures)
    assert [tag for tag, _ in parser.tags].count("h1") == 1
    assert ("html", {"lang": "en"}) in parser.tags


def test_requests_for_adapters_that_nobody_served_are_told_in_the_report_and_at_the_end(study: StudyResult) -> None:
    use = AdapterUse(num_requests=1284, num_named=400, num_served=0, missing=("support",))
    told = study.model_copy(update={"adapters": use})
    sentence = "400 of 1,284 recorded requests name a LoRA adapter, but none of them is served with it"
    assert sentence in tell(told).caveats[0]
    assert summarize(told).adapters.startswith(sentence)
    assert sentence in to_markdown(tell(told))
    assert summarize(study).adapters == ""


def test_what_comes_from_outside_is_escaped() -> None:
    study = study_cases.hostile()
    assert "<script>alert" not in to_html(study)
    markdown = to_markdown(tell(study))
    assert "<script>" not in markdown.replace(r"\<script\>", "")
    assert all(
        line.count(" | ") + 1 == 4
        for line in markdown.splitlines()
        if line.startswith("| 11 | ") and "refused" in line and "alert" in line
    )


def test_every_kind_of_study_leaves_its_files_whole(any_study: StudyResult, tmp_path: Path) -> None:
    paths = write_reports(any_study, tmp_path)
    names = {path.name for path in paths}
    assert names == {path.name for path in tmp_path.iterdir()}  # nothing temporary is left
    assert {"report.html", "report.md", "trials.parquet", "pareto.parquet"} <= names
    assert ("best.yaml" in names) == (any_study.recommendation is not None)


@pytest.mark.parametrize(
    ("case", "label", "says"),
    [
        ("finished", "Recommended and verified", "95 of 100 answers are complete within 826 ms instead of 1,600 ms"),
        ("infeasible", "No configuration meets every limit", "misses ttft:p95<100ms (it reaches 231 ms)"),
        ("default wins", "Keep the default", "does not do better beyond the noise"),
        ("single trial", "Keep the default", "nothing else was measured"),
        ("all failed", "No recommendation", "none of the 3 configurations tried gave a measurement"),
        ("bare", "Recommended, not verified", "In the search, 95 of 100 answers"),
        ("not held", "Not confirmed", "the advantage did not hold"),
        ("empty", "No recommendation", "ended before anything was measured"),
    ],
)
def test_the_headline_says_what_was_found(case: str, label: str, says: str) -> None:
    top = headline(study_cases.CASES[case]())
    assert top.label == label
    assert says in top.sentence


def test_the_objective_comes_first_in_the_headline(study: StudyResult) -> None:
    sentence = headline(study.model_copy(update={"objective": "cost"})).sentence
    assert sentence.startswith("With the recommended settings a million tokens cost 29% less")


def test_a_saving_inside_the_noise_is_not_claimed(study: StudyResult) -> None:
    best = study.trials[7]
    assert best.cost
    unsure = best.cost.model_copy(update={"usd_per_million_tokens": study_cases.bounded(0.05, 0.03, 0.08)})
    trials = tuple(best.model_copy(update={"cost": unsure}) if t is best else t for t in study.trials)
    told = study.model_copy(update={"trials": trials})
    assert "the cost does not clearly differ" in headline(told).sentence


def test_dollars_at_a_placeholder_price_are_not_headlines(study: StudyResult) -> None:
    trials = tuple(
        t.model_copy(update={"cost": t.cost.model_copy(update={"price_source": "placeholder: set --price"})})
        if t.cost
        else t
        for t in study.trials
    )
    told = study.model_copy(update={"trials": trials})
    assert "a million tokens cost 29% less, and" in headline(told).sentence
    assert "placeholder" in to_markdown(tell(told)).split("## Before you rely on it")[1]


def test_an_unverified_recommendation_is_told_as_flattered() -> None:
    assert "not checked again" in headline(study_cases.bare()).trust
    interrupted = study_cases.study(verification=None, interrupted=True)
    assert "interrupted" in headline(interrupted).trust


def test_a_missed_limit_on_later_traffic_is_named(study: StudyResult) -> None:
    assert study.verification
    late = study.verification.slos[0].model_copy(update={"value": 0.35, "violation": 0.167})
    checked = study.verification.model_copy(update={"slos": (late,), "holds": False})
    sentence = headline(study.model_copy(update={"verification": checked})).sentence
    assert "miss ttft:p95<300ms (it reaches 350 ms)" in sentence


def test_infeasible_wishes_are_answered_with_what_would_help() -> None:
    text = to_markdown(tell(study_cases.infeasible()))
    assert "What moving a limit would buy" in text
    assert r"ttft:p95\<232ms" in text
    assert "The nearest configuration" in text


def test_predicted_trials_are_labelled() -> None:
    text = to_markdown(tell(study_cases.bare()))
    assert "predicted, probe" in text
    assert "3 measured on a running engine, 1 predicted by a simulator" in text


def test_no_p99_is_told_from_few_requests(study: StudyResult) -> None:
    assert "No p99 is shown" in to_markdown(tell(study))
    few = study_cases.comparison("p99_e2el_ms", 2000, 1000, low=1.5, high=2.5)
    assert study.verification
    checked = study.verification.model_copy(update={"comparisons": (few,)})
    told = to_markdown(tell(study.model_copy(update={"verification": checked})))
    assert "too few requests to settle it" in told


def test_every_config_field_has_plain_words() -> None:
    everything = EngineConfig(model="m", speculative_config=study_cases.DRAFT)
    assert everything.flat().keys() <= FIELDS.keys()


def test_the_terminal_gets_the_story_in_short(any_study: StudyResult) -> None:
    summary = summarize(any_study)
    assert summary.headline.sentence
    assert bool(summary.serve) == (any_study.recommendation is not None)
    assert all(table.rows for table in summary.tables)


def test_json_holds_the_whole_result_and_the_headline(any_study: StudyResult) -> None:
    values = study_json(any_study)
    chosen = values["recommended_config"]
    assert (chosen is None) == (any_study.recommendation is None)
    extra = {"status", "headline", "trust", "recommended_config"}
    assert StudyResult.model_validate({k: v for k, v in values.items() if k not in extra}) == any_study
