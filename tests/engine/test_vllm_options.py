"""An EngineConfig in vLLM's words: options, threads and caches."""

from typing import Any

import pytest

from engine.config import EngineConfig
from engine.vllm_options import cpu_variables, needs_checkpoint, thread_binding, vllm_obstacles, vllm_options


def config(**fields: Any) -> EngineConfig:
    return EngineConfig.model_validate({"model": "m", "engine": "vllm", **fields})


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"pipeline_parallel_size": 2}, {"pipeline-parallel-size": 2}),
        ({"data_parallel_size": 2}, {"data-parallel-size": 2}),
        ({"distributed_executor_backend": "ray"}, {"distributed-executor-backend": "ray"}),
        ({"gpu_memory_utilization": 0.8}, {"gpu-memory-utilization": 0.8}),
        ({"block_size": 32}, {"block-size": 32}),
        ({"enforce_eager": True}, {"enforce-eager": True}),
        ({"enable_chunked_prefill": False}, {"no-enable-chunked-prefill": True}),
        ({"quantization": {"kv_cache": "fp8"}}, {"kv-cache-dtype": "fp8"}),
        ({"quantization": {"weights": "fp8", "activations": "fp8"}}, {"quantization": "fp8"}),
        (
            {"lora_modules": {"a": "x", "b": "y"}, "max_loras": 2, "max_lora_rank": 8},
            {"enable-lora": True, "lora-modules": ["a=x", "b=y"], "max-loras": 2, "max-lora-rank": 8},
        ),
        (
            {"engine_args": {"--stream_interval": 4, "async-scheduling": False, "seed": 7, "revision": None}},
            {"stream-interval": 4, "no-async-scheduling": True, "seed": 7},
        ),
    ],
)
def test_a_field_becomes_the_option_of_its_name(fields: dict[str, Any], options: dict[str, Any]) -> None:
    plain, found = vllm_options(config()), vllm_options(config(**fields))
    assert {name: value for name, value in found.items() if plain.get(name) != value} == options
    assert None not in found.values()


def test_what_is_at_its_default_is_left_to_vllm() -> None:
    found = vllm_options(config())
    assert not {"block-size", "pipeline-parallel-size", "kv-cache-dtype", "quantization", "enforce-eager"} & set(found)


def test_only_fp8_is_made_while_loading_and_not_on_cpus() -> None:
    fp8 = config(quantization={"weights": "fp8", "activations": "fp8"}).quantization
    assert not needs_checkpoint(fp8)
    assert needs_checkpoint(fp8, on_cpu=True)
    assert needs_checkpoint(config(quantization={"weights": "fp8"}).quantization)
    assert needs_checkpoint(config(quantization={"overrides": {"*": "int8"}}).quantization)
    assert not needs_checkpoint(config(quantization={"kv_cache": "fp8"}).quantization, on_cpu=True)


def test_what_has_no_option_is_an_obstacle() -> None:
    assert vllm_obstacles(config(quantization={"weights": "int8", "activations": "int8"})) == []
    assert "int8 activations" in vllm_obstacles(config(quantization={"activations": "int8"}))[0]
    assert "int8 communication" in vllm_obstacles(config(quantization={"communication": "int8"}))[0]
    apart = {"prefill_instances": 2, "decode_instances": 1}
    [obstacle] = vllm_obstacles(config(disaggregation=apart))
    assert obstacle.startswith("disaggregation: one `vllm serve` is one instance")
    auto = {"method": "ngram", "num_speculative_tokens": "auto"}
    assert "fixed number" in vllm_obstacles(config(speculative_config=auto))[0]
    medusa = {"method": "medusa", "num_speculative_tokens": 3, "model": "heads"}
    assert vllm_obstacles(config(speculative_config=medusa)) == []
    [obstacle] = vllm_obstacles(config(speculative_config=medusa | {"tree_nodes": 8}))
    assert obstacle.endswith("leave speculative_config.tree_nodes out.")


@pytest.mark.parametrize(
    ("fields", "cores", "bound"),
    [
        ({}, None, None),
        ({}, (0,), "0"),
        ({}, (0, 1, 2, 5), "0,1,2,5"),
        ({}, (4, 5, 6), "4-6"),
        ({"num_threads": 2}, (4, 5, 6), "4-5"),
        ({"num_threads": 2}, None, "0-1"),
        ({"tensor_parallel_size": 2}, (0, 1), "0|1"),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, tuple(range(8)), "0-1|2-3|4-5|6-7"),
        ({"tensor_parallel_size": 2, "num_threads": 1}, (1, 3, 5, 7), "1|3"),
        ({"tensor_parallel_size": 2}, None, "0|1"),
    ],
)
def test_each_rank_has_its_cores(fields: dict[str, Any], cores: tuple[int, ...] | None, bound: str | None) -> None:
    assert thread_binding(config(**fields), cores) == bound


def test_the_cache_is_said_by_a_variable_only_where_no_option_says_it() -> None:
    assert cpu_variables(config(), None, kv_cache_gib=2) == {"VLLM_CPU_KVCACHE_SPACE": "2"}
    assert cpu_variables(config(kv_cache_memory_bytes=2**30), None, kv_cache_gib=2) == {}
