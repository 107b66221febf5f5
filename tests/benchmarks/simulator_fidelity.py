"""How true the simulator is to the bundled engine (P3): predicted beside measured, and measured beside measured.

    python -m tests.benchmarks.simulator_fidelity --work DIR --measure --seconds 290   # repeat until nothing is missing
    python -m tests.benchmarks.simulator_fidelity --work DIR --json DIR/result.json

Measures configs of the bundled space at shares of their capacity (`fidelity_cells.py`), the engine and the client on
cores of their own as in `fopt run`. Calibrates on one trial (saturation probe and one load) of one config per number
format and per drafter, and predicts every other cell. Nothing is tuned by hand. The noise floor is the difference of
two measured rounds of the same cell: nobody predicts better than that.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.backend import EngineStatistics
from engine.bundled.step_log import StepRecord
from engine.simulated_backend import SimulatedBackend
from engine.simulator.calibrated import Calibrator, MeasuredSteps
from engine.simulator.oracle import StepTimeOracle
from engine.simulator.step_times import Calibration, drafter, number_format
from optimizer.fidelity import TrialWindow, choose_window
from optimizer.measured_speculation import acceptance_profile, tokens_per_step
from optimizer.predicted_capacity import predict, saturated_tokens_per_second
from optimizer.prompt_tokens import PromptTokenizer
from optimizer.request_overhead import RequestOverhead, fitted_overhead
from optimizer.simulated_replay import SimulatedReplay, simulated_replay
from search_spaces.skus import load_skus
from tests.benchmarks.fidelity_cells import (
    CALIBRATING,
    CONFIGS,
    LOADS,
    PROBE,
    Visit,
    cell_of,
    config_named,
    measure,
    visit_of,
)
from tests.benchmarks.fidelity_report import METRICS, Capacities, Cell, print_summary, summary
from workloads.errors import UndefinedMetricError
from workloads.metrics import ServingMetrics, summarize
from workloads.parquet import read_workload

WINDOW_S = 17.0  # 512 requests of the demo: a p99 needs 500


def main() -> None:
    arguments = parse_arguments()
    window = choose_window(read_workload(arguments.workload), WINDOW_S, num_warmup=8)
    if arguments.measure:
        missing = measure(
            arguments.work, arguments.model, window, num_rounds=arguments.rounds, seconds=arguments.seconds
        )
        print(f"{missing} visits are missing" if missing else "everything is measured")
        return
    predictor = Predictor(arguments, window)
    names = [name for name in CONFIGS if visit_of(arguments.work, name, 0).is_complete]
    cells = [predictor.cell(name, load) for name in names for load in LOADS]
    capacities = {name: predictor.capacities(name) for name in names}
    environment = json.loads((arguments.work / "environment.json").read_text())
    result = {"environment": environment, **predictor.provenance(), **summary(cells, capacities)}
    print_basis(result)
    print_summary(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the measured cells")
    parser.add_argument("--measure", action="store_true", help="measure what is missing there, and stop")
    parser.add_argument("--seconds", type=float, default=290, help="start no visit that would not end within")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", type=Path, default=Path("workloads/demo/models/target"))
    parser.add_argument("--workload", type=Path, default=Path("workloads/demo/workload.parquet"))
    parser.add_argument("--calibrating-load", type=float, default=0.5, choices=LOADS)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


class Predictor:
    """The simulator, calibrated on the first visit to each calibrating config whose steps were kept."""

    def __init__(self, arguments: argparse.Namespace, window: TrialWindow) -> None:
        self._work, self._model, self._load = arguments.work, arguments.model, arguments.calibrating_load
        self._rounds: int = arguments.rounds
        tokens = PromptTokenizer(arguments.model)
        self._window = simulated_replay(window.window, closed_loop=True, token_ids=tokens)
        self._probe = simulated_replay(window.probe, closed_loop=True, token_ids=tokens)
        trials, profiles, self._tokens_per_step = [], {}, {}
        for name in CALIBRATING:
            visit, config = self._calibrating_visit(name), config_named(name, self._model)
            trials.append((measured_steps(visit, name, self._model, PROBE, cell_of(self._load)), config))
            if method := drafter(config):
                records = visit.records(self._load)
                profiles[method] = acceptance_profile(records, statistics_of(visit, self._load))
                self._tokens_per_step[method] = tokens_per_step(records)
        local = load_skus()["local"].model_copy(update={"memory_gib": 16.0})
        self._backend = SimulatedBackend({"local": local}, calibration=Calibration(trials), acceptance=profiles)
        self._overhead = self._fitted_overhead()

    def _calibrating_visit(self, name: str) -> Visit:
        visits = [visit_of(self._work, name, number) for number in range(self._rounds)]
        return next(visit for visit in visits if visit.is_complete and visit.steps_path(cell_of(self._load)).exists())

    def _fitted_overhead(self) -> RequestOverhead:
        """From the default config's calibrating replay."""
        visit = self._calibrating_visit(CALIBRATING[0])
        settings, oracle = self._backend.serving(config_named(CALIBRATING[0], self._model))
        speed = visit.statistics(self._load)["speedup"]
        return fitted_overhead(self._window, settings, oracle, visit.records(self._load), speed=speed)

    def provenance(self) -> dict[str, Any]:
        """What the predictions rest on, as JSON."""
        servings = {name: self._backend.serving(config_named(name, self._model)) for name in CALIBRATING}
        return {
            "calibrating_configs": len(CALIBRATING),
            "calibrating_load": self._load,
            "request_overhead_ms": 1000 * self._overhead.request_overhead_s,
            "delivery_share": self._overhead.delivery_share,
            "step_times": {name: serving.oracle.provenance.sentence() for name, serving in servings.items()},
        }

    def cell(self, name: str, load: float) -> Cell:
        visits = [visit for visit in self._visits(name) if not visit.statistics(load)["void"]]
        config = config_named(name, self._model)
        settings, oracle = self._backend.serving(config)
        settings = replace(settings, **self._overhead._asdict())
        speed = self._visits(name)[0].statistics(load)["speedup"]
        replay = self._with_acceptance(self._window, drafter(config))
        predicted = predict(replay, settings, oracle, speed=speed)
        own = [self._own_oracle(visit, name, load) for visit in visits]
        return Cell(
            config=name,
            load=load,
            calibrating=name in CALIBRATING and load == self._load,
            measured=tuple(values(summarize(visit.records(load))) for visit in visits),
            predicted=values(predicted),
            from_own_steps=tuple(
                None if oracle is None else values(predict(replay, settings, oracle, speed=speed)) for oracle in own
            ),
            step_drift=tuple(
                step_drift(visit.steps(cell_of(load)), oracle) if mine is not None else None
                for visit, mine in zip(visits, own, strict=True)
            ),
        )

    def _own_oracle(self, visit: Visit, name: str, load: float) -> StepTimeOracle | None:
        """Calibrated on the cell itself; None without its steps."""
        if not visit.steps_path(cell_of(load)).exists():
            return None
        steps = measured_steps(visit, name, self._model, cell_of(load))
        return Calibrator([steps]).oracle(steps.number_format, steps.drafter) if len(steps.records) > 100 else None

    def capacities(self, name: str) -> Capacities:
        config = config_named(name, self._model)
        settings, oracle = self._backend.serving(config)
        replay = self._with_acceptance(self._probe, drafter(config))
        settings = replace(settings, **self._overhead._asdict())
        return Capacities(
            measured=tuple(visit.capacity() for visit in self._visits(name)),
            predicted=saturated_tokens_per_second(replay.traffic, settings, oracle),
        )

    def _visits(self, name: str) -> list[Visit]:
        visits = [visit_of(self._work, name, number) for number in range(self._rounds)]
        return [visit for visit in visits if visit.is_complete]

    def _with_acceptance(self, replay: SimulatedReplay, method: str) -> SimulatedReplay:
        if not method:
            return replay
        own = self._tokens_per_step[method]
        column = np.array([max(1.0, own.get(request.request_id, math.nan)) for request in replay.requests])
        return replace(replay, traffic=replace(replay.traffic, tokens_per_step=column))


