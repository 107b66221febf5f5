"""What `fopt run --engine simulated` and `fopt plan` share: SKUs by name, the backend, and a first config that fits.

Does not read workloads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from engine.config import EngineConfig
from engine.simulated_backend import SimulatedBackend
from engine.simulator.acceptance import AcceptanceProfile
from engine.simulator.model_names import simulated_shape
from engine.simulator.step_times import LOCAL, Calibration, read_trial
from optimizer.errors import OptimizerError
from optimizer.measured_corrections import study_correction
from optimizer.observed_steps import are_records, observed_trial
from search_spaces.skus import Sku, find_sku
from workloads.workload import Workload

SPLITS = (1, 2, 4, 8)
_METHODS = ("ngram", "suffix")


def chosen_skus(skus: Mapping[str, Sku], names: str) -> tuple[str, ...]:
    """Catalogue names of `a,b,c`, each once.

    Raises:
        SearchSpaceError: an unknown one.
        OptimizerError: none at all.
    """
    found = tuple(dict.fromkeys(find_sku(skus, name.strip()).name for name in names.split(",") if name.strip()))
    if not found:
        raise OptimizerError(f"--skus {names!r} names no hardware. Write names such as h100_sxm,h200,l40s")
    return found


def make_simulated_backend(
    skus: Mapping[str, Sku], *, steps: Sequence[Path] = (), acceptance: Iterable[str] = ()
) -> SimulatedBackend:
    """Steps are those that an engine logged, or those seen in the records of one that keeps no log.

    Raises:
        SimulatorError: an unreadable step log.
        OptimizerError: records that show no steps, or an acceptance profile.
    """
    trials = [observed_trial(path) if are_records(path) else read_trial(path) for path in steps]
    calibration = Calibration(trials) if trials else None
    return SimulatedBackend(skus, calibration=calibration, acceptance=parse_acceptance(acceptance))


def corrected_backend(
    backend: SimulatedBackend, skus: Mapping[str, Sku], texts: Iterable[str], model: str, workload: Workload
) -> tuple[SimulatedBackend, tuple[str, ...]]:
    """Its step times corrected by studies, `SKU=FOLDER` each, and what to say of it.

    Raises:
        SearchSpaceError: an unknown SKU.
        OptimizerError: not of that form, the SKU `local`, or a study that cannot be fitted to.
        WorkloadError: unreadable records.
    """
    found = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise OptimizerError(f"--measured {text!r}: write SKU=FOLDER, for example h100_sxm=runs/my-study")
        sku = find_sku(skus, name).name
        if sku == LOCAL:
            raise OptimizerError("--measured is for GPUs; steps of this machine are given with --steps FILE")
        if sku in found:
            raise OptimizerError(f"--measured: {sku} is given twice. Give one study of each")
        found[sku] = study_correction(Path(folder), sku, backend, model, workload)
    if not found:
        return backend, ()
    corrected = backend.corrected_by({sku: one.correction for sku, one in found.items()})
    return corrected, tuple(one.note for one in found.values())


def parse_acceptance(texts: Iterable[str]) -> dict[str, AcceptanceProfile]:
    """`METHOD=0.8,0.6,...`: the chance of each draft token, given those before it.

    Raises:
        OptimizerError: not of that form.
        SimulatorError: a chance outside 0..1.
    """
    return dict(_parse_profile(text) for text in texts)


def _parse_profile(text: str) -> tuple[str, AcceptanceProfile]:
    method, _, numbers = text.partition("=")
    if method not in _METHODS:
        raise OptimizerError(
            f"--acceptance {text!r}: no simulated method is called {method!r}. Write METHOD=CHANCES with one of "
            f"{', '.join(_METHODS)}, for example ngram=0.7,0.5"
        )
    try:
        chances = tuple(float(number) for number in numbers.split(","))
    except ValueError:
        raise OptimizerError(
            f"--acceptance {text!r}: {numbers!r} is no list of numbers. Write for example {method}=0.7,0.5"
        ) from None
    return method, AcceptanceProfile(per_position=chances)


def narrowest_fit(backend: SimulatedBackend, model: str, sku: str) -> EngineConfig | None:
    """The model on the fewest devices of a SKU that hold it; None when none of `SPLITS` does."""
    configs = (simulated_config(model, sku, split) for split in SPLITS)
    return next((config for config in configs if not backend.check(config)), None)


def first_fit(backend: SimulatedBackend, model: str, skus: Iterable[str]) -> EngineConfig:
    """`narrowest_fit` of the first SKU that has one.

    Raises:
        SimulatorError: no such model.
        OptimizerError: the model fits no SKU; with what each would take.
    """
    simulated_shape(model)
    reasons = []
    for sku in skus:
        if (config := narrowest_fit(backend, model, sku)) is not None:
            return config
        reasons.append(backend.check(simulated_config(model, sku, SPLITS[-1]))[0].reason)
    raise OptimizerError(f"{model} runs on none of these SKUs: {'; '.join(dict.fromkeys(reasons))}")


def simulated_config(model: str, sku: str, split: int) -> EngineConfig:
    """The engine's defaults on `split` devices of a SKU."""
    hardware = {"sku": sku, "count": split}
    values = {"model": model, "engine": "simulated", "tensor_parallel_size": split, "hardware": hardware}
    return EngineConfig.model_validate(values)
