"""The page of `fopt plan`: one self-contained file with the picture of cost against limits, and its tables.

Does not know numbers: it lays out what `reports.plan_page` tells.
"""

from __future__ import annotations

from pathlib import Path

from reports.page import both, environment
from reports.plan_page import PlanPage, basis_table, fleet_table, notch_table
from reports.plan_picture import colour, plan_picture
from reports.whole_file import write_whole


def write_plan_html(page: PlanPage, path: Path) -> Path:
    return write_whole(path, plan_html(page))


def plan_html(page: PlanPage) -> str:
    """The page; everything that came from outside is escaped."""
    template = environment().get_template("plan.html.j2")
    return template.render(
        page=page,
        picture=both(lambda width: plan_picture(page, width=width)),
        keys=[(colour(place, kind), kind) for place, kind in enumerate(page.kinds)],
        tables=[notch_table(page), fleet_table(page), basis_table(page)],
    )
