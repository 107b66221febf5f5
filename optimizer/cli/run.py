"""`fopt run`: the main job. Reads what was asked, runs the study, tells what was found.

Does not decide: `optimizer.run` does.
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from engine.backend import Backend
from engine.simulated_backend import SimulatedBackend
from optimizer.cli.adapters import LORA_MODULES
from optimizer.cli.budget import Budget, BudgetType
from optimizer.cli.checkpoints import NO_CHECKPOINTS, study_checkpoints
from optimizer.cli.console import print_study
from optimizer.cli.device_choice import DEVICES, chosen_devices, refuse_devices_without_effect
from optimizer.cli.engines import QUANTIZER_PYTHON, VLLM_PYTHON, make_backend
from optimizer.cli.job import Wishes, make_job
from optimizer.cli.progress import StudyProgress
from optimizer.cli.simulated_job import make_simulated_job
from optimizer.cli.watching import Watcher
from optimizer.environment import describe_environment
from optimizer.errors import OptimizerError
from optimizer.fidelity import plan_fidelity
from optimizer.placement import placement_for
from optimizer.results import StudyResult
from optimizer.run import Job, run_study, verification_seconds
from reports.summary import study_json
from reports.tracking import Tracker
from reports.write import write_reports

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command("run", epilog="Example:  fopt run log.parquet --objective cost --slo 'ttft:p95<300ms' --budget 10m")
@click.argument("workload", type=FILE)
@click.option("--objective", default="latency", show_default=True, metavar="WISH",
              help="latency | cost | quality | throughput | balanced, a metric such as p50_ttft_ms, or a weighted sum "
                   "such as '0.7*latency + 0.3*cost'.")  # fmt: skip
@click.option("--slo", "slos", multiple=True, metavar="LIMITS",
              help="Limits to keep, e.g. 'ttft:p95<300ms; quality>=0.99; cost<0.4'. Repeatable.")  # fmt: skip
@click.option("--heldout", type=FILE, help="Later traffic for the final check. Default: the workload's last part.")
@click.option("--model", type=FOLDER, help="Hugging Face folder; or a known name (simulated). Default: the workload's.")
@click.option("--draft", type=FOLDER, help="Draft model's folder. Default: `draft` beside the model.")
@click.option("--medusa", type=FOLDER, help="Folder of Medusa heads. Default: `medusa` beside the model.")
@click.option("--eagle", type=FOLDER, help="Folder of an EAGLE head. Default: `eagle` beside the model.")
@click.option("--eagle3", type=FOLDER, help="Folder of an EAGLE-3 head. Default: `eagle3` beside the model.")
@click.option("--engine", default="bundled", show_default=True,
              help="bundled | vllm | simulated | command | endpoint: who serves. command: what the space launches; "
                   "endpoint: a server that runs already.")  # fmt: skip
@LORA_MODULES
@VLLM_PYTHON
@QUANTIZER_PYTHON
@DEVICES
@click.option("--url", metavar="URL", help="Endpoint: its address, as http://host:port.")
@click.option("--model-name", metavar="NAME", help="Endpoint: what it calls the model. Default: its only one.")
@click.option("--api-key-env", metavar="VAR", help="Endpoint: environment variable that holds its API key.")
@click.option("--space", metavar="NAME|FILE", help="Search space. Default: the engine's own.")
@click.option("--base", type=FILE, help="Engine config (YAML) to start from. Default: the engine's defaults.")
@click.option(
    "--budget",
    type=BudgetType(),
    help="A time (5m, 2h) or a count (30trials). Default: 5m; vllm: 20m; simulated: 40trials.",
)
@click.option("--price", "prices", multiple=True, metavar="SKU=USD", help="Dollars per hour of one SKU. Repeatable.")
@click.option("--sku", default="local", show_default=True, help="The hardware the candidates run on, for its price.")
@click.option("--skus", metavar="A,B,C", help="Simulated: the hardware to choose from. Default: the space's.")
@click.option("--catalogue", type=FILE, help="Your own hardware catalogue (YAML), laid over the shipped one.")
@click.option("--steps", type=FILE, multiple=True,
              help="Simulated: a measured trial's steps.parquet, or records.parquet of an engine without a step log, "
              "for the SKU `local`. Repeatable: a trial per number "
              "format and speculation method.")  # fmt: skip
@click.option("--measured", multiple=True, metavar="SKU=STUDY",
              help="Simulated: the folder of a study that was measured on a SKU, whose step times are corrected by its "
              "trials. Repeatable.")  # fmt: skip
@click.option("--acceptance", multiple=True, metavar="METHOD=CHANCES",
              help="Simulated: measured chance of each draft token, e.g. ngram=0.7,0.5. Repeatable.")  # fmt: skip
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Same seed, same candidates for the same measurements."
)
@click.option(
    "--strategy", default="surrogate", show_default=True, help="surrogate | tpe | random: who proposes candidates."
)
@click.option("--runs-dir", type=FOLDER, default=Path("runs"), show_default=True, help="Where studies are kept.")
@click.option("--name", help="Name of the study. Default: workload, objective and time.")
@click.option("--resume", is_flag=True, help="Go on with study --name, or with the newest one of this workload.")
@click.option("--no-verify", is_flag=True, help="Leave out the interleaved check on held-out traffic.")
@click.option("--no-early-stop", is_flag=True, help="Replay every trial to its end, also what is already rejected.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def command(as_json: bool, **options: Any) -> None:
    """Search for the config that serves WORKLOAD best, and write it with the evidence.

    Candidates are launched for real, the recorded traffic is replayed against them, and their answers are compared with
    the unquantized model's. The result is runs/<study>/best.yaml, a report, and every trial's records.

    With --engine simulated nothing is launched: latencies, replicas and cost on hardware that is not here are
    predicted, and marked so. With --engine endpoint --url URL a running server is measured, once, as it is. With
    --engine command --space FILE the server is whatever the file's `launch:` says, such as SGLang or llama.cpp."""
    budget = options.pop("budget") or _DEFAULT_BUDGETS.get(options["engine"], _DEFAULT_BUDGETS["bundled"])
    wishes = Wishes(**options, budget=budget)
    with ExitStack() as stack:
        job, backend = _prepare(wishes, stack)
        _refuse_early(job, backend)
        result, paths = _run(job, backend, wishes.budget, quiet=as_json)
    if as_json:
        click.echo(json.dumps(study_json(result), indent=2))
    else:
        print_study(result, paths)
    if result.interrupted:
        sys.exit(130)


