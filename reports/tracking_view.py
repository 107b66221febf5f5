"""The way MLflow's UI shows a study when it is opened through `ui_url`: its trials, best first, in telling columns.

Does not know MLflow's client: it is the JSON that the UI's own "share" button stores in a tag of the experiment.
"""

from __future__ import annotations

import json

_METRICS = (
    "p95_e2el_ms",
    "p95_ttft_ms",
    "p95_tpot_ms",
    "quality",
    "usd_per_million_tokens",
    "acceptance_length",
    "worst_slo_violation",
)
_RUN_NAME = "attributes.`Run Name`"
_TAGS = ("state", "feasible", "provenance", "origin")


def view_tag(study_run: str) -> str:
    """Name of the tag; the UI reads it when the address says `viewStateShareKey=<study_run>`."""
    return f"mlflow.sharedViewState.{study_run}"


def view_of(study_run: str) -> str:
    """Ordering by a metric also keeps the UI from folding trials away under their study."""
    columns = [f"metrics.`{name}`" for name in _METRICS] + [f"tags.`{name}`" for name in _TAGS]
    view = {
        "searchFilter": f"tags.mlflow.parentRunId = '{study_run}'",
        "orderByKey": "metrics.`objective`",
        "orderByAsc": True,
        "selectedColumns": columns,
        "columnOrder": [_RUN_NAME, *columns],
        "columnWidths": {_RUN_NAME: 330, "metrics.`usd_per_million_tokens`": 170},
    }
    return json.dumps(view)
