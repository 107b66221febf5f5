"""How many requests a decision takes (performance.md, P9): run `python -m tests.benchmarks.short_trials`.

Made-up machines serve 3,000 requests in the simulator, each with configs drawn from the bundled space. As in a study,
configs come one after the other, and each is kept, rejected for an SLO, or found to be dominated (quality, p95 E2EL,
cost) by one that was kept before. The full trace says which; the stop rules say it earlier, on the same records, or
replay to the end. Counted are the requests that were *sent* by then. `hardest first` begins the trace where its
arrivals pile up most, and is compared with the decision on the trace as it was recorded. A rejection is the same when
its reason is true of the full trace (what violates an SLO is often dominated too). `independent` is P9's second half:
requests without a queue, 1% of which may be above a limit.

Prints figures; gates nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.benchmarks.short_trials.agreement import Row, row_of
from tests.benchmarks.short_trials.independent import independent
from tests.benchmarks.short_trials.study import Verdict, study
from tests.benchmarks.short_trials.traffic import CASES
from workloads.stopping.limit_test import ALPHA


def report(rows: Sequence[Row], environment: dict[str, str], alone: dict[str, float]) -> None:
    print("; ".join(f"{key} {value}" for key, value in environment.items()))
    table = Table(
        *("traffic", "full decision", "n", "same decision", "95%", "fewer requests", "kept ones whole"),
        *("median sent", "to the end"),
    )
    for r in rows:
        ends = f"{r.low:.1%} to {r.high:.1%}"
        cells = (str(r.n), f"{r.agreement:.1%}", ends, f"{r.fewer:.1f}x", f"{r.fewer_if_kept_whole:.1f}x")
        cells += (f"{r.median_sent:.0f}", str(r.undecided))
        table.add_row(r.case, r.decision, *cells)
    Console(width=140).print(table)
    print(
        f"independent requests, 5% above a limit that 1% may exceed: rejected in a median of {alone['median']:.0f} "
        f"[{alone['low']:.0f}, {alone['high']:.0f}] requests, mean {alone['mean']:.0f} "
        f"({alone['n']:.0f} runs, α = {ALPHA})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=3)
    parser.add_argument("--configs", type=int, default=40, help="a machine")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    verdicts: list[Verdict] = []
    for rotate in (False, True):
        for case in CASES:
            for seed in range(arguments.machines):
                verdicts += study(case, seed, arguments.configs, arguments.requests, rotate=rotate)
    rows = []
    for name in dict.fromkeys(v.case for v in verdicts):
        mine = [v for v in verdicts if v.case == name]
        rows.append(row_of(name, "all", mine))
        for decision in ("violated", "dominated", "kept"):
            if some := [v for v in mine if v.full[0] == decision]:
                rows.append(row_of(name, decision, some))
    for rotated in (False, True):
        some = [v for v in verdicts if v.case.endswith("hardest first") is rotated]
        rows.append(row_of("all, hardest first" if rotated else "all", "all", some))
    alone = independent(400)
    environment = {
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "machines": str(arguments.machines),
        "configs": str(arguments.configs),
        "requests": str(arguments.requests),
        "seconds": f"{time.perf_counter() - begin:.0f}",
    }
    report(rows, environment, alone)
    if arguments.json:
        content = {"environment": environment, "rows": [asdict(r) for r in rows], "independent": alone}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
