"""From the options of `fopt run` to a `Job`: every file read, every wish parsed, before anything is launched.

Does not start engines or write files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from engine.config import EngineConfig, load_engine_config
from optimizer.candidate import space_around, with_fixed
from optimizer.cli.adapters import with_adapters
from optimizer.cli.budget import Budget
from optimizer.cli.engines import own_space, space_values
from optimizer.cli.model_folder import find_beside, find_model
from optimizer.cli.other_servers import (
    NOTHING_TO_CHOOSE,
    command_config,
    endpoint_config,
    refuse_wishes_of_an_endpoint,
    space_of_engine,
)
from optimizer.errors import OptimizerError
from optimizer.objective import parse_objective
from optimizer.placement import Placement, placement_for
from optimizer.run import Job
from optimizer.slo import parse_slos, with_quality_floor
from optimizer.study import newest_study
from search_spaces.skus import find_sku, load_all_skus, parse_prices
from search_spaces.space import SearchSpace
from workloads.parquet import read_workload
from workloads.sampling import split_by_session
from workloads.workload import Workload

HELDOUT_FRACTION = 0.35


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """The options of `fopt run`, as typed."""

    workload: Path
    heldout: Path | None
    objective: str
    slos: tuple[str, ...]
    model: Path | None
    draft: Path | None
    medusa: Path | None
    eagle: Path | None
    eagle3: Path | None
    engine: str
    lora_modules: tuple[str, ...]
    vllm_python: Path | None
    quantizer_python: Path | None
    space: str | None
    base: Path | None
    budget: Budget
    prices: tuple[str, ...]
    sku: str
    skus: str | None
    catalogue: Path | None
    steps: tuple[Path, ...]
    measured: tuple[str, ...]
    acceptance: tuple[str, ...]
    url: str | None
    model_name: str | None
    api_key_env: str | None
    seed: int
    strategy: str
    runs_dir: Path
    name: str | None
    resume: bool
    no_verify: bool
    no_early_stop: bool = False
    devices: str | None = None


class Traffic(NamedTuple):
    """What is searched on, what is verified on, and how they were parted."""

    train: Workload
    heldout: Workload
    note: str


def make_job(wishes: Wishes) -> Job:
    """Check everything that can be checked without an engine.

    Raises:
        WorkloadError, SearchSpaceError, ConfigError, OptimizerError: each with the sentence for the user.
    """
    _refuse_wishes_of_the_simulator(wishes)
    refuse_wishes_of_an_endpoint(wishes)
    objective = parse_objective(wishes.objective)
    slos = with_quality_floor(parse_slos(wishes.slos))
    skus = load_all_skus((wishes.catalogue,) if wishes.catalogue else (), parse_prices(wishes.prices))
    find_sku(skus, wishes.sku)
    workload = read_workload(wishes.workload)
    traffic = _part_traffic(workload, wishes.heldout)
    asked = space_of_engine(wishes.engine, wishes.space or own_space(wishes.engine, wishes.vllm_python))
    base = with_adapters(with_fixed(_base_config(wishes, workload), asked), wishes.lora_modules)
    space, notes = _space(wishes, asked, base, placement_for(traffic.train))
    if wishes.engine == "endpoint":
        notes = (*notes, NOTHING_TO_CHOOSE)
    name = study_name(wishes, traffic.train)
    return Job(
        name=name,
        directory=wishes.runs_dir / name,
        workload=traffic.train,
        workload_file=wishes.workload,
        heldout=traffic.heldout,
        notes=(traffic.note, *notes),
        space=space,
        base=base,
        objective=objective,
        slos=slos,
        skus=skus,
        budget_s=wishes.budget.seconds,
        max_trials=wishes.budget.trials,
        seed=wishes.seed,
        strategy=wishes.strategy,
        resume=wishes.resume,
        verify=not wishes.no_verify,
        early_stop=not wishes.no_early_stop,
    )


def _refuse_wishes_of_the_simulator(wishes: Wishes) -> None:
    given = {"--skus": wishes.skus, "--steps": wishes.steps, "--measured": wishes.measured}
    given["--acceptance"] = wishes.acceptance
    if odd := [option for option, value in given.items() if value]:
        raise OptimizerError(
            f"{odd[0]} belongs to --engine simulated; a measured study runs on the hardware at hand (--sku NAME for "
            "its price, --catalogue FILE for your own list)"
        )


def _part_traffic(workload: Workload, heldout: Path | None) -> Traffic:
    if heldout is not None:
        return Traffic(workload, read_workload(heldout), "")
    train, later = split_by_session(workload, HELDOUT_FRACTION)
    note = f"verified on the last {HELDOUT_FRACTION:.0%} of the workload's sessions, which the search did not see"
    return Traffic(train, later, note)


def _base_config(wishes: Wishes, workload: Workload) -> EngineConfig:
    if wishes.engine == "endpoint":
        return endpoint_config(wishes)
    if wishes.engine == "command":
        return command_config(wishes, find_model(wishes.model, workload, wishes.workload))
    if wishes.base is not None and wishes.model is None:
        return load_engine_config(wishes.base)
    model = find_model(wishes.model, workload, wishes.workload)
    hardware = {"hardware": {"sku": wishes.sku}}
    base = EngineConfig.model_validate({"model": model, "engine": wishes.engine, **hardware})
    return load_engine_config(wishes.base).model_copy(update={"model": model}) if wishes.base else base


def _space(
    wishes: Wishes, space: SearchSpace, base: EngineConfig, placement: Placement
) -> tuple[SearchSpace, tuple[str, ...]]:
    cores = placement.engine_cores
    given = {"draft": wishes.draft, "medusa": wishes.medusa, "eagle": wishes.eagle, "eagle3": wishes.eagle3}
    folders = {name: find_beside(name, folder, base.model) for name, folder in given.items()}
    values = space_values(wishes.engine, wishes.vllm_python, wishes.quantizer_python)
    resolved = space.resolve({**folders, **values, "cores": len(cores) if cores else None})
    return space_around(resolved.space, base), resolved.notes


def study_name(wishes: Wishes, workload: Workload) -> str:
    """`--name`, the study to resume, or workload, objective and time.

    Raises:
        OptimizerError: a name with other characters, or nothing to resume.
    """
    if wishes.name is not None:
        if not re.fullmatch(r"[\w.-]+", wishes.name):
            raise OptimizerError(f"--name {wishes.name!r}: use letters, digits, dots, dashes and underscores")
        return wishes.name
    if wishes.resume:
        newest = newest_study(wishes.runs_dir, workload_fingerprint=workload.fingerprint)
        if newest is None:
            raise OptimizerError(f"{wishes.runs_dir} has no study of this workload to resume. Leave out --resume")
        return newest.name
    wish = re.sub(r"[^\w.-]+", "-", wishes.objective).strip("-")[:24]
    return f"{wishes.workload.stem}-{wish}-{datetime.now():%Y%m%d-%H%M%S}"
