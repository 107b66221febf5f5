"""`fopt verify`: is what a best.yaml promises still true on this traffic?

Does not search.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import click

from optimizer.adapter_use import adapter_use
from optimizer.cli.checkpoints import deployed_checkpoints
from optimizer.cli.console import print_verification
from optimizer.cli.engines import QUANTIZER_PYTHON, VLLM_PYTHON, make_backend
from optimizer.cli.progress import Phases
from optimizer.fidelity import Fidelity, choose_window, plan_fidelity
from optimizer.placement import Placement, placement_for
from optimizer.promise import verify_deployment
from optimizer.quality.evaluate import QualityEvaluator, reference_config
from optimizer.results import Deployment, Verification
from optimizer.slo import parse_slos, with_quality_floor
from reports.deployment import read_deployment
from workloads.parquet import read_workload
from workloads.workload import Workload


@click.command("verify", epilog="Example:  fopt verify runs/<study>/best.yaml workload.parquet")
@click.argument("deployment", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("workload", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--slo", "slos", multiple=True, metavar="LIMITS", help="Other limits than the file's. Repeatable.")
@click.option(
    "--seconds", type=click.FloatRange(min=1), help="Recorded seconds to replay. Default: as the search does."
)
@click.option("--seed", type=int, default=0, show_default=True)
@VLLM_PYTHON
@QUANTIZER_PYTHON
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    deployment: Path,
    workload: Path,
    slos: tuple[str, ...],
    seconds: float | None,
    seed: int,
    vllm_python: Path | None,
    quantizer_python: Path | None,
    as_json: bool,
) -> None:
    """Measure DEPLOYMENT (a best.yaml) again on WORKLOAD and compare it with its evidence.

    Exit code 0: it holds; 1: it does not."""
    promised = read_deployment(deployment, verify=True)
    traffic = read_workload(workload)
    limits = with_quality_floor(parse_slos(slos or promised.slos))
    fidelity = plan_fidelity(None)
    placement = placement_for(traffic)
    backend = make_backend(
        promised.config.engine,
        placement,
        vllm_python=vllm_python,
        checkpoints=deployed_checkpoints(promised, deployment, quantizer_python),
    )
    window = choose_window(traffic, seconds or fidelity.verification_s, num_warmup=fidelity.warmup_requests, seed=seed)
    with tempfile.TemporaryDirectory(prefix="fopt-verify-") as scratch, Phases("verifying", quiet=as_json) as phases:
        verification = verify_deployment(
            backend=backend,
            deployment=promised,
            window=window,
            slos=limits,
            quality=_quality(promised, traffic, Path(scratch), fidelity, placement, seed),
            placement=placement,
            directory=Path(scratch),
            report=phases.show,
        )
    use = None if promised.config.engine == "endpoint" else adapter_use([traffic], promised.config.lora_modules)
    if use is not None:
        verification = verification.model_copy(update={"notes": (*verification.notes, use.sentence())})
    _tell(verification, as_json=as_json)
    sys.exit(0 if verification.holds else 1)


def _quality(
    promised: Deployment, traffic: Workload, scratch: Path, fidelity: Fidelity, placement: Placement, seed: int
) -> QualityEvaluator:
    return QualityEvaluator(
        directory=scratch / "quality",
        workload=traffic,
        reference_class=reference_config(promised.config).quality_class(),
        num_requests=fidelity.quality_requests,
        num_requests_max=fidelity.quality_requests_max,
        placement=placement,
        seed=seed,
    )


def _tell(verification: Verification, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(verification.model_dump(mode="json"), indent=2))
    else:
        print_verification(verification)
