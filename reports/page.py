"""What every page of ours shares: the template environment, and pictures for wide and narrow screens.

Does not know what a page tells.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

WIDE, NARROW, HALF = 980.0, 350.0, 470.0
_INTERVAL = re.compile(r"^(.*\S) (\[[^\]]+\])$")


def both(draw: Callable[[float], str], *, wide: float = WIDE) -> Markup:
    """One picture twice: the page shows the one that fits, so that letters keep their size.

    Pictures are markup of our own making: `reports.svg` escapes what goes in.
    """
    drawn, narrow = draw(wide), draw(NARROW)
    return Markup(f'<div class="wide">{drawn}</div><div class="narrow">{narrow}</div>') if drawn else Markup()


def environment() -> Environment:
    """Templates beside this file; everything that came from outside is escaped."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["interval"] = _interval
    return found


def _interval(text: str) -> Markup:
    """Sets `[790, 833]` after a number apart, in smaller letters."""
    match = _INTERVAL.match(text)
    if match is None:
        return escape(text)
    return Markup('{} <span class="interval">{}</span>').format(match[1], match[2])
