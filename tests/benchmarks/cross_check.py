"""The clocks of `fopt` and of `vllm bench serve` or GuideLLM on the same server and prompts, run in turns A B B A.

    python -m tests.benchmarks.cross_check --target bundled --load concurrency=4 --vllm-python ENV/bin/python --out DIR
    python -m tests.benchmarks.cross_check --target vllm --load rate=4 --vllm-python ENV/bin/python --out DIR
    python -m tests.benchmarks.cross_check --target metronome --load concurrency=4 --peer guidellm \\
        --guidellm-python ENV/bin/python --out DIR

ENV holds vLLM (its CPU build will do) and pandas. DIR keeps the prompts and one line a pair: run again with the same
options it goes on until there are --pairs, and prints the table of all. One window takes at most --seconds. Server and
client are pinned to different cores; `--target metronome` is a server of constant answer times, whose noise is not in
the comparison. Neither tool's engine side has a prefix cache here, so that repeating a prompt
costs the same. The demo model by default; prompts are texts of the demo workload, output lengths are pinned.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from engine.backend import Server
from engine.bundled_backend import BundledBackend
from engine.config import EngineConfig
from engine.process import ChildProcess, free_port
from engine.process_server import ProcessServer
from tests.benchmarks.guidellm_clock import guidellm_figures, write_prompts
from workloads.exporters import export_workload
from workloads.metadata import Source, WorkloadMetadata
from workloads.metrics import summarize
from workloads.parquet import read_workload
from workloads.replay.replayer import Replayer
from workloads.request import Request
from workloads.workload import Workload

ROOT = Path(__file__).resolve().parents[2]
NUM_WARMUPS = 8
RESAMPLES = 10_000
WITHIN = 0.03
LATENCIES = ("mean_ttft_ms", "mean_tpot_ms", "mean_e2el_ms")
COUNTS = ("completed", "total_input_tokens", "total_output_tokens")
READY = "imports are done"
START_WHEN_TOLD = f"""
import sys
import vllm.benchmarks.serve
from vllm.entrypoints.cli.main import main
print({READY!r}, flush=True)
sys.stdin.readline()
main()
"""
WHAT_EACH_COUNTS = """\
fopt, intended  TTFT and E2EL start when a request was due, so what it waits in the client counts
fopt, sent      the same records with TTFT and E2EL from the moment of sending (`summarize(records, clock="sent")`)
vllm bench      starts when it sends: after its --max-concurrency semaphore, before the body is encoded
TTFT            both: the first chunk that holds a choice; vllm bench takes it also when its text is empty
E2EL            both: the last chunk with a choice; neither counts the usage chunk nor [DONE]
TPOT            both: (E2EL - TTFT) / (output tokens - 1), mean over requests
ITL             fopt one gap a token, vllm bench one gap a chunk: the same where a chunk holds one token
tokens          both: the usage that the server reports; fopt sends return_token_ids and counts the ids"""

WHAT_GUIDELLM_COUNTS = """\
fopt, intended  TTFT and E2EL start when a request was due, so what it waits in the client counts
fopt, sent      the same records with TTFT and E2EL from the moment of sending
GuideLLM        starts when it sends; no warm-up of its own
E2EL            both to the last token (GuideLLM's own request_latency goes on to the end of the stream)
TPOT            both: (last - first token) / (output tokens - 1); GuideLLM calls it inter-token latency
tokens          both: the usage that the server reports"""


class Load(NamedTuple):
    """A fixed number in flight, or a constant rate in requests/s."""

    kind: str
    amount: float


class Ours(NamedTuple):
    """Our two views of one replay, and how late it sent."""

    intended: dict[str, float]
    sent: dict[str, float]
    p99_lag_ms: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two neighbouring runs on one server; `order` says which came first. Flat metrics of each view."""

    order: str
    intended: dict[str, float]
    sent: dict[str, float]
    theirs: dict[str, float]
    p99_lag_ms: float
    commit: str


def main() -> None:
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    workload = prompts(arguments)
    peer = "" if arguments.peer == "vllm" else f"-{arguments.peer}"
    log = arguments.out / f"pairs-{arguments.target}-{arguments.load.kind}-{arguments.load.amount:g}{peer}.jsonl"
    if len(read_pairs(log)) < arguments.pairs:
        measure(arguments, workload, log)
    report(arguments, read_pairs(log))


def measure(arguments: argparse.Namespace, workload: Workload, log: Path) -> None:
    """Add pairs until there are enough or the window would end before the next does."""
    begin = time.monotonic()
    longest = 0.0
    with TARGETS[arguments.target](arguments) as server, pinned(arguments.client_cpu):
        replay(server, workload, arguments.load)  # unrecorded: compiled steps, file caches
        while (number := len(read_pairs(log))) < arguments.pairs:
            started = time.monotonic()
            if started - begin + 1.3 * longest > arguments.seconds:
                print(f"{number} of {arguments.pairs} pairs; run the same again to go on")
                return
            ours_first = number % 2 == 0
            with PEERS[arguments.peer](server, arguments, workload) as bench:
                theirs = {} if ours_first else bench()
                ours = replay(server, workload, arguments.load)
                theirs = theirs or bench()
            pair = Pair(
                order=f"fopt-{arguments.peer}" if ours_first else f"{arguments.peer}-fopt",
                theirs=theirs,
                commit=commit(),
                **ours._asdict(),
            )
            with log.open("a") as file:
                file.write(json.dumps(asdict(pair)) + "\n")
            longest = max(longest, time.monotonic() - started)


def prompts(arguments: argparse.Namespace) -> Workload:
    """Texts of the demo workload, several joined to one prompt of 100 to 600 tokens; written for both tools."""
    source = [request for request in read_workload(arguments.workload) if request.messages is not None]
    texts = ["\n".join(str(message["content"]) for message in request.chat_messages()) for request in source]
    sizes = np.random.default_rng(0).integers(1, 4, arguments.requests).tolist()
    requests = []
    for number, size in enumerate(sizes):
        joined = [texts[(7 * number + i) % len(texts)] for i in range(size)]
        due = number / arguments.load.amount if arguments.load.kind == "rate" else float(number)
        fields = {"prompt": "\n\n".join(joined), "output_tokens": arguments.output_tokens, "arrival_s": due}
        requests.append(Request(request_id=str(number), **fields))  # type: ignore[arg-type]
    metadata = WorkloadMetadata(name="cross-check", source=Source(format="cross-check"))
    workload = Workload.from_requests(requests, metadata)
    export_workload(workload, arguments.out / "prompts.jsonl", format="vllm-custom")
    return workload


def replay(server: Server, workload: Workload, load: Load) -> Ours:
    warmup = Workload.from_requests(list(workload)[:NUM_WARMUPS], workload.metadata)
    is_rate = load.kind == "rate"
    result = Replayer(
        base_url=server.base_url,
        model=server.model_name,
        mode="open_loop" if is_rate else "concurrency",
        concurrency=None if is_rate else int(load.amount),
        warmup=warmup,
    ).replay(workload)
    views = [summarize(result.records, clock=clock) for clock in ("intended", "sent")]  # type: ignore[arg-type]
    assert views[0].completed == len(workload), [r.error for r in result.records if r.status != "ok"][:1]
    names = (*LATENCIES, "mean_itl_ms", "request_throughput", *COUNTS)
    intended, sent = ({name: view.value(name) for name in names} for view in views)
    return Ours(intended, sent, 1000 * views[0].percentile("schedule_lag", 99))


@contextmanager
def ready_bench(
    server: Server, arguments: argparse.Namespace, _workload: Workload
) -> Iterator[Callable[[], dict[str, float]]]:
    """One run of `vllm bench serve` on the exported prompts, its imports done, so that a pair's runs are neighbours."""
    out: Path = arguments.out
    load: Load = arguments.load
    shape = {
        "rate": ["--request-rate", f"{load.amount:g}", "--burstiness", "inf"],
        "concurrency": ["--max-concurrency", f"{load.amount:g}"],
    }[load.kind]
    options = """--backend openai --endpoint /v1/completions --dataset-name custom --custom-output-len -1
        --disable-shuffle --no-oversample --skip-chat-template --ignore-eos --disable-tqdm --ready-check-timeout-sec 0
        --percentile-metrics ttft,tpot,itl,e2el --save-result --result-filename bench.json"""
    command = [
        *(arguments.vllm_python, "-c", START_WHEN_TOLD, "bench", "serve", *options.split(), *shape),
        *("--base-url", server.base_url, "--model", server.model_name, "--tokenizer", str(arguments.model)),
        *("--dataset-path", str(out / "prompts.jsonl"), "--num-prompts", str(arguments.requests)),
        *("--num-warmups", str(NUM_WARMUPS), "--result-dir", str(out)),
    ]
    (out / "bench.json").unlink(missing_ok=True)
    with (out / "bench.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=vllm_environment(out), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdin is not None
    assert process.stdout is not None
    while (line := process.stdout.readline()) and line != READY.encode() + b"\n":
        pass

    def run() -> dict[str, float]:
        process.communicate(b"go\n")
        assert process.returncode == 0, f"vllm bench serve failed: see {out / 'bench.log'}"
        found = json.loads((out / "bench.json").read_text())
        return {name: found[name] for name in (*LATENCIES, "mean_itl_ms", "request_throughput", *COUNTS)}

    try:
        yield run
    finally:
        process.kill()
        process.wait()


@contextmanager
def guidellm(
    server: Server, arguments: argparse.Namespace, workload: Workload
) -> Iterator[Callable[[], dict[str, float]]]:
    """One run of GuideLLM, which imports and starts its processes within it."""
    rows = arguments.out / "guidellm.jsonl"
    write_prompts(workload, rows)
    load: Load = arguments.load
    shape = {"rate": f"kind=constant,rate={load.amount:g}", "concurrency": f"kind=concurrent,streams={load.amount:g}"}
    assert arguments.guidellm_python is not None, "give --guidellm-python"
    yield lambda: guidellm_figures(
        arguments.guidellm_python,
        base_url=server.base_url,
        model=server.model_name,
        tokenizer=arguments.model,
        prompts=rows,
        profile=shape[load.kind],
        count=arguments.requests,
    )


PEERS = {"vllm": ready_bench, "guidellm": guidellm}
NAMES = {"vllm": "vllm bench", "guidellm": "GuideLLM"}


def vllm_environment(out: Path) -> dict[str, str]:
    """vLLM's CPU build asks for the metadata of a distribution called vllm, which that build does not have."""
    metadata = out / "metadata" / "vllm-0.0.0+cpu.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.0.0+cpu\n")
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    return {**os.environ, **quiet, "PYTHONPATH": str(metadata.parent)}


@contextmanager
def bundled(arguments: argparse.Namespace) -> Iterator[Server]:
    backend = BundledBackend(cpus=frozenset({arguments.server_cpu}))
    config = EngineConfig(
        model=str(arguments.model), num_threads=1, enable_prefix_caching=False, enforce_eager=arguments.eager
    )
    with backend.launch(config, log_path=arguments.out / "server.log") as server:
        yield server


@contextmanager
def vllm(arguments: argparse.Namespace) -> Iterator[Server]:
    port = free_port()
    options = f"--port {port} --host 127.0.0.1 --max-model-len 1024 --no-enable-prefix-caching --enforce-eager"
    serve = [arguments.vllm_python, "-m", "vllm.entrypoints.cli.main", "serve", str(arguments.model), *options.split()]
    command = ["taskset", "-c", str(arguments.server_cpu), *serve, "--served-model-name", "target"]
    bound = {"VLLM_CPU_OMP_THREADS_BIND": str(arguments.server_cpu)}
    env = vllm_environment(arguments.out) | bound
    with ChildProcess(command, log_path=arguments.out / "server.log", env=env) as child:
        server = ProcessServer(child, base_url=f"http://127.0.0.1:{port}", model_name="target")
        server.launch_s = child.wait_healthy(server.is_healthy, timeout_s=180)
        yield server


@contextmanager
def metronome(arguments: argparse.Namespace) -> Iterator[Server]:
    port = free_port()
    program = [sys.executable, "-m", "tests.benchmarks.metronome_server", str(port)]
    command = ["taskset", "-c", str(arguments.server_cpu), *program]
    with ChildProcess(command, log_path=arguments.out / "server.log", cwd=ROOT) as child:
        server = ProcessServer(child, base_url=f"http://127.0.0.1:{port}", model_name="metronome")
        server.launch_s = child.wait_healthy(server.is_healthy, timeout_s=30)
        yield server


TARGETS = {"bundled": bundled, "vllm": vllm, "metronome": metronome}


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """This process and those it starts run on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def read_pairs(log: Path) -> list[Pair]:
    return [Pair(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def ratio_interval(ratios: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, float]:
    """Geometric mean of the pairs' ratios with a 95% percentile bootstrap over pairs."""
    logs = np.log(ratios)
    draws = np.random.default_rng(0).integers(0, len(logs), (RESAMPLES, len(logs)))
    low, high = np.quantile(logs[draws].mean(axis=1), [0.025, 0.975])
    return float(np.exp(logs.mean())), float(np.exp(low)), float(np.exp(high))


def reconcile(pairs: list[Pair]) -> dict[str, dict[str, float]]:
    """By metric: the three means over pairs, and our send-time view over the peer's number with its interval."""
    found = {}
    for name in (*LATENCIES, "mean_itl_ms", "request_throughput"):
        columns = {
            "intended": [pair.intended[name] for pair in pairs],
            "sent": [pair.sent[name] for pair in pairs],
            "theirs": [pair.theirs[name] for pair in pairs],
        }
        means = {view: float(np.mean(values)) for view, values in columns.items()}
        ratio, low, high = ratio_interval(np.array(columns["sent"]) / np.array(columns["theirs"]))
        found[name] = {**means, "ratio": ratio, "low": low, "high": high}
    return found


def report(arguments: argparse.Namespace, pairs: list[Pair]) -> None:
    if not pairs:
        return
    load = f"{arguments.load.kind} {arguments.load.amount:g}"
    title = f"{arguments.target} server, {load}, {arguments.requests} requests a run, {len(pairs)} pairs A B B A"
    peer = NAMES[arguments.peer]
    table = Table("mean of means", "fopt, intended", "fopt, sent", peer, f"sent / {peer}", "", title=title)
    found = reconcile(pairs)
    for name, row in found.items():
        judged = name in LATENCIES
        verdict = ("within 3%" if abs(row["ratio"] - 1) <= WITHIN else "NOT within 3%") if judged else ""
        ratio = f"{row['ratio']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
        table.add_row(name, f"{row['intended']:.4g}", f"{row['sent']:.4g}", f"{row['theirs']:.4g}", ratio, verdict)
    for name in COUNTS:
        ours, theirs = ({int(getattr(pair, view)[name]) for pair in pairs} for view in ("sent", "theirs"))
        shown = [", ".join(map(str, sorted(values))) for values in (ours, theirs)]
        table.add_row(name, shown[0], shown[0], shown[1], "", "equal" if ours == theirs else "NOT equal")
    console = Console(width=130)
    console.print(table)
    console.print(f"p99 schedule lag of fopt: {max(pair.p99_lag_ms for pair in pairs):.3f} ms at most")
    console.print(WHAT_EACH_COUNTS if arguments.peer == "vllm" else WHAT_GUIDELLM_COUNTS, highlight=False)
    if arguments.json is not None:
        settings = {name: str(value) for name, value in vars(arguments).items() if name in REPORTED}
        about = {"machine": platform.machine(), "cpus": os.cpu_count(), **settings}
        body = {"about": about, "load": load, "reconciled": found, "pairs": [asdict(pair) for pair in pairs]}
        arguments.json.write_text(json.dumps(body, indent=1) + "\n")


REPORTED = ("target", "peer", "requests", "output_tokens", "server_cpu", "client_cpu", "eager")


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def parse_load(text: str) -> Load:
    kind, _, amount = text.partition("=")
    if kind not in ("rate", "concurrency"):
        raise argparse.ArgumentTypeError("write rate=4 or concurrency=4")
    return Load(kind, float(amount))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument(
        "--load", type=parse_load, required=True, help="concurrency=N, or rate=R (constant, requests/s)"
    )
    parser.add_argument("--peer", choices=PEERS, default="vllm", help="the other clock")
    parser.add_argument("--vllm-python", help="Python of an environment with vLLM and pandas")
    parser.add_argument("--guidellm-python", type=Path, help="Python of an environment with guidellm")
    parser.add_argument("--out", type=Path, required=True, help="folder for prompts, logs and pairs")
    parser.add_argument("--model", type=Path, default=ROOT / "workloads/demo/models/target")
    parser.add_argument("--workload", type=Path, default=ROOT / "workloads/demo/workload.parquet")
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=48)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=270, help="of one window")
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    parser.add_argument("--eager", action="store_true", help="the bundled engine's PyTorch path, several times slower")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    if arguments.vllm_python is None and "vllm" in (arguments.peer, arguments.target):
        parser.error("give --vllm-python")
    arguments.out = arguments.out.resolve()
    return arguments


if __name__ == "__main__":
    main()
