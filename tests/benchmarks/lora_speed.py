"""What LoRA adapters cost: decode tokens/s of a batch of which some requests have one.

    python -m tests.benchmarks.lora_speed [--model DIR] [--at-once 8] [--rank 8] [--rounds 5] [--json FILE]

Random adapters on every linear layer. All requests decode together, greedy, for a fixed number of tokens; a pass per
number of adapters (0: the base alone, in an engine that has none), forwards and backwards alternately. Ratios are taken
within a round, to the base.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.config import EngineConfig
from tests.benchmarks.speculation_by_task import commit
from tests.engine.bundled.random_adapters import save_adapter

COUNTS = (0, 1, 4, 8)  # adapters in the batch


def main() -> None:
    arguments = parse_arguments()
    counts = [count for count in COUNTS if count <= arguments.at_once]
    with tempfile.TemporaryDirectory() as folder:
        adapters = {
            f"a{number}": str(save_adapter(Path(folder) / f"a{number}", arguments.model, seed=number, size=0.02,
                                           r=arguments.rank))
            for number in range(max(counts))
        }  # fmt: skip
        engines = {count: engine_of(arguments, dict(list(adapters.items())[:count])) for count in counts}
        rates: dict[int, list[float]] = {count: [] for count in counts}
        for number in range(arguments.rounds + 1):
            for count in counts[:: 1 if number % 2 else -1]:
                rate = decode_rate(engines[count], list(adapters)[:count], arguments)
                if number:  # the first round warms up
                    rates[count].append(rate)
    print(f"{platform.machine()}, {arguments.threads} thread(s), commit {commit()}, rank {arguments.rank}, "
          f"{arguments.at_once} at once, {arguments.rounds} rounds")  # fmt: skip
    for count in counts:
        ratios = np.array(rates[count]) / np.array(rates[0])
        print(f"{count} adapters: {statistics.median(rates[count]):.0f} tokens/s "
              f"({min(rates[count]):.0f} to {max(rates[count]):.0f}), {np.median(ratios):.2f} of the base")  # fmt: skip
    if arguments.json:
        values = {
            "arguments": {k: str(v) for k, v in vars(arguments).items()},
            "commit": commit(),
            "tokens_per_s": rates,
        }
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")


def engine_of(arguments: argparse.Namespace, adapters: dict[str, str]) -> LLMEngine:
    values = {
        "model": str(arguments.model),
        "max_num_seqs": arguments.at_once,
        "num_threads": arguments.threads,
        "max_model_len": 512,
        "lora_modules": adapters,
        "max_loras": max(1, len(adapters)),
        "max_lora_rank": arguments.rank,
    }
    return LLMEngine(EngineConfig.model_validate(values))


def decode_rate(engine: LLMEngine, adapters: list[str], arguments: argparse.Namespace) -> float:
    """Output tokens a second of the steps after the prompts."""
    engine.reset_prefix_cache()
    params = SamplingParams(max_tokens=arguments.tokens, temperature=0.0, ignore_eos=True)
    for number in range(arguments.at_once):
        adapter = adapters[number % len(adapters)] if adapters else None
        engine.add_request(str(number), [3 + number, 5, 7, 9], params, adapter=adapter)
    engine.step()
    num_tokens, begin = 0, time.perf_counter()
    while engine.has_unfinished():
        num_tokens += sum(len(output.token_ids) for output in engine.step())
    return num_tokens / (time.perf_counter() - begin)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("workloads/demo/models/target"))
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
