"""Every speculation method on every task of a recorded workload: acceptance length, acceptance by place, speed.

    python -m tests.benchmarks.speculation_by_task --workload workloads/demo/heldout.parquet --model DIR [--rounds 3]
        [--methods medusa]

One request at a time, greedy, to its natural end, without prefix caching. Tokens/s count decoding alone: from each
request's first token to its last. Rounds take the methods in turn, so that a busy minute hits all of them. Tasks are
`extra.task`; requests without one are "all". Methods that need a folder are measured where it lies beside the model.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import torch

from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.config import EngineConfig
from workloads.parquet import read_workload

METHODS: dict[str, dict[str, object] | None] = {
    "none": None,
    "ngram k=4": {"method": "ngram", "num_speculative_tokens": 4},
    "suffix k=8": {"method": "suffix", "num_speculative_tokens": 8},
    "suffix auto": {"method": "suffix", "num_speculative_tokens": "auto"},
    "draft k=4": {"method": "draft_model", "num_speculative_tokens": 4, "model": "draft"},
    "medusa k=3": {"method": "medusa", "num_speculative_tokens": 3, "model": "medusa"},
    "medusa auto": {"method": "medusa", "num_speculative_tokens": "auto", "model": "medusa"},
    "medusa tree 4": {"method": "medusa", "num_speculative_tokens": 3, "model": "medusa", "tree_nodes": 4},
    "medusa tree 8": {"method": "medusa", "num_speculative_tokens": 3, "model": "medusa", "tree_nodes": 8},
    "medusa tree auto": {"method": "medusa", "num_speculative_tokens": "auto", "model": "medusa", "tree_nodes": 16},
    "eagle k=3": {"method": "eagle", "num_speculative_tokens": 3, "model": "eagle"},
}
MAX_TOKENS = 160


class Outcome(NamedTuple):
    """Of one method on one task, over one round."""

    num_tokens: int
    seconds: float
    num_drafts: int
    accepted_per_place: list[int]


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    tasks = read_tasks(arguments)
    print(f"torch {torch.__version__}, {platform.machine()}, commit {commit()}, {vars(arguments)}")
    print({task: len(prompts) for task, prompts in tasks.items()}, "requests")
    wanted = {name: own for name, own in METHODS.items() if name == "none" or name.startswith(arguments.methods)}
    engines = {name: engine for name, own in wanted.items() if (engine := make_engine(own, arguments)) is not None}
    rounds: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for _ in range(arguments.rounds):
        for task, prompts in tasks.items():
            for name, engine in engines.items():
                rounds[name, task].append(run(engine, prompts))
    print(
        f"{'method':16s} {'task':12s} {'tokens/step':>11s} {'accepted by place':>24s} {'tokens/s':>24s} {'times':>6s}"
    )
    for task in tasks:
        plain = statistics.median(o.num_tokens / o.seconds for o in rounds["none", task])
        for name in engines:
            print_row(name, task, rounds[name, task], plain)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", type=Path, default=Path("workloads/demo/heldout.parquet"))
    parser.add_argument("--model", type=Path, default=Path("workloads/demo/models/target"))
    parser.add_argument("--per-task", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", default="", help="how the names of the methods begin")
    return parser.parse_args()


def read_tasks(arguments: argparse.Namespace) -> dict[str, list[list[int]]]:
    """Task to the prompts of its first requests."""
    engine = LLMEngine(EngineConfig(model=str(arguments.model), num_threads=arguments.threads))
    tasks: dict[str, list[list[int]]] = defaultdict(list)
    for request in read_workload(arguments.workload):
        task = json.loads(request.extra or "{}").get("task", "all")
        if request.messages is not None and len(tasks[task]) < arguments.per_task:
            text = engine.tokenizer.apply_chat_template(request.chat_messages())
            tasks[task].append(engine.tokenizer.encode(text, add_special_tokens=False))
    return dict(sorted(tasks.items()))


def make_engine(speculation: dict[str, object] | None, arguments: argparse.Namespace) -> LLMEngine | None:
    """None where the method's folder does not lie beside the model."""
    if speculation is not None and "model" in speculation:
        folder = arguments.model.parent / str(speculation["model"])
        if not folder.is_dir():
            return None
        speculation = speculation | {"model": str(folder)}
    config = {
        "model": str(arguments.model),
        "num_threads": arguments.threads,
        "enable_prefix_caching": False,
        "speculative_config": speculation,
    }
    return LLMEngine(EngineConfig.model_validate(config))


def run(engine: LLMEngine, prompts: list[list[int]]) -> Outcome:
    engine.reset_prefix_cache()
    before = engine.counters()
    params = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0)
    num_tokens, seconds = 0, 0.0
    for number, prompt in enumerate(prompts):
        engine.add_request(str(number), prompt, params)
        while not engine.step():
            pass
        begin = time.perf_counter()
        while engine.has_unfinished():
            num_tokens += sum(len(output.token_ids) for output in engine.step())
        seconds += time.perf_counter() - begin
    after = engine.counters()
    places = zip(after.accepted_tokens_per_position, before.accepted_tokens_per_position, strict=True)
    return Outcome(num_tokens, seconds, after.num_drafts - before.num_drafts, [a - b for a, b in places])


def print_row(name: str, task: str, outcomes: list[Outcome], plain: float) -> None:
    rates = [outcome.num_tokens / outcome.seconds for outcome in outcomes]
    first, rate = outcomes[0], statistics.median(rates)
    length = 1 + sum(first.accepted_per_place) / first.num_drafts if first.num_drafts else 1.0
    places = " ".join(f"{count / first.num_drafts:.2f}" for count in first.accepted_per_place[:4] if first.num_drafts)
    spread = f"{rate:.0f} ({min(rates):.0f} to {max(rates):.0f})"
    print(f"{name:16s} {task:12s} {length:11.2f} {places:>24s} {spread:>24s} {rate / plain:6.2f}")


def commit() -> str:
    described = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return described.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
