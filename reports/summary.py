"""What the terminal shows at the end, and the JSON for programs.

Does not print: the command line draws the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimizer.results import StudyResult
from reports.caveats import provenance
from reports.headline import Headline
from reports.story import tell
from reports.table import Table


@dataclass(frozen=True, kw_only=True)
class Summary:
    """`tables` in the order to print them: what to change, recommended against default, limits, advice, problems."""

    headline: Headline
    tables: tuple[Table, ...]
    adapters: str  # how many requests name one and are served with it; empty where none does
    provenance: str
    serve: str  # the command that serves the recommendation; empty when there is none


def summarize(study: StudyResult, directory: Path | None = None) -> Summary:
    """The part of the story that fits a terminal; `directory` is where the study's files lie."""
    story = tell(study, directory)
    tables = (story.changes, story.comparison, story.slos, story.advice, story.problems)
    return Summary(
        headline=story.headline,
        tables=tuple(table for table in tables if table),
        adapters="" if study.adapters is None else f"{study.adapters.sentence()}.",
        provenance=provenance(study),
        serve=story.commands[0] if study.recommendation else "",
    )


def study_json(study: StudyResult) -> dict[str, Any]:
    """The whole StudyResult as plain JSON values, with the headline in words and the recommended config on top."""
    story = tell(study)
    chosen = study.recommendation
    return {
        "status": story.headline.status,
        "headline": story.headline.sentence,
        "trust": story.headline.trust,
        "recommended_config": study.trial(chosen.trial).config.model_dump(mode="json") if chosen else None,
        **study.model_dump(mode="json"),
    }
