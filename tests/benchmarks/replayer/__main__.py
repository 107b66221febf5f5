"""How true load generators are (performance.md, P5): `python -m tests.benchmarks.replayer --help`, from the root.

Every tool sends the same streamed completions at the same constant rates to one mock server that keeps the truth, with
the tool pinned to one core and the mock to another. Prints what each says beside what was; gates nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.replayer.aiperf import aiperf
from tests.benchmarks.replayer.figures import figures, mock_figures, stall_charged
from tests.benchmarks.replayer.guidellm import guidellm
from tests.benchmarks.replayer.inference_perf import inference_perf
from tests.benchmarks.replayer.load_generator import Job, LoadGenerator, ToolError
from tests.benchmarks.replayer.mock_server import Timing, mock_server
from tests.benchmarks.replayer.ours import ours, ours_poisson
from tests.benchmarks.replayer.raw_driver import raw_driver
from tests.benchmarks.replayer.vllm_bench import vllm_bench

TOOLS: dict[str, LoadGenerator] = {
    "raw": raw_driver,
    "ours": ours,
    "ours-poisson": ours_poisson,
    "vllm": vllm_bench,
    "guidellm": guidellm,
    "inference-perf": inference_perf,
    "aiperf": aiperf,
}
ROWS = {
    "requests": ("num_requests",),
    "achieved rate, requests/s": ("achieved_rate",),
    "schedule lag at the mock p50 / p99, ms": ("lag_p50_ms", "lag_p99_ms"),
    "schedule lag p99 as the tool says, ms": ("own_lag_p99_ms",),
    "TTFT p50 said / since received, ms": ("ttft_p50_ms", "ttft_p50_true_ms"),
    "TTFT p99 said / since intended, ms": ("ttft_p99_ms", "ttft_p99_true_ms"),
    "TTFT added p50 / p99, ms": ("ttft_added_p50_ms", "ttft_added_p99_ms"),
    "E2EL p50 said / since received, ms": ("e2el_p50_ms", "e2el_p50_true_ms"),
    "E2EL p99 said / since intended, ms": ("e2el_p99_ms", "e2el_p99_true_ms"),
}


def main() -> None:
    """Measure, print, and write the figures where asked to."""
    options = _options()
    timing, cores = Timing(options.first_ms / 1000, options.gap_ms / 1000), sorted(os.sched_getaffinity(0))
    client, server = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    console = Console(width=options.width)
    found: dict[str, Any] = {"environment": environment(), "headroom": None, "tools": {}}
    console.print(", ".join(f"{name}: {value}" for name, value in found["environment"].items()))
    with mock_server(timing, server) as mock, tempfile.TemporaryDirectory() as folder:
        bench = _Bench(mock, timing, client, options, options.folder or Path(folder))
        if not options.no_headroom:
            found["headroom"] = bench.headroom(2 * max(options.rates))
            console.print(f"the mock at {2 * max(options.rates):g} requests/s from a raw driver: {found['headroom']}")
        for name in options.tools:
            found["tools"][name] = bench.measure(name)
            console.print(_table(name, found["tools"][name]))
            if options.json:
                options.json.write_text(json.dumps(found, indent=1))


class _Bench:
    def __init__(self, mock: Any, timing: Timing, core: int | None, options: Any, folder: Path) -> None:
        self.mock, self.timing, self.core, self.options, self.folder = mock, timing, core, options, folder
        self.pythons = dict(pair.split("=", 1) for pair in options.python)

    def headroom(self, rate: float) -> dict[str, Any]:
        """What the mock does at a rate that no tool is asked for."""
        self.mock.reset()
        try:
            said = raw_driver(self._job("raw", rate))
        except ToolError as error:
            return {"error": str(error)}
        truth = self.mock.truth()
        rates = {"achieved_rate": figures(said, truth, rate, self.timing).achieved_rate}
        return {name: round(value, 3) for name, value in (rates | mock_figures(truth, self.timing)._asdict()).items()}

    def measure(self, name: str) -> dict[str, Any]:
        """Figures by rate, the share of a stall that is charged, and errors in the tool's words."""
        column: dict[str, Any] = {}
        for rate in self.options.rates:
            try:
                self.mock.reset()
                said = TOOLS[name](self._job(name, rate))
                one = figures(said, self.mock.truth(), rate, self.timing)
                column[f"{rate:g}"] = one._asdict() | {"mock": one.mock._asdict()}
            except ToolError as error:
                column[f"{rate:g}"] = {"error": str(error)}
        if not self.options.no_stall:
            column["stall"] = self._stall(name, self.options.stall_rate)
        return column

    def _stall(self, name: str, rate: float) -> dict[str, Any]:
        job = self._job(name, rate)
        try:
            self.mock.reset(32 + job.count // 2)
            share, total_s = stall_charged(TOOLS[name](job), self.mock.truth(), rate, self.timing)
        except ToolError as error:
            return {"error": str(error)}
        return {"rate": rate, "charged_percent": 100 * share, "true_excess_s": total_s}

    def _job(self, name: str, rate: float) -> Job:
        count, python = round(rate * self.options.seconds), self.pythons.get(name)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-{rate:g}-", dir=self.folder))
        python_path = Path(python).absolute() if python else None
        return Job(self.mock.base_url, rate, count, self.core, python_path, self.options.tokenizer.resolve(), folder)


def environment() -> dict[str, str]:
    """The machine and the commit."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "system": platform.platform(),
        "processor": f"{os.cpu_count()} x {cpu[0].partition(':')[2].strip() if cpu else platform.processor()}",
        "load": f"{os.getloadavg()[0]:.1f}",
        "Python": platform.python_version(),
        "commit": git.stdout.strip(),
    }


def _table(name: str, column: dict[str, Any]) -> Table:
    rates = [rate for rate in column if rate != "stall"]
    table = Table("", *(f"{rate} requests/s" for rate in rates), title=name)
    for title, keys in ROWS.items():
        table.add_row(title, *(_cell(column[rate], keys) for rate in rates))
    table.add_row(
        "mock's core in use", *(f"{column[r]['mock']['cpu_share']:.0%}" if "mock" in column[r] else "" for r in rates)
    )
    for rate in rates:
        if "error" in column[rate]:
            table.caption = f"{table.caption or ''}at {rate}: {column[rate]['error']} "
    stall = column.get("stall")
    if stall:
        words = (
            stall.get("error") or f"{stall['charged_percent']:.0f}% of a 100 ms stall charged at {stall['rate']:g}/s"
        )
        table.caption = f"{table.caption or ''}{words}"
    return table


def _cell(figure: dict[str, Any], keys: tuple[str, ...]) -> str:
    values = [figure.get(key) for key in keys]
    return " / ".join("-" if value is None else f"{value:.2f}".removesuffix(".00") for value in values)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), default=["raw", "ours", "ours-poisson"])
    parser.add_argument("--python", action="append", default=[], metavar="TOOL=PATH", help="its environment's python")
    parser.add_argument("--tokenizer", type=Path, default=Path("workloads/demo/models/target"))
    parser.add_argument("--rates", type=float, nargs="+", default=[100, 250, 500, 1000])
    parser.add_argument("--seconds", type=int, default=10, help="of traffic at each rate")
    parser.add_argument("--stall-rate", type=float, default=100)
    parser.add_argument("--first-ms", type=float, default=20)
    parser.add_argument("--gap-ms", type=float, default=10)
    parser.add_argument("--no-headroom", action="store_true", help="do not measure the mock at twice the highest rate")
    parser.add_argument("--no-stall", action="store_true")
    parser.add_argument("--width", type=int, default=150)
    parser.add_argument("--folder", type=Path, help="keep what the tools write here")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