def step_drift(records: Sequence[StepRecord], oracle: StepTimeOracle) -> float:
    """Seconds that steps took, with the gaps after them, over what the oracle says of them."""
    whole = [record for record in records if record.gap_s is not None]
    took_s = sum(record.duration_s + (record.gap_s or 0.0) for record in whole)
    said_s = sum(
        oracle.step_s(
            r.num_prefill_seqs,
            r.num_prefill_tokens,
            r.num_prefill_context_tokens,
            r.num_decode_seqs,
            r.num_decode_context_tokens,
            r.num_draft_tokens,
        )
        for r in whole
    )
    return took_s / said_s


def measured_steps(visit: Visit, name: str, model: Path, *cells: str) -> MeasuredSteps:
    config = config_named(name, model)
    records = [record for cell in cells for record in visit.steps(cell)]
    return MeasuredSteps(records=records, name=name, number_format=number_format(config), drafter=drafter(config))


def statistics_of(visit: Visit, load: float) -> EngineStatistics:
    found = visit.statistics(load)
    counters = {field.name: found[field.name] for field in fields(EngineStatistics) if field.name != "extra"}
    places = tuple(counters.pop("accepted_tokens_per_position"))
    return EngineStatistics(**counters, accepted_tokens_per_position=places)


def values(metrics: ServingMetrics) -> dict[str, float]:
    found = {}
    for name in METRICS:
        try:
            found[name] = metrics.value(name)
        except UndefinedMetricError:
            found[name] = math.nan
    return found


def print_basis(result: Mapping[str, Any]) -> None:
    print(", ".join(f"{name} {value}" for name, value in result["environment"].items()))
    print(
        f"{result['configs']} configs at {result['cells']} loads in all; calibrated on a saturation probe and the load "
        f"{result['calibrating_load']:.0%} of {result['calibrating_configs']} of them "
        f"({result['calibrating_cells']} of the cells); request overhead {result['request_overhead_ms']:.2f} ms, "
        f"tokens arrive {result['delivery_share']:g} of a step after it"
    )
    for name, sentence in result["step_times"].items():
        print(f"  {name}: {sentence}")


if __name__ == "__main__":
    main()