# vLLM takes half a minute to start.
_DEFAULT_BUDGETS = {"bundled": Budget(seconds=300), "vllm": Budget(seconds=1200), "simulated": Budget(trials=40)}


def _prepare(wishes: Wishes, stack: ExitStack) -> tuple[Job, Backend | SimulatedBackend]:
    devices = chosen_devices(wishes.devices, wishes.engine)
    if wishes.engine == "simulated":
        return make_simulated_job(wishes)
    job = make_job(wishes)
    checkpoints = NO_CHECKPOINTS
    if wishes.engine == "vllm" and wishes.quantizer_python is not None:
        checkpoints = stack.enter_context(study_checkpoints(job.workload, wishes.quantizer_python, seed=wishes.seed))
        job = replace(job, notes=(*job.notes, *checkpoints.notes))
    backend = make_backend(
        wishes.engine,
        placement_for(job.workload, devices=devices),
        reconfigurable=True,
        vllm_python=wishes.vllm_python,
        checkpoints=checkpoints.give,
    )
    refuse_devices_without_effect(wishes.devices, backend)
    return job, backend


def _refuse_early(job: Job, backend: Backend | SimulatedBackend) -> None:
    """What would fail at once fails before anything is written.

    Raises:
        OptimizerError: the default config cannot run here, or the studies' folder cannot be written.
    """
    if refusals := backend.check(job.base):
        reasons = "; ".join(refusal.reason for refusal in refusals)
        raise OptimizerError(f"the default config cannot run here: {reasons}")
    runs = job.directory.parent
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runs):
            pass
    except OSError as error:
        raise OptimizerError(f"cannot write to {runs}: {error.strerror}. Choose a folder with --runs-dir") from None


def _run(
    job: Job, backend: Backend | SimulatedBackend, budget: Budget, *, quiet: bool
) -> tuple[StudyResult, list[Path]]:
    verify_s = verification_seconds(plan_fidelity(job.budget_s)) if job.verify else 0.0
    progress = StudyProgress(budget=budget, objective=job.objective.text, verify_s=verify_s, quiet=quiet)
    with Tracker(job.directory.parent) as tracker, progress:
        progress.say(f"study {job.name}: {len(job.workload)} requests, {job.space.size()} configs, budget {budget}")
        _start_tracking(tracker, job)
        watcher = Watcher(job=job, progress=progress, tracker=tracker)
        result = run_study(job, backend=backend, observer=watcher)
        progress.phase("writing", "reports")
        paths = write_reports(result, job.directory, checkpoint=_checkpoint(result))
        tracker.finish_study(result, job.directory)
    return result, paths


def _checkpoint(result: StudyResult) -> Path | None:
    """The folder from which the recommended weights were measured, where they are not the model's own."""
    recommended = result.trial(result.recommendation.trial) if result.recommendation else None
    return Path(recommended.weights.folder) if recommended and recommended.weights else None


def _start_tracking(tracker: Tracker, job: Job) -> None:
    tracker.start_study(
        name=job.name,
        default=job.base,
        workload_name=job.workload.metadata.name,
        workload_fingerprint=job.workload.fingerprint,
        objective=job.objective.text,
        slos=[str(slo) for slo in job.slos],
        space_name=job.space.name,
        seed=job.seed,
        environment=describe_environment(),
    )
