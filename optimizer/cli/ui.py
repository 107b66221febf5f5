"""`fopt ui`: the MLflow UI over the studies of a runs folder.

Does not read the runs itself.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from engine.process import port_in_use
from optimizer.cli.progress import stderr_console
from optimizer.errors import OptimizerError
from reports.tracking import ui_command


@click.command("ui")
@click.option("--runs-dir", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
def command(runs_dir: Path, host: str, port: int) -> None:
    """Open the MLflow UI: one run a study, one child run a trial, compared side by side. Ctrl-C stops it."""
    if port_in_use(port, host):
        raise OptimizerError(f"port {port} on {host} is in use. Choose another with --port")
    arguments = ui_command(runs_dir, host=host, port=port)
    stderr_console().print(f"MLflow UI at http://{host}:{port} (a few seconds to start; Ctrl-C stops it)")
    process = subprocess.Popen(arguments)
    try:
        sys.exit(process.wait())
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        sys.exit(0)
