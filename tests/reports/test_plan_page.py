"""The page of a plan: prices by limit, what the next notch costs, what it rests on."""

from html.parser import HTMLParser

import pytest

from reports.plan_html import plan_html
from reports.plan_page import MIXED, Basis, FleetPoint, Notch, PlanPage, basis_table, notch_table
from reports.plan_picture import plan_picture


def notch(factor: float, **usd: float | None) -> Notch:
    points = tuple(FleetPoint(kind=k, fleet=f"1 x (4 x {k})", usd_per_hour=price) for k, price in usd.items())
    return Notch(factor=factor, limits=f"ttft:p95<{500 * factor:g}ms", points=points)


PAGE = PlanPage(
    workload="<b>log</b>",
    model="llama",
    headline="4 x h100 holds the load for $20 an hour",
    load="Load: 2 requests/s.",
    notches=(
        notch(0.5, h100=None, l40s=None),
        notch(1.0, h100=20.0, l40s=None, mixed=18.0),
        notch(2.0, h100=10.0, l40s=16.0, mixed=10.0),
    ),
    bases=(
        Basis(sku="h100", source="silicon", detail="tables", median_error=None, num_held_out=0),
        Basis(sku="l40s", source="calibrated", detail="100 steps", median_error=0.071, num_held_out=40),
    ),
)


def test_each_notch_says_what_it_costs_against_what_was_asked() -> None:
    rows = notch_table(PAGE).texts()
    assert rows[0] == ["ttft:p95<250ms", "none holds them", "–", "–", "–", "–", "–"]
    assert rows[1] == ["ttft:p95<500ms (asked)", "1 x (4 x mixed)", "$18.0", "same", "$20.0", "–", "$18.0"]
    assert rows[2] == ["ttft:p95<1000ms", "1 x (4 x h100)", "$10.0", "-44%", "$10.0", "$16.0", "$10.0"]


def test_an_error_is_told_only_where_it_was_measured() -> None:
    assert [row[2] for row in basis_table(PAGE).texts()] == ["not known", "7.1% (n=40)"]


@pytest.mark.parametrize("width", [980.0, 350.0])
def test_a_fleet_that_holds_nothing_leaves_no_mark(width: float) -> None:
    drawn = plan_picture(PAGE, width=width)
    assert drawn.count("an hour, predicted") == 5
    assert "<rect" in drawn  # calibrated
    assert "ttft:p95&lt;250ms" not in drawn.split("</title>", 1)[1]


def test_without_other_limits_there_is_no_picture_but_a_page() -> None:
    page = PAGE.__class__(**{**PAGE.__dict__, "notches": PAGE.notches[1:2]})
    assert plan_picture(page, width=980.0) == ""
    assert "What an hour costs, by limit" not in plan_html(page)


def test_the_page_is_predicted_escaped_and_asks_no_network() -> None:
    told = plan_html(PAGE)
    assert "Predicted, not measured" in told
    assert "<b>log</b>" not in told
    assert "&lt;b&gt;log&lt;/b&gt;" in told
    assert "http" not in told.replace("http-equiv", "")
    HTMLParser().feed(told)
    assert PAGE.asked.of(MIXED) is not None
