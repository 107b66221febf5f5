"""From the options of `fopt run --engine simulated` to a `Job` and its backend: nothing is launched, nothing verified.

Does not simulate or write files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from engine.config import EngineConfig, load_engine_config, parse_engine_config
from engine.simulated_backend import SimulatedBackend
from optimizer.candidate import space_around
from optimizer.cli.job import Wishes, study_name
from optimizer.cli.model_folder import find_simulated_model
from optimizer.cli.simulated_hardware import (
    chosen_skus,
    corrected_backend,
    first_fit,
    make_simulated_backend,
    parse_acceptance,
)
from optimizer.errors import OptimizerError
from optimizer.fidelity import part_of
from optimizer.objective import Objective, parse_objective
from optimizer.run import Job
from optimizer.simulated_measurer import simulated_part
from optimizer.simulated_replay import simulated_replay
from optimizer.slo import DEFAULT_QUALITY_FLOOR, Slo, parse_slos
from search_spaces.parameter import Parameter, Value
from search_spaces.skus import Sku, find_sku, load_all_skus, parse_prices
from search_spaces.space import SearchSpace, load_search_space
from workloads.parquet import read_workload

SKU, PARALLEL, WEIGHTS = "hardware.sku", "parallel", "quantization.weights"
_QUANTIZATION = "quantization."


class SimulatedJob(NamedTuple):
    """What is asked, and who answers."""

    job: Job
    backend: SimulatedBackend


class Limits(NamedTuple):
    """SLOs that a simulation can judge, whether quantized configs may be among the candidates, and what to say."""

    slos: tuple[Slo, ...]
    quantized: bool
    note: str


def make_simulated_job(wishes: Wishes) -> SimulatedJob:
    """Check everything that can be checked without a simulation.

    Raises:
        WorkloadError, SearchSpaceError, ConfigError, SimulatorError, OptimizerError: each with the user's sentence.
    """
    objective = _objective(wishes.objective)
    limits = judged_limits(parse_slos(wishes.slos))
    skus = load_all_skus((wishes.catalogue,) if wishes.catalogue else (), parse_prices(wishes.prices))
    space = _narrowed(load_search_space(wishes.space or wishes.engine), skus, wishes.skus)
    backend = make_simulated_backend(skus, steps=wishes.steps, acceptance=wishes.acceptance)
    workload = read_workload(wishes.workload)
    simulated_replay(simulated_part(workload))
    model = find_simulated_model(wishes.model, workload, wishes.workload)
    backend, corrections = corrected_backend(backend, skus, wishes.measured, model, workload)
    base = _base(wishes, backend, model, space, skus)
    profiles = parse_acceptance(wishes.acceptance)
    drafted = {f"{name}_acceptance": profile.num_draft_tokens for name, profile in profiles.items()}
    if not limits.quantized:
        space = _quantized_as(base, space)
    resolved = space.resolve(drafted)
    fitting, left_out = linked_hardware(resolved.space, backend, base)
    name = study_name(wishes, workload)
    job = Job(
        name=name,
        directory=wishes.runs_dir / name,
        workload=workload,
        workload_file=wishes.workload,
        heldout=part_of(workload, ()),
        notes=(limits.note, *corrections, *resolved.notes, *left_out),
        space=space_around(fitting, base),
        base=base,
        objective=objective,
        slos=limits.slos,
        skus=skus,
        budget_s=wishes.budget.seconds,
        max_trials=wishes.budget.trials,
        seed=wishes.seed,
        strategy=wishes.strategy,
        resume=wishes.resume,
        verify=False,
    )
    return SimulatedJob(job, backend)


def _objective(text: str) -> Objective:
    objective = parse_objective(text)
    if any(term.measure.source == "quality" for term in objective.terms):
        raise OptimizerError(
            f"the objective {text!r} is about quality, which is not predicted. Use cost, latency or throughput, or "
            "measure on an engine"
        )
    return objective


def judged_limits(slos: tuple[Slo, ...]) -> Limits:
    """Quality is not predicted: a floor keeps to unquantized configs, for which it holds by definition.

    Raises:
        OptimizerError: another limit on quality.
    """
    told = [slo for slo in slos if slo.measure.source == "quality"]
    odd = [slo for slo in told if slo.metric != "quality" or slo.is_upper]
    if odd:
        raise OptimizerError(f"{odd[0].text}: quality is not predicted. Leave the limit out, or measure on an engine")
    kept = tuple(slo for slo in slos if slo not in told)
    floor = max((slo.limit for slo in told), default=DEFAULT_QUALITY_FLOOR)
    if floor <= 0:
        return Limits(kept, True, "quantized weights are let in, and what they do to the answers is not known")
    note = (
        f"quality>={floor:g} is kept by leaving quantized weights out, as quality is not predicted; --slo 'quality>=0' "
        "lets them in"
    )
    return Limits(kept, False, note)


def _narrowed(space: SearchSpace, skus: dict[str, Sku], names: str | None) -> SearchSpace:
    if names is None:
        return space
    return _with_choices(space, SKU, chosen_skus(skus, names))


def linked_hardware(
    space: SearchSpace, backend: SimulatedBackend, base: EngineConfig
) -> tuple[SearchSpace, tuple[str, ...]]:
    """The space with SKU and parallel split as one parameter of the pairs that can run, and what was left out.

    A pair stays where some number format of the space fits it.
    """
    if SKU not in space.parameters or PARALLEL not in space.parameters:
        return space, ()
    splits = space.parameters[PARALLEL].options or {}
    formats = _weights_of(space)
    options: dict[str, dict[str, Value]] = {}
    lost = []
    for sku in space.parameters[SKU].values():
        for split, fields in splits.items():
            pair: dict[str, Value] = {SKU: sku, **fields}
            if any(not backend.check(_config(base, pair | weights)) for weights in formats):
                options[f"{sku}_{split}"] = pair
            else:
                lost.append(f"{sku} {split}")
    kept = {name: parameter for name, parameter in space.parameters.items() if name not in (SKU, PARALLEL)}
    parameters = {"hardware": Parameter(options=options), **kept}
    notes = (
        (f"left out, as the model does not fit, or its steps or network are unknown: {', '.join(lost)}",)
        if lost
        else ()
    )
    return SearchSpace(name=space.name, description=space.description, parameters=parameters, fixed=space.fixed), notes


def _config(base: EngineConfig, fields: Mapping[str, Value]) -> EngineConfig:
    nested: dict[str, object] = {}
    for field, value in fields.items():
        section, _, name = field.partition(".")
        if name:
            before = getattr(base, section)
            nested[section] = {**(before.model_dump() if before else {}), **_section(nested, section), name: value}
        else:
            nested[field] = value
    return parse_engine_config(base.model_dump(mode="json") | nested, where=base.model)


def _section(nested: Mapping[str, object], name: str) -> dict[str, object]:
    found = nested.get(name, {})
    assert isinstance(found, dict)
    return found


def _with_choices(space: SearchSpace, name: str, choices: tuple[str, ...]) -> SearchSpace:
    """The space with a parameter's choices replaced; the others' order stays."""
    if name not in space.parameters and len(choices) > 1:
        raise OptimizerError(f"space {space.name} has no parameter {name}. Add one, or leave the option out")
    changed = Parameter(choices=choices)
    parameters = {n: changed if n == name else p for n, p in space.parameters.items()}
    return SearchSpace(name=space.name, description=space.description, parameters=parameters, fixed=space.fixed)


def _weights_of(space: SearchSpace) -> list[dict[str, Value]]:
    """What the parameter of the weights' format, if there is one, sets by its values."""
    name = next((name for name, parameter in space.parameters.items() if WEIGHTS in parameter.fields(name)), None)
    if name is None:
        return [{}]
    parameter = space.parameters[name]
    return [parameter.settings(name, value) for value in parameter.values()]


