"""`num_speculative_tokens: auto` against every fixed length, from an idle to a saturated engine (performance.md, P7).

    python -m tests.benchmarks.draft_length_by_load [--method suffix|draft_model] [--rounds 5] [--json FILE]

Closed loop inside the process: so many requests at once as the load says, the next begins when one ends, greedy, to
their natural ends. Every cell is output tokens per second of a whole pass over the same requests; a round measures
every length at one load in turn, forwards and backwards alternately, and ratios are taken within a round, to the fixed
length that was best in the other rounds. The adaptive length starts each load with what it learned at the one before,
as a server would. "no speculation" is length 0.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from engine.bundled.llm_engine import LLMEngine, SamplingParams
from tests.benchmarks.speculation_by_task import MAX_TOKENS, commit, make_engine, read_tasks

LOADS = (1, 2, 4, 8, 16, 32)
LENGTHS: tuple[int | str, ...] = (0, 1, 2, 3, 4, 6, 8, "auto")
DRAWS = 2000


class Ratio(NamedTuple):
    """Median of paired ratios with a bootstrap 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    prompts = [prompt for prompts in read_tasks(arguments).values() for prompt in prompts]
    np.random.default_rng(0).shuffle(prompts)  # type: ignore[arg-type]
    engines = {length: engine_of(length, arguments) for length in LENGTHS}
    where = f"torch {torch.__version__}, {platform.machine()}, {arguments.threads} thread, commit {commit()}"
    print(f"{where}; {len(prompts)} requests, {arguments.method}, {arguments.rounds} rounds")
    print(f"{'at once':>7s} " + " ".join(f"{f'k={length}':>7s}" for length in LENGTHS) + "  best  auto/best, auto/none")
    rows = []
    for load in LOADS:
        rates: dict[int | str, list[float]] = defaultdict(list)
        share = prompts[: max(arguments.least, len(prompts) * load // LOADS[-1])]
        for round_number in range(arguments.rounds):
            for length in LENGTHS[:: 1 if round_number % 2 == 0 else -1]:
                rates[length].append(run(engines[length], share, load))
        rows.append(row(load, rates))
    if arguments.json:
        body = {"environment": where, "arguments": {k: str(v) for k, v in vars(arguments).items()}, "rows": rows}
        arguments.json.write_text(json.dumps(body, indent=1) + "\n")


def engine_of(length: int | str, arguments: argparse.Namespace) -> LLMEngine:
    own: dict[str, object] | None = {"method": arguments.method, "num_speculative_tokens": length} if length else None
    if own is not None and arguments.method == "draft_model":
        own["model"] = "draft"
    engine = make_engine(own, arguments)
    assert engine is not None, "the draft lies beside the model"
    return engine


def run(engine: LLMEngine, prompts: list[list[int]], at_once: int) -> float:
    """Output tokens per second."""
    engine.reset_prefix_cache()
    params = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0)
    waiting = list(enumerate(prompts))[::-1]
    num_tokens = num_running = 0
    begin = time.perf_counter()
    while waiting or engine.has_unfinished():
        while waiting and num_running < at_once:
            number, prompt = waiting.pop()
            engine.add_request(str(number), prompt, params)
            num_running += 1
        for output in engine.step():
            num_tokens += len(output.token_ids)
            num_running -= output.finish_reason is not None
    return num_tokens / (time.perf_counter() - begin)


def row(load: int, rates: dict[int | str, list[float]]) -> dict[str, object]:
    medians = {length: statistics.median(values) for length, values in rates.items()}
    best = [best_length(rates, without=number) for number in range(len(rates["auto"]))]
    to_best = ratio(rates["auto"], [rates[length][number] for number, length in enumerate(best)])
    to_none = ratio(rates["auto"], rates[0])
    usual = statistics.mode(best)
    print(
        f"{load:7d} " + " ".join(f"{medians[length]:7.0f}" for length in LENGTHS) + f"  k={usual}  {to_best}, {to_none}"
    )
    return {"at_once": load, "tokens_per_s": {str(k): v for k, v in rates.items()}, "best": best,
            "auto_to_best": to_best._asdict(), "auto_to_none": to_none._asdict()}  # fmt: skip


def best_length(rates: dict[int | str, list[float]], *, without: int) -> int | str:
    """The fixed length with the highest median over the other rounds: the luckiest one of the same round is not it."""

    def median_of_others(length: int | str) -> float:
        return statistics.median(value for number, value in enumerate(rates[length]) if number != without)

    return max((length for length in LENGTHS if length != "auto"), key=median_of_others)


def ratio(ours: list[float], theirs: list[float]) -> Ratio:
    ratios = np.array(ours) / np.array(theirs)
    drawn = np.random.default_rng(0).choice(ratios, (DRAWS, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return Ratio(float(np.median(ratios)), float(low), float(high))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", type=Path, default=Path("workloads/demo/heldout.parquet"))
    parser.add_argument("--model", type=Path, default=Path("workloads/demo/models/target"))
    parser.add_argument("--method", choices=["suffix", "draft_model"], default="suffix")
    parser.add_argument("--per-task", type=int, default=24)
    parser.add_argument("--least", type=int, default=12, help="requests of the lightest load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
