"""What is refused before anything is launched, by what the installed version's own parser said."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import write_tiny_checkpoint

from engine.backend import FailureKind
from engine.config import EngineConfig
from engine.devices import DevicePool
from engine.vllm_server.check import Place, refusals
from engine.vllm_server.known_options import KnownOptions

NGRAM = {"method": "ngram", "num_speculative_tokens": 4}


def found(known: KnownOptions, model: Path, *, on_cpu: bool = True, **fields: Any) -> list[tuple[FailureKind, str]]:
    config = EngineConfig.model_validate({"model": str(model), "engine": "vllm", **fields})
    devices = DevicePool(None if on_cpu else (0, 1))
    place = Place(known=known, is_cpu_build=on_cpu, cores=(0, 1), devices=devices)
    return [(refusal.kind, refusal.reason) for refusal in refusals(config, place)]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"dtype": "float32", "quantization": {"kv_cache": "fp8"}},
        {"speculative_config": NGRAM},
        {"block_size": 64, "num_threads": 2},
        {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"},
        {"engine_args": {"scheduling-policy": "priority", "async_scheduling": False, "stream-interval": 2}},
    ],
)
def test_nothing_speaks_against_what_works(known: KnownOptions, tiny_model: Path, fields: dict[str, Any]) -> None:
    assert found(known, tiny_model, **fields) == []


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"engine": "bundled"}, FailureKind.REFUSED, "the config is for engine bundled"),
        (
            {"engine_args": {"max-num-seq": 3}},
            FailureKind.UNSUPPORTED,
            "no option --max-num-seq. Did you mean --max-num",
        ),
        ({"engine_args": {"scheduling-policy": "lifo"}}, FailureKind.UNSUPPORTED, "It takes: fcfs, priority"),
        ({"engine_args": {"stream-interval": "two"}}, None, ""),
        ({"engine_args": {"stream-interval": 2.5}}, FailureKind.UNSUPPORTED, "wants a whole number"),
        ({"engine_args": {"async-scheduling": 3}}, FailureKind.UNSUPPORTED, "it is a switch"),
        ({"engine_args": {"headless": False}}, FailureKind.UNSUPPORTED, "cannot switch --headless off"),
        (
            {"speculative_config": {"method": "suffix", "num_speculative_tokens": 4}},
            FailureKind.UNSUPPORTED,
            "needs the package arctic-inference",
        ),
        (
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": "auto"}},
            FailureKind.UNSUPPORTED,
            "vLLM takes a fixed number",
        ),
        ({"block_size": 24}, FailureKind.UNSUPPORTED, "multiples of 32"),
        ({"quantization": {"weights": "int4_g128"}}, FailureKind.UNSUPPORTED, "need a checkpoint"),
        (
            {"quantization": {"weights": "fp8", "activations": "fp8"}},
            FailureKind.UNSUPPORTED,
            "need a checkpoint",
        ),
        ({"quantization": {"weights": "int8"}}, FailureKind.MISSING_KERNEL, "Set quantization.activations to int8"),
        ({"quantization": {"kv_cache": "int8"}}, FailureKind.UNSUPPORTED, "on a CPU vLLM has bf16 and fp8"),
        ({"quantization": {"activations": "int8"}}, FailureKind.UNSUPPORTED, "no int8 activations"),
        ({"tensor_parallel_size": 4}, FailureKind.REFUSED, "more than the 2 cores"),
        ({"num_threads": 3}, FailureKind.REFUSED, "more than the 2 cores"),
        ({"gpu_memory_utilization": 0.5}, FailureKind.UNSUPPORTED, "Use kv_cache_memory_bytes"),
        ({"max_model_len": 513}, FailureKind.REFUSED, "more than the checkpoint's 512 positions"),
        ({"enable_chunked_prefill": False, "max_num_batched_tokens": 128}, FailureKind.REFUSED, "cannot hold a prompt"),
        ({"kv_cache_memory_bytes": 1000}, FailureKind.OUT_OF_MEMORY, "one sequence of max_model_len needs"),
        ({"kv_cache_memory_bytes": 10**15}, FailureKind.OUT_OF_MEMORY, "GiB is available"),
        ({"lora_modules": {"a": "/no/such"}}, FailureKind.BAD_CHECKPOINT, "the adapter a: no folder at /no/such"),
        ({"lora_modules": {"a": "."}, "max_lora_rank": 7}, FailureKind.UNSUPPORTED, "takes no 7 for --max-lora-rank"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(
    known: KnownOptions, tiny_model: Path, fields: dict[str, Any], kind: FailureKind | None, words: str
) -> None:
    reasons = found(known, tiny_model, **fields)
    if kind is None:
        assert reasons == [], "text is left to vLLM"
    else:
        assert any(found_kind is kind and words in reason for found_kind, reason in reasons), reasons


def test_a_checkpoint_must_be_whole(known: KnownOptions, tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "broken")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, folder / "model.safetensors")
    [(kind, reason)] = found(known, folder)
    assert kind is FailureKind.BAD_CHECKPOINT
    assert reason == f"{folder} has no tensor of model.layers.1.mlp.down_proj. Give a whole checkpoint"
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    assert "ends before its last tensor" in found(known, folder)[0][1]
    (folder / "model.safetensors").write_bytes(b"short")
    assert "is no safetensors file" in found(known, folder)[0][1]


def test_a_method_that_a_version_lacks_is_refused(known: KnownOptions, tiny_model: Path) -> None:
    later = known.model_copy(update={"speculative_methods": ("ngram", "eagle"), "version": "0.33.0"})
    heads = {"method": "medusa", "num_speculative_tokens": 2, "model": str(tiny_model)}
    [(kind, reason)] = found(later, tiny_model, speculative_config=heads)
    assert kind is FailureKind.UNSUPPORTED
    assert reason.startswith("vLLM 0.33.0 has no speculative method medusa")


def test_four_bits_need_a_kernel_that_cpus_without_avx512_lack(known: KnownOptions, tiny_model: Path) -> None:
    mixed = {"weights": "int8", "activations": "int8", "overrides": {"*.down_proj": "int4_g32"}}
    older = known.model_copy(update={"kernels": ()})
    for quantization in ({"weights": "int4_g128"}, mixed):
        before = found(known, tiny_model, quantization=quantization)
        [(kind, reason)] = set(found(older, tiny_model, quantization=quantization)) - set(before)
        assert kind is FailureKind.MISSING_KERNEL
        assert "they need AVX-512" in reason
    assert older.model_copy(update={"device": "cuda"}).has_int4


def test_an_fp8_kv_cache_needs_avx512_or_amx(known: KnownOptions, tiny_model: Path) -> None:
    older = known.model_copy(update={"kernels": ()})
    [(kind, reason)] = found(older, tiny_model, quantization={"kv_cache": "fp8"})
    assert kind is FailureKind.MISSING_KERNEL
    assert "it needs AVX-512 or AMX. Take bf16" in reason
    assert older.model_copy(update={"device": "cuda"}).has_fp8_kv_cache


def test_more_ranks_than_devices_need_more_machines(known: KnownOptions, tiny_model: Path) -> None:
    [(_, reason)] = found(known, tiny_model, on_cpu=False, tensor_parallel_size=2, pipeline_parallel_size=2)
    assert "the config needs 4 devices, 2 may be used here (0, 1)" in reason
    [(_, reason)] = found(known, tiny_model, on_cpu=False, engine_args={"data-parallel-size": 3})
    assert "needs 3 devices" in reason, "a flag of the engine's own counts too"
    over_ray = {"tensor_parallel_size": 4, "distributed_executor_backend": "ray"}
    assert found(known, tiny_model, on_cpu=False, **over_ray) == []


def test_fp8_is_made_while_loading_on_a_gpu(known: KnownOptions, tiny_model: Path) -> None:
    fp8 = {"weights": "fp8", "activations": "fp8"}
    assert found(known, tiny_model, on_cpu=False, quantization=fp8) == []
