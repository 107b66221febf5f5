"""`report.md`: the story as Markdown, for pull requests and terminals.

Does not know numbers: it draws what `reports.story` tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from optimizer.results import StudyResult
from reports.story import Story, tell
from reports.table import Table
from reports.whole_file import write_whole

REPORT_MD = "report.md"
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def write_markdown(study: StudyResult, directory: Path) -> Path:
    return write_whole(directory / REPORT_MD, to_markdown(tell(study, directory)))


def to_markdown(story: Story) -> str:
    """The whole story; everything that came from outside is escaped."""
    blocks = [block for block in _blocks(story) if block]
    return "\n\n".join(blocks) + "\n"


def _blocks(story: Story) -> Iterator[str]:
    yield f"# {escape(story.title)}"
    top = story.headline
    yield f"**{escape(top.label)}.** {escape(f'{top.sentence} {top.trust}'.strip())}"
    yield escape(story.asked)
    yield _list(story.reasons)
    for table in (story.changes, story.comparison, story.slos, story.advice):
        yield _section(table)
    yield "## How it was found"
    yield escape(story.provenance)
    for table in (story.trials, story.gains, story.problems, story.quality, story.cost):
        yield _section(table)
    yield _pairs("Workload", story.workload)
    yield _pairs("Environment", story.environment)
    yield "## Do it again"
    yield "```\n" + "\n".join(line.replace("```", "") for line in story.commands) + "\n```"
    if story.caveats:
        yield "## Before you rely on it"
        yield _list(story.caveats)


def escape(text: str) -> str:
    """Text as Markdown shows it literally."""
    return _SPECIAL.sub(r"\\\1", text.replace("\n", " "))


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)


def _section(table: Table | None) -> str:
    if table is None:
        return ""
    lines = [_row(column.name for column in table.columns)]
    lines.append(f"|{'|'.join('--:' if column.numeric else '---' for column in table.columns)}|")
    lines += [_row(texts) for texts in table.texts()]
    note = f"\n\n{escape(table.note)}" if table.note else ""
    return f"## {escape(table.title)}\n\n" + "\n".join(lines) + note


def _row(texts: Iterable[str]) -> str:
    return f"| {' | '.join(escape(text) for text in texts)} |"


def _pairs(title: str, pairs: list[tuple[str, str]]) -> str:
    if not pairs:
        return ""
    return f"## {title}\n\n" + "\n".join(f"- {escape(name)}: {escape(value)}" for name, value in pairs)
