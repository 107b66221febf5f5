"""`fopt artifacts rebuild`: the quantized weights that a best.yaml names, made again where the store has lost them.

Does not build: `engine.artifacts.store` does.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click

from engine.artifacts.checkpoint_record import CalibrationData, CheckpointRecord
from engine.artifacts.content_hash import file_sha256
from engine.artifacts.provenance import read_record
from engine.artifacts.store import ArtifactStore, default_directory
from optimizer.calibration import write_calibration
from optimizer.cli.checkpoints import calibration_file
from optimizer.cli.engines import QUANTIZER_PYTHON, STORE_DIRECTORY
from optimizer.cli.job import HELDOUT_FRACTION
from optimizer.cli.progress import stderr_console
from optimizer.errors import OptimizerError
from reports.deployment import read_deployment
from workloads.errors import WorkloadError
from workloads.parquet import read_workload
from workloads.sampling import split_by_session
from workloads.workload import Workload


@click.command("rebuild", epilog="Example:  fopt artifacts rebuild runs/<study>/best.yaml")
@click.argument("deployment", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="WORKLOAD",
    help="The study's workload, where the weights were calibrated with it. Default: the file that it was.",
)
@QUANTIZER_PYTHON
@STORE_DIRECTORY
def command(deployment: Path, calibration: Path | None, quantizer_python: Path | None, directory: Path | None) -> None:
    """Make the quantized weights that DEPLOYMENT (a best.yaml) names again, and say whether they are the same.

    Exit code 0: the same to the last bit; 1: others, which `fopt serve` does not take for the measured ones."""
    found = read_deployment(deployment, verify=True)
    if found.weights is None:
        raise OptimizerError(f"{deployment} names no quantized weights: there is nothing to build")
    with tempfile.TemporaryDirectory(prefix="fopt-calibration-") as folder:
        data = _calibration(
            found.weights, calibration or calibration_file(found), Path(folder) / "rows.jsonl", deployment
        )
        python = None if quantizer_python is None else str(quantizer_python)
        with closing(ArtifactStore(directory or default_directory(), python=python, calibration=data)) as store:
            made = store.checkpoint(found.config, report=stderr_console().print)
    click.echo(made)
    rebuilt = read_record(made)
    assert rebuilt is not None
    if rebuilt.content_sha256 != found.weights.content_sha256:
        stderr_console().print(_difference(found.weights, rebuilt))
        sys.exit(1)


def _calibration(wanted: CheckpointRecord, given: Path | None, path: Path, deployment: Path) -> CalibrationData | None:
    """The very rows that the weights were calibrated with."""
    if wanted.made_of.calibration_sha256 is None:
        return None
    record = wanted.made_of.calibration
    if record is None:
        raise OptimizerError(f"{deployment} does not say what its weights were calibrated with. Run the study again")
    if given is None:
        raise OptimizerError("these weights were calibrated with a workload. Give it with --calibration WORKLOAD")
    part = next((p for p in _parts(read_workload(given)) if p.fingerprint == record.workload_fingerprint), None)
    if part is None:
        raise OptimizerError(f"{given} is not the workload that {deployment} was searched on. Give that one")
    data = write_calibration(part, path, num_rows=record.num_rows, seed=record.seed)
    if file_sha256(data.path) != wanted.made_of.calibration_sha256:
        raise OptimizerError("this fopt draws another sample from that workload. Use the fopt that wrote the file")
    return data


def _parts(workload: Workload) -> Iterator[Workload]:
    """What a study may have searched on: all of it, or all but what it held out itself."""
    yield workload
    try:
        yield split_by_session(workload, HELDOUT_FRACTION).train
    except WorkloadError:
        return  # one session, which no study could part


def _difference(measured: CheckpointRecord, rebuilt: CheckpointRecord) -> str:
    then, now = measured.made_of.versions, rebuilt.made_of.versions
    changed = [
        f"{name} {now.get(name)} instead of {version}" for name, version in then.items() if now.get(name) != version
    ]
    why = f"made with {', '.join(changed)}" if changed else "the versions are the same, so the machine differs"
    return (
        f"the rebuilt weights are not the measured ones (sha256 {rebuilt.content_sha256[:12]} instead of "
        f"{measured.content_sha256[:12]}): {why}. Copy {measured.made_of.key} from the study's store, or run it again"
    )
