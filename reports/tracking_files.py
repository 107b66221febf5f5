"""Where tracking lives below the runs folder, and the environment that keeps MLflow quiet and at home.

Does not import MLflow.
"""

from __future__ import annotations

from pathlib import Path

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
WRITER_LOG = "mlflow.log"

# No telemetry, no background jobs, no advice to use other products.
QUIET_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_AGENT_HINT": "1",
    "PYTHONWARNINGS": "ignore",
}


def database_uri(runs_dir: Path) -> str:
    """SQLAlchemy's address of the store."""
    return f"sqlite:///{runs_dir.absolute() / DATABASE}"
