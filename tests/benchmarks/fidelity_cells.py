"""The measured side of `simulator_fidelity.py`: configs x loads x rounds on the bundled engine, a folder a visit.

A visit takes one config: saturation probe, then the window at shares of the capacity that the config's first probe
found. Whatever a visit has measured is kept and not measured again, so that a run may be cut and go on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from engine.backend import Server
from engine.bundled.step_log import StepRecord, from_parquet, to_parquet
from engine.bundled_backend import BundledBackend
from engine.config import EngineConfig
from engine.warm_backend import WarmBackend
from optimizer.client import Client
from optimizer.environment import describe_environment
from optimizer.fidelity import TrialWindow
from optimizer.measurement import statistics_difference, warm_up
from optimizer.placement import plan_placement
from optimizer.saturation import saturate
from workloads.records import RequestRecord, read_records, write_records

LOADS: Final = (0.5, 0.7, 0.85, 0.95)  # shares of each config's capacity
PROBE: Final = "probe"
PROBE_S: Final = 4.0
MAX_SECONDS_A_VISIT: Final = 75.0

CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "default": {},
    "seqs 8": {"max_num_seqs": 8},
    "seqs 16, 256 tokens": {"max_num_seqs": 16, "max_num_batched_tokens": 256},
    "no prefix cache": {"enable_prefix_caching": False},
    "512 tokens, no prefix cache": {"max_num_batched_tokens": 512, "enable_prefix_caching": False},
    "int8": {"quantization": {"weights": "int8"}},
    "int8, seqs 16, 512 tokens": {
        "quantization": {"weights": "int8"},
        "max_num_seqs": 16,
        "max_num_batched_tokens": 512,
    },
    "int4_g64": {"quantization": {"weights": "int4_g64"}},
    "int4_g64, no prefix cache": {"quantization": {"weights": "int4_g64"}, "enable_prefix_caching": False},
    "float32": {"dtype": "float32"},
    "float32, seqs 16, 512 tokens": {"dtype": "float32", "max_num_seqs": 16, "max_num_batched_tokens": 512},
    "ngram k=4": {"speculative_config": {"method": "ngram", "num_speculative_tokens": 4}},
    "ngram k=4, seqs 16, 256 tokens": {
        "speculative_config": {"method": "ngram", "num_speculative_tokens": 4},
        "max_num_seqs": 16,
        "max_num_batched_tokens": 256,
    },
    "suffix k=8": {"speculative_config": {"method": "suffix", "num_speculative_tokens": 8}},
    "suffix k=8, no prefix cache": {
        "speculative_config": {"method": "suffix", "num_speculative_tokens": 8},
        "enable_prefix_caching": False,
    },
    "int8, ngram k=4": {
        "quantization": {"weights": "int8"},
        "speculative_config": {"method": "ngram", "num_speculative_tokens": 4},
    },
}


CALIBRATING: Final = ("default", "int8", "int4_g64", "float32", "ngram k=4", "suffix k=8")  # a format, a drafter each


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What one visit to a config left in its folder."""

    folder: Path

    @property
    def capacity_path(self) -> Path:
        return self.folder / "capacity.json"

    def steps_path(self, cell: str) -> Path:
        """Of the probe or of a load; the warm-up before it is among them."""
        return self.folder / f"steps-{cell}.parquet"

    def steps(self, cell: str) -> list[StepRecord]:
        return from_parquet(self.steps_path(cell).read_bytes())

    def capacity(self) -> float:
        """Input plus output tokens a second."""
        return float(json.loads(self.capacity_path.read_text())["tokens_per_second"])

    def records_path(self, load: float) -> Path:
        return self.folder / f"{cell_of(load)}.parquet"

    def records(self, load: float) -> list[RequestRecord]:
        return read_records(self.records_path(load))

    def statistics(self, load: float) -> dict[str, Any]:
        """Differences of the engine's counters over the replay, and why it is void (empty: it is not)."""
        values: dict[str, Any] = json.loads(self.records_path(load).with_suffix(".json").read_text())
        return values

    @property
    def is_complete(self) -> bool:
        return (self.folder / "complete").exists()


def cell_of(load: float) -> str:
    """A load's name in file names."""
    return f"load-{100 * load:.0f}"


def visit_of(folder: Path, name: str, number: int) -> Visit:
    return Visit(folder=folder / f"round-{number}" / name.replace(", ", "+").replace(" ", "_"))


def config_named(name: str, model: Path) -> EngineConfig:
    return EngineConfig.model_validate({"model": str(model), **CONFIGS[name]})


def measure(folder: Path, model: Path, window: TrialWindow, *, num_rounds: int, seconds: float) -> int:
    """Measure what is missing until `seconds` are spent; how many visits are still missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "environment.json").write_text(json.dumps(describe_environment()))
    placement = plan_placement()
    cpus = None if placement.engine_cores is None else frozenset(placement.engine_cores)
    end = time.monotonic() + seconds
    plan = [(number, name) for number in range(num_rounds) for name in sorted(CONFIGS, key=_order)]
    missing = [(number, name) for number, name in plan if not visit_of(folder, name, number).is_complete]
    with WarmBackend(BundledBackend(cpus=cpus, reconfigurable=True)) as backend:
        while missing and time.monotonic() + MAX_SECONDS_A_VISIT < end:
            number, name = missing.pop(0)
            visit, first, begin = visit_of(folder, name, number), visit_of(folder, name, 0), time.monotonic()
            config = config_named(name, model)
            with backend.launch(config, log_path=visit.folder / "engine.log") as server:
                _visit(Client(server=server, placement=placement), config, visit, first, window)
            took_s = time.monotonic() - begin
            print(f"round {number}, {name}: {took_s:.1f} s, {visit.capacity():.0f} tokens/s", flush=True)
    return len(missing)


def _order(name: str) -> bool:
    return name not in CALIBRATING


def _visit(client: Client, config: EngineConfig, visit: Visit, first: Visit, window: TrialWindow) -> None:
    visit.folder.mkdir(parents=True, exist_ok=True)
    steps = _NewSteps(client.server)
    if not visit.capacity_path.exists():
        warm_up(client, window)
        found = saturate(client, window.probe, concurrency=config.max_num_seqs, probe_s=PROBE_S)
        visit.steps_path(PROBE).write_bytes(steps.take())
        values = {"tokens_per_second": found.value, "low": found.low, "high": found.high}
        visit.capacity_path.write_text(json.dumps(values))
    for load in LOADS:
        if not visit.records_path(load).exists():
            _replay(client, visit, load, load * first.capacity() / window.tokens_per_second, window, steps)
    (visit.folder / "complete").touch()


class _NewSteps:
    """The engine's step log, as parquet, from where it was last read."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._last_s = -1.0

    def take(self) -> bytes:
        log = self._server.steps()
        assert log is not None, "the bundled engine keeps a step log"
        records = [record for record in from_parquet(log) if record.start_s > self._last_s]
        self._last_s = records[-1].start_s
        return to_parquet(records)


def _replay(client: Client, visit: Visit, load: float, speedup: float, window: TrialWindow, steps: _NewSteps) -> None:
    warm_up(client, window)
    before = client.server.statistics()
    result = client.send(window.window, speedup=speedup)
    gained = statistics_difference(client.server.statistics(), before)
    visit.steps_path(cell_of(load)).write_bytes(steps.take())
    values = {"speedup": speedup, "void": result.void_reason or "", **asdict(gained)}
    visit.records_path(load).with_suffix(".json").write_text(json.dumps(values))
    write_records(visit.records_path(load), result.records)
