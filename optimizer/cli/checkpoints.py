"""From where the quantized checkpoints of vLLM's configs come: made for a study, or the very ones that it measured.

Does not quantize: `engine.artifacts.store` has it done.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from engine.artifacts.store import ArtifactStore, default_directory
from engine.backend import EngineError
from engine.config import EngineConfig
from engine.vllm_server.backend import Checkpoints
from optimizer.calibration import has_prompts, write_calibration
from optimizer.errors import OptimizerError
from optimizer.results import Deployment
from workloads.workload import Workload


class StudyCheckpoints(NamedTuple):
    """`give` is None where nobody makes any; `notes` are for the study's reader."""

    give: Checkpoints | None
    notes: tuple[str, ...] = ()


_MADE_BY_MAKE = Path(".venv-quantizer/bin/python")
NO_CHECKPOINTS = StudyCheckpoints(None)


@contextmanager
def study_checkpoints(train: Workload, quantizer_python: Path, *, seed: int) -> Iterator[StudyCheckpoints]:
    """Checkpoints for a study's candidates, calibrated with the traffic that it searches on.

    The sample holds prompts and answers; it is gone when the context ends.
    """
    if not has_prompts(train):
        store = ArtifactStore(default_directory(), python=str(quantizer_python))
        note = (
            "the workload holds no prompts to calibrate with: 4-bit weights are rounded to nearest, not found by GPTQ"
        )
        yield StudyCheckpoints(store.checkpoint, (note,))
        return
    with tempfile.TemporaryDirectory(prefix="fopt-calibration-") as folder:
        data = write_calibration(train, Path(folder) / "rows.jsonl", seed=seed)
        store = ArtifactStore(default_directory(), python=str(quantizer_python), calibration=data)
        yield StudyCheckpoints(store.checkpoint)


def deployed_checkpoints(
    deployment: Deployment, path: Path | None, quantizer_python: Path | None
) -> Checkpoints | None:
    """The weights that a deployment names, from the store; of a file that names none, made where that is possible.

    Args:
        path: of the deployment's file, for the command that makes them again.

    Raises:
        OptimizerError: the named weights are not in the store, or are not the ones that were measured.
    """
    if deployment.weights is None:
        return ArtifactStore(default_directory(), python=str(quantizer_python)).checkpoint if quantizer_python else None
    store = ArtifactStore(default_directory())
    try:
        folder = store.find(deployment.weights)
    except EngineError as error:
        raise OptimizerError(f"{error}. {_how_to_mend(deployment, path, quantizer_python)}") from None

    def give(config: EngineConfig, *, report: Callable[[str], None]) -> Path:  # holds `store`, and so its use of them
        assert config.quantization == deployment.config.quantization, "a deployment has one set of weights"
        report(f"from {folder.parent}")
        return folder

    return give


def _how_to_mend(deployment: Deployment, path: Path | None, quantizer_python: Path | None) -> str:
    """The command that makes the weights again; it says itself what it lacks."""
    assert deployment.weights is not None
    command = ["fopt", "artifacts", "rebuild", str(path)]
    where = ""
    if deployment.weights.made_of.calibration and not calibration_file(deployment):
        command += ["--calibration", "WORKLOAD"]
        where = f", where WORKLOAD is the file of {deployment.workload_name} that the study searched on"
    if python := quantizer_python or next((p for p in (_MADE_BY_MAKE,) if p.exists()), None):
        command += ["--quantizer-python", str(python)]
    return f"Make them again with: {shlex.join(command)}{where}"


def calibration_file(deployment: Deployment) -> Path | None:
    """The study's workload where it still lies there; None: it is gone, or nobody recorded it."""
    file = deployment.workload_file
    return Path(file) if file is not None and Path(file).exists() else None
