"""The command that serves MLflow's UI over a runs folder, and the address that shows the newest study in it.

Does not start it.
"""

from __future__ import annotations

import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from reports.errors import ReportError
from reports.tracking_files import ARTIFACTS, DATABASE, QUIET_MLFLOW, database_uri

_NEWEST_STUDY = """
    SELECT r.run_uuid, r.experiment_id FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid
    WHERE t.key = 'fopt.role' AND t.value = 'study' AND r.lifecycle_stage = 'active' ORDER BY r.start_time DESC LIMIT 1
"""
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def ui_command(runs_dir: Path, host: str, port: int) -> list[str]:
    """One process that serves the UI at http://host:port, telemetry and background jobs off.

    MLflow refuses requests whose Host header it does not know (DNS rebinding): its defaults are loopback and private
    addresses; when asked to listen elsewhere, this machine's name and address are allowed too.

    Raises:
        ReportError: nothing to show, or the port is taken.
    """
    if not (runs_dir / DATABASE).exists():
        raise ReportError(f"{runs_dir} holds no studies yet. Run `fopt run` first, or name another --runs-dir")
    if _taken(host, port):
        raise ReportError(f"port {port} on {host} is in use. Choose another with --port")
    return [
        "env",
        *(f"{name}={value}" for name, value in QUIET_MLFLOW.items()),
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", database_uri(runs_dir), "--registry-store-uri", database_uri(runs_dir)),
        *("--artifacts-destination", str(runs_dir.absolute() / ARTIFACTS)),
        *("--host", host, "--port", str(port), "--workers", "1"),
        *_allowed_hosts(host, port),
    ]


def ui_url(runs_dir: Path, host: str, port: int) -> str:
    """Where the UI shows the newest study's trials side by side; the UI's front page when no study can be read."""
    base = f"http://{host}:{port}/"
    try:
        with closing(sqlite3.connect(f"file:{runs_dir.absolute() / DATABASE}?mode=ro", uri=True)) as database:
            newest = database.execute(_NEWEST_STUDY).fetchone()
    except sqlite3.Error:
        newest = None
    if newest is None:
        return base
    run, experiment = newest
    return f"{base}#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={run}"


def _allowed_hosts(host: str, port: int) -> list[str]:
    if host in _LOOPBACK:
        return []
    names = {"localhost", "127.0.0.1", "192.168.*", "10.*", "172.*", socket.gethostname()} | (
        {host} - {"0.0.0.0", "::"}
    )
    return ["--allowed-hosts", ",".join(sorted(names | {f"{name}:{port}" for name in names}))]


def _taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
