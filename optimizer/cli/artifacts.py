"""`fopt artifacts`: what was built before launches, kept by content: list it, build one, remove what is old.

Does not build or remove: `engine.artifacts` does.
"""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import get_args

import click

from engine.artifacts.pruning import Pruning, StoredArtifact, prune, stored_artifacts
from engine.artifacts.store import ArtifactStore, default_directory
from engine.config import EngineConfig, Quantization, WeightFormat
from optimizer.calibration import write_calibration
from optimizer.cli.console import make_table, stdout_console
from optimizer.cli.engines import STORE_DIRECTORY
from optimizer.cli.progress import stderr_console
from optimizer.cli.rebuild import command as rebuild_command
from optimizer.cli.sensitivity import command as sensitivity_command
from optimizer.errors import OptimizerError
from workloads.parquet import read_workload

_KEY_SHOWN = 12
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS = "|".join(_BYTES)


class Age(click.ParamType[float]):
    """Parses `90s`, `12h`, `30d` to seconds."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|d)", str(value).strip().replace(" ", ""))
        if match is None:
            self.fail(f"{value!r} is not an age. Write it as 30d, 12h or 90m", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


class Size(click.ParamType[int]):
    """Parses `20GB`, `500MB` to bytes."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(rf"(\d+(?:\.\d+)?)({_UNITS})", str(value).strip().replace(" ", ""))
        if match is None:
            self.fail(f"{value!r} is not a size. Write it as 20GB or 500MB", param, ctx)
        return int(float(match[1]) * _BYTES[match[2]])


@click.group("artifacts", epilog="Example:  fopt artifacts prune --older-than 30d --max-size 20GB --dry-run")
def command() -> None:
    """Quantized checkpoints that studies built and later ones reuse: list, build, mix and remove them."""


command.add_command(rebuild_command)
command.add_command(sensitivity_command)


@command.command("list", epilog="Example:  fopt artifacts list")
@STORE_DIRECTORY
def list_command(directory: Path | None) -> None:
    """Print what the cache holds, the latest used first."""
    place = directory or default_directory()
    artifacts = stored_artifacts(place)
    if not artifacts:
        stderr_console().print(f"{place} holds no artifacts. A study on vLLM builds what it needs, or build one now")
        return
    stdout_console().print(_table(artifacts, title=str(place)))


@command.command("prune", epilog="Example:  fopt artifacts prune --older-than 30d --max-size 20GB --dry-run")
@click.option("--older-than", type=Age(), metavar="AGE", help="Remove what was last used longer ago, e.g. 30d.")
@click.option("--max-size", type=Size(), metavar="SIZE", help="Remove the longest unused until so much is left.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@STORE_DIRECTORY
def prune_command(older_than: float | None, max_size: int | None, dry_run: bool, directory: Path | None) -> None:
    """Remove artifacts by age and size; never one that a running study or server uses."""
    if older_than is None and max_size is None:
        raise click.UsageError("say what to remove with --older-than AGE, --max-size SIZE, or both.")
    place = directory or default_directory()
    pruning = prune(place, now=time.time(), older_than_s=older_than, max_bytes=max_size, dry_run=dry_run)
    _tell_pruning(pruning, dry_run=dry_run)


@command.command(
    "build", epilog="Example:  fopt artifacts build model/ --weights int4_g64 --calibration workload.parquet"
)
@click.argument("model", type=click.Path(path_type=Path, file_okay=False))
@click.option("--weights", type=click.Choice(get_args(WeightFormat)), required=True, help="Format of linear layers.")
@click.option("--activations", type=click.Choice(["bf16", "int8", "fp8"]), default="bf16", show_default=True)
@click.option(
    "--override",
    "overrides",
    metavar="PATTERN=FORMAT",
    multiple=True,
    help="Other weights for some layers, e.g. '*.down_proj=int8'. The last that matches holds.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="WORKLOAD",
    help="Find 4-bit weights by GPTQ on this workload's conversations instead of rounding.",
)
@click.option("--quantizer-python", metavar="PATH", help="Python that has llmcompressor. Or: $FOPT_QUANTIZER_PYTHON.")
@STORE_DIRECTORY
def build_command(
    model: Path,
    weights: WeightFormat,
    activations: str,
    overrides: tuple[str, ...],
    calibration: Path | None,
    quantizer_python: str | None,
    directory: Path | None,
) -> None:
    """Make a quantized checkpoint of MODEL, which vLLM loads as it is, and print its folder."""
    quantization = Quantization.model_validate(
        {"weights": weights, "activations": activations, "overrides": dict(map(_override, overrides))}
    )
    console = stderr_console()
    with tempfile.TemporaryDirectory(prefix="fopt-calibration-") as folder:
        data = write_calibration(read_workload(calibration), Path(folder) / "rows.jsonl") if calibration else None
        store = ArtifactStore(directory or default_directory(), python=quantizer_python, calibration=data)
        config = EngineConfig(model=str(model), quantization=quantization)
        with closing(store):
            made = store.checkpoint(config, report=lambda text: console.print(f"{model}: {text}"))
    click.echo(made)


def _override(text: str) -> tuple[str, str]:
    pattern, _, weights = text.rpartition("=")
    if not pattern or weights not in get_args(WeightFormat):
        known = ", ".join(get_args(WeightFormat))
        raise OptimizerError(f"--override {text}: not PATTERN=FORMAT. Formats are {known}")
    return pattern, weights


def _table(artifacts: list[StoredArtifact], *, title: str) -> object:
    now = time.time()
    rows = [_row(artifact, now) for artifact in artifacts]
    total = size_text(sum(artifact.bytes for artifact in artifacts))
    return make_table(["from", "key", "what", "size", "built", "last used"], rows, title=f"{title}: {total}")


def _row(artifact: StoredArtifact, now: float) -> tuple[str, ...]:
    made, size, used = artifact.provenance, size_text(artifact.bytes), age_text(now - artifact.last_used)
    if made is None:
        return ("?", artifact.key[:_KEY_SHOWN], "damaged", size, "?", used)
    built = f"{made.created_at[:10]}, {made.seconds:.0f} s"
    return (made.source, artifact.key[:_KEY_SHOWN], made.ingredients.recipe.label(), size, built, used)


def _tell_pruning(pruning: Pruning, *, dry_run: bool) -> None:
    console = stdout_console()
    if pruning.removed:
        console.print(_table(list(pruning.removed), title="would be removed" if dry_run else "removed"))
    else:
        console.print("nothing to remove")
    for artifact in pruning.in_use:
        console.print(f"{artifact.key[:_KEY_SHOWN]} stays: it is in use")


def size_text(num_bytes: int) -> str:
    """`3.1 MB`."""
    unit, factor = next((pair for pair in reversed(_BYTES.items()) if num_bytes >= pair[1]), ("B", 1))
    return f"{num_bytes / factor:.3g} {unit}"


def age_text(seconds: float) -> str:
    """`3 d ago`, in the largest unit that fits."""
    unit, factor = next((pair for pair in reversed(_SECONDS.items()) if seconds >= pair[1]), ("s", 1.0))
    return f"{max(0.0, seconds) / factor:.0f} {unit} ago"
