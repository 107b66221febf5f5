"""Corrections of a SKU's simulated step times by a study that was measured on it.

Each trial is simulated as it was replayed, and what kernel times leave out is fitted to the mean TTFT and TPOT of all
(`engine/simulator/correction_fit.py`). Does not know how a SKU is named by the user.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import ValidationError

from engine.config import EngineConfig
from engine.simulated_backend import SimulatedBackend
from engine.simulator.corrected import Correction
from engine.simulator.correction_fit import UNCORRECTED, MeasuredRun, fit_correction, log_ratios
from engine.simulator.traffic import Traffic
from optimizer.errors import OptimizerError
from optimizer.results import Provenance, TrialResult, TrialState
from optimizer.simulated_replay import SimulatedReplay, simulated_replay
from workloads.records import RequestRecord, read_records
from workloads.workload import Workload

_FEWEST = 2  # trials for four figures, of which two means each are known
_NOT_OF_A_SIMULATION = ("num_threads", "distributed_executor_backend", "gpu_memory_utilization", "launch")


class StudyCorrection(NamedTuple):
    """What was found, and what to say of it."""

    correction: Correction
    note: str


def study_correction(
    study: Path, sku: str, backend: SimulatedBackend, model: str, workload: Workload
) -> StudyCorrection:
    """Fitted to the measured trials of a study's folder.

    Args:
        sku: the catalogue's name of what the study ran on.
        backend: without corrections.
        model: the simulated model, which is that of the study.
        workload: where the study's requests are in it, their shared prefixes are known.

    Raises:
        OptimizerError: no such folder, or too few trials that can be simulated, and why.
        WorkloadError: unreadable records.
    """
    trials = list(_measured_trials(study))
    replay, runs, reasons = simulated_replay(workload), [], []
    for trial in trials:
        config = _simulated(trial.config, model, sku)
        records = read_records(study / "trials" / f"{trial.number:04}" / "records.parquet")
        if reason := _objection(trial, config, backend, model, replay, records):
            reasons.append(f"trial {trial.number}: {reason}")
        else:
            runs.append(_run(trial, config, backend, replay, records))
    if len(runs) < _FEWEST:
        why = f" ({'; '.join(dict.fromkeys(reasons))})" if reasons else ""
        raise OptimizerError(
            f"{study}: {len(runs)} of {len(trials)} measured trials can be simulated, at least {_FEWEST} must{why}"
        )
    name = f"{len(runs)} trials of {study.name}"
    correction = fit_correction(runs, f"{name}, measured on {sku}")
    before, after = (np.median(np.abs(np.expm1(log_ratios(runs, one))), axis=0) for one in (UNCORRECTED, correction))
    note = (
        f"step times of {sku} are corrected by {name}: mean TTFT and TPOT were off by {before[0]:.0%} and "
        f"{before[1]:.0%} in the median, and are by {after[0]:.0%} and {after[1]:.0%} (the trials that were fitted to)"
    )
    left_out = f"; left out: {'; '.join(reasons)}" if reasons else ""
    return StudyCorrection(correction, note + left_out)


def _measured_trials(study: Path) -> Iterator[TrialResult]:
    if not (study / "trials").is_dir():
        raise OptimizerError(f"{study} is no study's folder: it has no trials/. Give runs/NAME of a measured study")
    for path in sorted(study.glob("trials/*/result.json")):
        try:
            trial = TrialResult.model_validate_json(path.read_text())
        except (OSError, ValidationError):
            raise OptimizerError(f"{path} is no trial's result. Give a study that this version can read") from None
        if trial.state is TrialState.COMPLETE and trial.provenance is Provenance.MEASURED and not trial.reason:
            yield trial


def _simulated(config: EngineConfig, model: str, sku: str) -> EngineConfig:
    """The config on its SKU."""
    hardware = {"sku": sku, "count": config.tensor_parallel_size}
    unset = {name: EngineConfig.model_fields[name].default for name in _NOT_OF_A_SIMULATION}
    values = config.model_dump() | unset | {"model": model, "engine": "simulated", "hardware": hardware}
    return EngineConfig.model_validate(values)


def _objection(
    trial: TrialResult,
    config: EngineConfig,
    backend: SimulatedBackend,
    model: str,
    replay: SimulatedReplay,
    records: list[RequestRecord],
) -> str:
    """Why a trial says nothing; empty when it does."""
    if Path(trial.config.model).name.lower() != Path(model).name.lower():
        return f"it served {Path(trial.config.model).name}, not {Path(model).name}"
    if config.speculative_config is not None:
        return "it speculated, and how much was accepted is not in its records"
    if refusals := backend.check(config):
        return refusals[0].reason
    if not {"mean_ttft_ms", "mean_tpot_ms"} <= trial.metrics.keys():
        return "it has no mean TTFT and TPOT"
    if config.enable_prefix_caching and not _is_known(records, replay):
        return "its requests are not in this workload, so what its prefix cache held is not known"
    return ""


def _is_known(records: list[RequestRecord], replay: SimulatedReplay) -> bool:
    return {record.request_id for record in records} <= {request.request_id for request in replay.requests}


def _run(
    trial: TrialResult,
    config: EngineConfig,
    backend: SimulatedBackend,
    replay: SimulatedReplay,
    records: list[RequestRecord],
) -> MeasuredRun:
    serving = backend.serving(config)
    return MeasuredRun(
        traffic=_traffic(records, replay),
        settings=serving.settings,
        oracle=serving.oracle,
        mean_ttft_s=trial.metrics["mean_ttft_ms"] / 1e3,
        mean_tpot_s=trial.metrics["mean_tpot_ms"] / 1e3,
    )


def _traffic(records: list[RequestRecord], replay: SimulatedReplay) -> Traffic:
    """Who was answered, as they came."""
    answered = sorted(
        (record for record in records if record.status == "ok" and record.output_tokens),
        key=lambda record: record.intended_start_s,
    )
    whole, hashes = replay.traffic, None
    if whole.block_hashes is not None and _is_known(records, replay):
        rows = {request.request_id: row for row, request in enumerate(replay.requests)}
        hashes = [whole.block_hashes[rows[record.request_id]] for record in answered]
    first_s = answered[0].intended_start_s if answered else 0.0
    return Traffic(
        arrival_s=np.array([record.intended_start_s - first_s for record in answered]),
        input_tokens=np.array([record.input_tokens for record in answered], np.int64),
        output_tokens=np.array([record.output_tokens for record in answered], np.int64),
        block_hashes=hashes,
        hash_block_tokens=whole.hash_block_tokens,
    )
