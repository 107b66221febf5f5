"""Speed of the bundled engine on one model, beside transformers and beside the sum of its own matrix products.

    python -m tests.benchmarks.engine_speed --model DIR [--draft DIR] [--dtype float32] [--threads 2]

Prints tokens/s single stream and at several concurrencies (median of interleaved rounds), milliseconds per decode
step, and what the step's matrix products alone would take. Prompts are random tokens of the model's vocabulary.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.bundled.loader import load_model
from engine.config import EngineConfig

PROMPT_TOKENS, OUTPUT_TOKENS = 128, 64
CLOCKS = {False: time.perf_counter, True: time.process_time}
clock = CLOCKS[False]


def main() -> None:
    global clock
    arguments = parse_arguments()
    clock = CLOCKS[arguments.cpu_clock]
    print_environment(arguments)
    engine = LLMEngine(engine_config(arguments), device=arguments.device)
    print(f"{'engine':14s} {'concurrent':>10s} {'tokens/s':>10s} {'spread':>16s} {'ms/step':>8s}")
    for concurrency in arguments.concurrency:
        report("bundled", concurrency, [run_bundled(engine, concurrency) for _ in range(arguments.rounds)])
    if not arguments.no_transformers:
        generate = load_transformers(arguments)
        for concurrency in (n for n in arguments.concurrency if n <= 16):
            report("transformers", concurrency, [generate(concurrency) for _ in range(max(1, arguments.rounds // 2))])
    decoder = load_unquantized(arguments, engine.device)
    for rows in (1, *(n for n in arguments.concurrency if n > 1)):
        print(f"PyTorch's matrix products alone, {rows:3d} rows: {1000 * matrix_product_s(decoder, rows):.3f} ms")
    print_speculation(engine)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a Hugging Face folder")
    parser.add_argument("--draft", help="a draft's folder: measure with draft-model speculation")
    parser.add_argument("--num-speculative-tokens", type=int, default=3)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--weights", default="bf16", help="weight format, e.g. int8")
    parser.add_argument("--device", default=None)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--cpu-clock", action="store_true", help="count CPU seconds: for a busy machine, one thread")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 32])
    parser.add_argument("--enforce-eager", action="store_true")
    parser.add_argument("--no-transformers", action="store_true")
    return parser.parse_args()


def engine_config(arguments: argparse.Namespace) -> EngineConfig:
    speculation = {
        "method": "draft_model",
        "model": arguments.draft,
        "num_speculative_tokens": arguments.num_speculative_tokens,
    }
    return EngineConfig.model_validate(
        {
            "model": arguments.model,
            "dtype": arguments.dtype,
            "num_threads": arguments.threads,
            "enforce_eager": arguments.enforce_eager,
            "enable_prefix_caching": False,
            "quantization": {"weights": arguments.weights},
            "speculative_config": speculation if arguments.draft else None,
        }
    )


def print_environment(arguments: argparse.Namespace) -> None:
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    print(f"torch {torch.__version__}, {platform.machine()}, {cores} cores, load {load:.1f}, {vars(arguments)}")


def make_prompts(vocab_size: int, count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(vocab_size, (count, PROMPT_TOKENS), generator=generator).tolist()


def run_bundled(engine: LLMEngine, concurrency: int) -> float:
    """Decode tokens/s, prefill excluded: from the first token of the last request to the end."""
    for index, prompt in enumerate(make_prompts(engine.vocab_size, concurrency)):
        params = SamplingParams(max_tokens=OUTPUT_TOKENS, temperature=0.0, ignore_eos=True)
        engine.add_request(str(index), prompt, params)
    while engine.counters().num_requests_waiting or any(s.num_output_tokens == 0 for s in engine.scheduler.running):
        engine.step()
    begin, before = clock(), engine.counters().generation_tokens
    while engine.has_unfinished():
        engine.step()
    return (engine.counters().generation_tokens - before) / (clock() - begin)


def load_transformers(arguments: argparse.Namespace) -> Callable[[int], float]:
    from transformers import AutoModelForCausalLM

    dtype = "auto" if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype).eval()
    model.to(arguments.device or "cpu")

    def generate(concurrency: int) -> float:
        """Decode tokens/s: the time of one token is measured and taken off."""
        prompts = torch.tensor(make_prompts(model.config.vocab_size, concurrency), device=model.device)
        seconds = [_generate_s(model, prompts, count) for count in (1, OUTPUT_TOKENS)]
        return concurrency * (OUTPUT_TOKENS - 1) / (seconds[1] - seconds[0])

    return generate


def _generate_s(model: nn.Module, prompts: torch.Tensor, count: int) -> float:
    begin = clock()
    model.generate(  # type: ignore[operator]
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
    )
    return clock() - begin


def load_unquantized(arguments: argparse.Namespace, device: torch.device) -> nn.Module:
    return load_model(Path(arguments.model), dtype=arguments.dtype, max_positions=None, device=device).decoder


@torch.inference_mode()
def matrix_product_s(decoder: nn.Module, rows: int) -> float:
    """Seconds of one decode step's matrix products in the model's type: every linear layer and the head, median."""
    layers = [m for m in decoder.modules() if hasattr(m, "in_features")]
    weight = decoder.embed_tokens.weight
    inputs = [torch.randn(rows, m.in_features, device=weight.device).to(weight.dtype) for m in layers]
    times = []
    for _ in range(25):
        begin = clock()
        for layer, x in zip(layers, inputs, strict=True):
            layer(x)
        times.append(clock() - begin)
    return statistics.median(times[5:])


def report(name: str, concurrency: int, rates: list[float]) -> None:
    rate = statistics.median(rates)
    spread = f"{min(rates):.0f} to {max(rates):.0f}"
    print(f"{name:14s} {concurrency:10d} {rate:10.0f} {spread:>16s} {1000 * concurrency / rate:8.3f}", flush=True)


def print_speculation(engine: LLMEngine) -> None:
    counters = engine.counters()
    if counters.num_drafts:
        length = 1 + counters.num_accepted_tokens / counters.num_drafts
        print(f"acceptance length {length:.2f} over {counters.num_drafts} drafts")


if __name__ == "__main__":
    main()
