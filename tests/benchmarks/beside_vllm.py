"""The bundled engine beside vLLM's CPU build on the same model, cores and requests (performance.md, P8).

    python -m tests.benchmarks.beside_vllm --vllm-python PATH [--at-once 1 32] [--pairs 5] [--json FILE]

Both servers stay up, on the cores the load generator leaves; an idle one takes a few percent of a core. Each pass sends
the same requests at fixed concurrency with pinned lengths over HTTP and counts output tokens per second of wall clock.
Passes are interleaved A B B A; a ratio is ours over vLLM's of neighbouring passes, with a bootstrap 95% interval of the
median.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from pathlib import Path

import numpy as np

from engine.backend import Server
from engine.bundled_backend import BundledBackend
from engine.config import EngineConfig
from engine.vllm_server.backend import VllmBackend
from optimizer.client import Client
from optimizer.environment import describe_environment
from optimizer.placement import Placement, plan_placement
from tests.benchmarks.draft_length_by_load import ratio
from tests.benchmarks.speculation_by_task import commit
from workloads.parquet import read_workload
from workloads.workload import Workload


def main() -> None:
    arguments = parse_arguments()
    placement = plan_placement()
    workload = read_workload(arguments.workload)
    cpus = frozenset(placement.engine_cores) if placement.engine_cores else None
    where = f"{describe_environment()}, {placement.note}, commit {commit()}"
    print(where)
    rows = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        values = {"model": str(arguments.model), "max_model_len": 1024, "max_num_seqs": 64}
        ours = stack.enter_context(
            BundledBackend(cpus=cpus).launch(
                EngineConfig.model_validate(values), log_path=Path(folder) / "bundled" / "engine.log"
            )
        )
        theirs = stack.enter_context(
            VllmBackend(python=arguments.vllm_python, cpus=cpus).launch(
                EngineConfig.model_validate(values | {"engine": "vllm", "enforce_eager": arguments.eager}),
                log_path=Path(folder) / "vllm" / "engine.log",
            )
        )
        for at_once in arguments.at_once:
            share = workload[: arguments.requests if at_once > 1 else arguments.requests // 4]
            rows.append(row(ours, theirs, share, at_once, placement, arguments.pairs))
    if arguments.json:
        arguments.json.write_text(json.dumps({"environment": where, "rows": rows}, indent=1) + "\n")


def row(
    ours: Server, theirs: Server, workload: Workload, at_once: int, placement: Placement, pairs: int
) -> dict[str, object]:
    for server in (ours, theirs):
        rate(server, workload, at_once, placement)  # warm
    mine, others = [], []
    for pair in range(pairs):
        order = [(ours, mine), (theirs, others)]
        for server, rates in order[:: 1 if pair % 2 == 0 else -1]:
            rates.append(rate(server, workload, at_once, placement))
    times = ratio(mine, others)
    print(
        f"{at_once:3d} at once, {len(workload)} requests: ours {np.median(mine):.0f} tokens/s, vLLM "
        f"{np.median(others):.0f}, {times} times as many (n = {pairs} pairs)",
        flush=True,
    )
    return {"at_once": at_once, "ours": mine, "vllm": others, "ratio": times._asdict()}


def rate(server: Server, workload: Workload, at_once: int, placement: Placement) -> float:
    """Output tokens per second from the first request sent to the last token."""
    server.reset_prefix_cache()
    client = Client(server=server, placement=placement, hang_s=120)
    records = client.send(workload, mode="concurrency", concurrency=at_once).records
    assert all(record.status == "ok" for record in records), "every request was answered"
    begin = min(record.sent_s for record in records)
    end = max(record.end_s for record in records)
    return sum(record.output_tokens for record in records) / (end - begin)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm-python", type=Path, required=True)
    parser.add_argument("--workload", type=Path, default=Path("workloads/demo/heldout.parquet"))
    parser.add_argument("--model", type=Path, default=Path("workloads/demo/models/target"))
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--eager", action="store_true", help="vLLM without compiled steps")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
