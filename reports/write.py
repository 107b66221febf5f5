"""`write_reports`: every file a study leaves behind, each whole or not at all.

Does not know their contents.
"""

from __future__ import annotations

from pathlib import Path

from optimizer.results import StudyResult
from reports.deployment import portable_config, write_best
from reports.html import write_html
from reports.markdown import write_markdown
from reports.tables import write_tables
from reports.vllm_config import write_vllm


def write_reports(study: StudyResult, directory: Path, *, checkpoint: Path | None = None) -> list[Path]:
    """best.yaml and best.vllm.yaml where something is recommended, the report as HTML and Markdown, the tables.

    Args:
        checkpoint: the folder of the recommended config's quantized weights, where vLLM loads such.
    """
    paths = []
    if study.recommendation:
        paths.append(write_best(study, directory))
        config = study.trial(study.recommendation.trial).config
        paths.append(write_vllm(portable_config(config), directory, checkpoint=checkpoint))
    return [*paths, write_html(study, directory), write_markdown(study, directory), *write_tables(study, directory)]
