"""`report.html`: the story as one self-contained page: no network, prints, light and dark, sorts by clicking.

Does not know numbers: it draws what `reports.story` tells and the two pictures.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from optimizer.results import StudyResult, known_by
from reports.interval_picture import interval_picture
from reports.pareto_picture import axis_words, pareto_picture, shades
from reports.story import tell
from reports.whole_file import write_whole

REPORT_HTML = "report.html"
_WIDE, _NARROW = 980.0, 350.0  # the page shows the one that fits, so that letters keep their size
_INTERVAL = re.compile(r"^(.*\S) (\[[^\]]+\])$")


def write_html(study: StudyResult, directory: Path) -> Path:
    return write_whole(directory / REPORT_HTML, to_html(study, directory))


def to_html(study: StudyResult, directory: Path | None = None) -> str:
    """The page; everything that came from outside is escaped."""
    story = tell(study, directory)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            study=study,
            story=story,
            pareto=_both(lambda width: pareto_picture(study, width=width)),
            pareto_known=known_by(study.trials),
            pareto_axes=axis_words(study),
            pareto_shades=shades(study),
            intervals=_both(lambda width: interval_picture(story.pairs, width=width)) if story.pairs else Markup(),
        )
    )


def _both(draw: Callable[[float], str]) -> Markup:
    """Pictures are markup of our own making: `reports.svg` escapes what goes in."""
    wide, narrow = draw(_WIDE), draw(_NARROW)
    return Markup(f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>') if wide else Markup()


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["interval"] = _interval
    return environment


def _interval(text: str) -> Markup:
    """Sets `[790, 833]` after a number apart, in smaller letters."""
    match = _INTERVAL.match(text)
    if match is None:
        return escape(text)
    return Markup('{} <span class="interval">{}</span>').format(match[1], match[2])
