"""`report.html`: the story as one self-contained page: no network, prints, light and dark, sorts by clicking.

Does not know numbers: it draws what `reports.story` tells and the two pictures.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from optimizer.results import StudyResult, known_by
from reports.interval_picture import interval_picture
from reports.page import both, environment
from reports.pareto_picture import axis_words, pareto_picture, shades
from reports.story import tell
from reports.whole_file import write_whole

REPORT_HTML = "report.html"


def write_html(study: StudyResult, directory: Path) -> Path:
    return write_whole(directory / REPORT_HTML, to_html(study, directory))


def to_html(study: StudyResult, directory: Path | None = None) -> str:
    """The page; everything that came from outside is escaped."""
    story = tell(study, directory)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            study=study,
            story=story,
            pareto=both(lambda width: pareto_picture(study, width=width)),
            pareto_known=known_by(study.trials),
            pareto_axes=axis_words(study),
            pareto_shades=shades(study),
            intervals=both(lambda width: interval_picture(story.pairs, width=width)) if story.pairs else Markup(),
        )
    )