def _quantized_as(base: EngineConfig, space: SearchSpace) -> SearchSpace:
    """The space with its number formats held at the base's."""
    known = base.flat()
    parameters = {}
    for name, parameter in space.parameters.items():
        formats = [field for field in parameter.fields(name) if field.startswith(_QUANTIZATION)]
        if formats and parameter.options is not None:
            options = {
                value: fields
                for value, fields in parameter.options.items()
                if all(fields.get(field, known.get(field)) == known.get(field) for field in formats)
            }
            if not options:
                continue
            parameters[name] = parameter.model_copy(update={"options": options})
        elif not formats:
            parameters[name] = parameter
    return SearchSpace(name=space.name, description=space.description, parameters=parameters, fixed=space.fixed)


def _base(
    wishes: Wishes, backend: SimulatedBackend, model: str, space: SearchSpace, skus: Mapping[str, Sku]
) -> EngineConfig:
    """`--base`, else the engine's defaults on the first SKU that holds the model.

    Raises:
        OptimizerError: a base that cannot run, and what could.
    """
    if wishes.base is None:
        varied = space.parameters.get(SKU)
        return first_fit(backend, model, [str(name) for name in varied.values()] if varied else [wishes.sku])
    given = load_engine_config(wishes.base)
    hardware = given.hardware.model_copy(update={"sku": find_sku(skus, given.hardware.sku).name})
    changes = {"engine": "simulated", "hardware": hardware} | ({"model": model} if wishes.model else {})
    base = given.model_copy(update=changes)
    if refusals := backend.check(base):
        raise OptimizerError(f"{wishes.base}: {refusals[0].reason}")
    return base
