"""Decode speed of every number format on a model of random weights, large enough that weights leave the CPU's caches.

    python -m tests.benchmarks.quantization_speed [--formats int8 int8+int8 ...] [--batches 1 8 32] [--rounds 3]

A format is WEIGHTS, WEIGHTS+ACTIVATIONS or WEIGHTS+ACTIVATIONS+KV_CACHE. Prints decode tokens/s (median of rounds,
formats interleaved), milliseconds a step, and the GB/s that reading every weight and the context's keys and values once
a step makes. The vocabulary is small so that the unquantized head does not hide the rest. Quality is not measured: the
weights mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.config import EngineConfig
from engine.memory import kv_bytes_per_token, weight_bytes
from engine.model_shape import load_model_shape

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, VOCAB = 1024, 2816, 10, 16, 4, 2048
FORMATS = [
    "bf16",
    "int8",
    "int8+int8",
    "fp8",
    "int4_g128",
    "int4_g128_asym",
    "int4_g32",
    "bf16+bf16+int8",
    "bf16+bf16+fp8",
]
FORMATS += ["int8+int8+int8"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--enforce-eager", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = write_random_model(Path(folder) / "model")
        millions = load_model_shape(model).num_parameters / 1e6
        cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
        print(f"torch {torch.__version__}, {platform.machine()}, {cores} cores, load {load:.1f}")
        print(
            f"{millions:.0f} M random parameters, prompts of {arguments.prompt_tokens}, {arguments.steps} steps a round"
        )
        run(model, arguments)


def run(model: Path, arguments: argparse.Namespace) -> None:
    engines = {name: make_engine(model, name, arguments) for name in arguments.formats}
    print(
        f"{'weights+activations+cache':28s} {'batch':>5s} {'tokens/s':>9s} {'spread':>15s} {'ms/step':>8s} {'GB/s':>6s}"
    )
    for batch in arguments.batches:
        rates: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(arguments.rounds):
            for name, engine in engines.items():
                rates[name].append(decode_rate(engine, batch, arguments))
        for name, found in rates.items():
            print_row(name, batch, found, bytes_per_step(model, name, batch, arguments))


def print_row(name: str, batch: int, rates: list[float], bytes_per_step: float) -> None:
    rate = statistics.median(rates)
    spread = f"{min(rates):.1f} to {max(rates):.1f}"
    seconds = batch / rate
    speed = bytes_per_step / seconds / 1e9
    print(f"{name:28s} {batch:5d} {rate:9.1f} {spread:>15s} {1000 * seconds:8.2f} {speed:6.1f}", flush=True)


def quantization(name: str) -> dict[str, str]:
    return dict(zip(("weights", "activations", "kv_cache"), name.split("+"), strict=False))


def make_engine(model: Path, name: str, arguments: argparse.Namespace) -> LLMEngine:
    values: dict[str, Any] = {
        "model": str(model),
        "quantization": quantization(name),
        "enable_prefix_caching": False,
        "enforce_eager": arguments.enforce_eager,
        "max_num_seqs": max(arguments.batches),
        "kv_cache_memory_bytes": 512 << 20,
    }
    return LLMEngine(EngineConfig.model_validate(values), device="cpu")


def decode_rate(engine: LLMEngine, batch: int, arguments: argparse.Namespace) -> float:
    """Tokens/s of `steps` decode steps with every request past its prompt."""
    params = SamplingParams(max_tokens=arguments.steps + 1, temperature=0.0, ignore_eos=True)
    generator = torch.Generator().manual_seed(batch)
    prompts = torch.randint(VOCAB, (batch, arguments.prompt_tokens), generator=generator).tolist()
    for number, prompt in enumerate(prompts):
        engine.add_request(f"{number}", prompt, params)
    while engine.counters().num_requests_waiting or any(s.num_output_tokens == 0 for s in engine.scheduler.running):
        engine.step()
    begin, before = time.perf_counter(), engine.counters().generation_tokens
    while engine.has_unfinished():
        engine.step()
    return (engine.counters().generation_tokens - before) / (time.perf_counter() - begin)


def bytes_per_step(model: Path, name: str, batch: int, arguments: argparse.Namespace) -> float:
    shape, parts = load_model_shape(model), quantization(name)
    config = EngineConfig.model_validate({"model": str(model), "quantization": parts})
    context = arguments.prompt_tokens + arguments.steps / 2
    per_token = kv_bytes_per_token(shape, kv_cache=config.quantization.kv_cache)
    return weight_bytes(shape, weights=config.quantization.weights) + batch * context * per_token


def write_random_model(folder: Path) -> Path:
    """A Llama folder of random bf16 weights."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCAB,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    size, kv = HIDDEN, HIDDEN // HEADS * KV_HEADS
    matrices = {"self_attn.q_proj": (size, size), "self_attn.k_proj": (kv, size), "self_attn.v_proj": (kv, size)}
    matrices |= {"self_attn.o_proj": (size, size), "mlp.gate_proj": (FFN, size), "mlp.up_proj": (FFN, size)}
    matrices |= {"mlp.down_proj": (size, FFN)}
    tensors = {"model.embed_tokens.weight": torch.randn(VOCAB, size), "model.norm.weight": torch.ones(size)}
    for layer in range(LAYERS):
        for name, (rows, columns) in matrices.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = torch.randn(rows, columns) / columns**0.5
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{norm}.weight"] = torch.ones(size)
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


if __name__ == "__main__":
    main()
