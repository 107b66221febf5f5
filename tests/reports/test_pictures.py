"""The pictures: scales, label places, and what they draw for odd studies."""

import re

import pytest
import study_cases
from hypothesis import given
from hypothesis import strategies as st

from optimizer.results import StudyResult
from reports.comparison import pairs
from reports.interval_picture import interval_picture
from reports.label_placement import Box, Label, place
from reports.pareto_picture import pareto_picture, shades
from reports.svg import Scale, around, element, text
from reports.workload_pictures import histogram_picture
from workloads.profile import Histogram

numbers = st.floats(min_value=-1e9, max_value=1e9)


@given(low=numbers, span=st.floats(min_value=1e-3, max_value=1e9))
def test_ticks_are_few_ascending_and_inside(low: float, span: float) -> None:
    scale = Scale(low, low + span, 0, 100)
    ticks = scale.ticks()
    assert len(ticks) <= 7
    assert ticks == sorted(ticks)
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in ticks)


def test_a_single_value_gets_air_around_it() -> None:
    low, high = around([5.0])
    assert low < 5 < high
    assert around([0.0]) == (-1.0, 1.0)


def test_text_and_attributes_are_escaped() -> None:
    assert text("<b>", 1, 2) == '<text x="1" y="2">&lt;b&gt;</text>'
    assert 'aria-label="&quot;&lt;"' in element("svg", aria_label='"<')


def test_labels_keep_off_each_other_and_inside_the_frame() -> None:
    marks = [(100.0, 100.0), (112.0, 104.0), (396.0, 100.0)]
    labels = [Label("recommended · 7", 100, 100), Label("6", 112, 104), Label("default · 0", 396, 100)]
    places = place(labels, marks, Box(0, 0, 400, 200))
    assert places[2].anchor == "end"
    assert len(set(places)) == 3


def test_default_and_recommended_are_named_and_every_trial_can_be_hovered(study: StudyResult) -> None:
    drawn = pareto_picture(study, width=900)
    assert ">default · 0<" in drawn
    assert ">recommended · 7<" in drawn
    assert drawn.count("<title>trial ") == 8
    assert "misses quality&gt;=0.99" in drawn
    assert [css for css, _ in shades(study)] == ["q-high", "q-low"]


def test_without_costs_quality_is_plotted_and_without_both_nothing() -> None:
    free = study_cases.study()
    unpriced = tuple(trial.model_copy(update={"cost": None}) for trial in free.trials)
    assert ">quality<" in pareto_picture(free.model_copy(update={"trials": unpriced}), width=900)
    assert pareto_picture(study_cases.bare(), width=900) == ""
    assert pareto_picture(study_cases.all_failed(), width=900) == ""


def test_the_front_line_joins_only_what_meets_the_limits(study: StudyResult) -> None:
    drawn = pareto_picture(study, width=900)
    assert drawn.count('class="front"') == 1
    (line,) = [part for part in drawn.split("<path") if 'class="front"' in part]
    assert line.count("V") == 1  # from trial 7 to trial 6


def test_bars_say_their_numbers_aloud(study: StudyResult) -> None:
    drawn = interval_picture(pairs(study), width=900)
    assert "p95 end-to-end latency: default 1,600 ms [1,540, 1,670], recommended 826 ms [793, 859]" in drawn
    assert drawn.count('class="bar recommended"') == 4


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ((60, 800), [("start", "p50"), ("end", "p99")]),
        ((380, 800), [("end", "p50"), ("end", "p99")]),
        ((700, 800), [("end", "p50")]),
        ((60, 300), [("start", "p50"), ("start", "p99")]),
        ((11, 14), [("start", "p99")]),
        ((11, 22), [("start", "p50"), ("start", "p99")]),
    ],
)
def test_names_of_marked_values_do_not_overlap(values: tuple[float, float], names: list[tuple[str, str]]) -> None:
    histogram = Histogram(edges=(10.0, 100.0, 1000.0), counts=(5, 5))
    marked = {"p50": values[0], "p99": values[1]}
    drawn = histogram_picture(histogram, width=280, name="n", unit="u", marked=marked)
    assert re.findall(r'text-anchor="(\w+)">(p50|p99)<', drawn) == names
