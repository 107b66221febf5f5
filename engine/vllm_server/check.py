"""Why vLLM could not run a config here, found without launching it.

Does not know what every version can: the options it has come from its own parser (`known_options.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.backend import FailureKind, Refusal
from engine.checkpoint_tensors import missing_modules, tensor_names
from engine.config import EngineConfig
from engine.devices import DevicePool
from engine.memory import local_available_bytes, one_sequence_bytes, plain_bytes
from engine.model_shape import ModelShape, ModelShapeError, load_model_shape
from engine.vllm_options import GIB, needs_checkpoint, num_ranks, vllm_obstacles, vllm_options
from engine.vllm_server.known_options import KnownOptions

_CPU_BLOCK = 32


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a vLLM has here: `cores` that it may use, `devices` for a GPU build."""

    known: KnownOptions
    is_cpu_build: bool
    cores: Sequence[int]
    devices: DevicePool = field(default_factory=lambda: DevicePool(None))
    makes_checkpoints: bool = False  # of quantized weights
    kv_cache_gib: int = 1  # on a CPU, where the config does not say


def refusals(config: EngineConfig, place: Place) -> list[Refusal]:
    """Everything that speaks against a config; memory is counted once the checkpoint is readable."""
    found = [*_field_refusals(config, place), *place.known.refusals(vllm_options(config))]
    checkpoints = list(_checkpoint_refusals(config))
    if checkpoints:
        return [*checkpoints, *found]
    shape = load_model_shape(Path(config.model))
    return [*found, *_length_refusals(config, shape), *(_memory(config, shape, place) if place.is_cpu_build else ())]


def _field_refusals(config: EngineConfig, place: Place) -> Iterator[Refusal]:
    if config.engine != "vllm":
        yield Refusal(reason=f"the config is for engine {config.engine}, not for vllm")
    for obstacle in vllm_obstacles(config):
        yield _unsupported(obstacle)
    if needs_checkpoint(config.quantization, on_cpu=place.is_cpu_build) and not place.makes_checkpoints:
        yield _unsupported(
            f"weights {config.quantization.weights} need a checkpoint whose weights are quantized already: vLLM does "
            "not quantize while it loads. Give such a checkpoint as --model, with quantization.weights bf16"
        )
    if place.is_cpu_build:
        yield from _cpu_refusals(config, place)
    else:
        yield from _device_refusals(config, place)


def _cpu_refusals(config: EngineConfig, place: Place) -> Iterator[Refusal]:
    """What vLLM's CPU build was found not to do."""
    if config.block_size != EngineConfig.model_fields["block_size"].default and config.block_size % _CPU_BLOCK:
        yield _unsupported(f"block_size {config.block_size}: on a CPU vLLM takes multiples of {_CPU_BLOCK}")
    if config.quantization.kv_cache == "int8":
        yield _unsupported("kv_cache int8: on a CPU vLLM has bf16 and fp8")
    if config.quantization.weights == "nvfp4":
        yield _unsupported("weights nvfp4: vLLM's CPU build has no kernel for them")
    yield from _cpu_kernel_refusals(config, place)
    if config.gpu_memory_utilization is not None:
        yield _unsupported("gpu_memory_utilization on a CPU is a share of all memory. Use kv_cache_memory_bytes")
    ranks, threads = num_ranks(config), config.num_threads or 1
    if ranks * threads > len(place.cores):
        what = f"{ranks} ranks of {threads} threads" if ranks > 1 else f"num_threads {threads}"
        yield Refusal(reason=f"{what}: more than the {len(place.cores)} cores that vLLM may use here")


def _cpu_kernel_refusals(config: EngineConfig, place: Place) -> Iterator[Refusal]:
    """Number formats for which vLLM has nothing that computes with them on this CPU."""
    formats = (config.quantization.weights, *config.quantization.overrides.values())
    if (int4 := next((form for form in formats if form.startswith("int4")), None)) and not place.known.has_int4:
        reason = f"weights {int4}: vLLM's CPU build has no kernel for them on this CPU, they need AVX-512"
        yield Refusal(reason=f"{reason}. Take int8 weights and activations", kind=FailureKind.MISSING_KERNEL)
    if config.quantization.kv_cache == "fp8" and not place.known.has_fp8_kv_cache:
        reason = "kv_cache fp8: vLLM's CPU build has no attention over it on this CPU, it needs AVX-512 or AMX"
        yield Refusal(reason=f"{reason}. Take bf16", kind=FailureKind.MISSING_KERNEL)
    if "int8" in formats and config.quantization.activations != "int8":
        reason = "int8 weights beside unquantized activations: vLLM's CPU build has no kernel for them"
        yield Refusal(reason=f"{reason}. Set quantization.activations to int8", kind=FailureKind.MISSING_KERNEL)


def _device_refusals(config: EngineConfig, place: Place) -> Iterator[Refusal]:
    if config.num_threads is not None:
        yield _unsupported("num_threads is for vLLM's CPU build. Leave it out")
    if config.distributed_executor_backend != "ray":
        yield from place.devices.refusals(num_ranks(config))


def _checkpoint_refusals(config: EngineConfig) -> Iterator[Refusal]:
    """Folders of weights must exist; what is in them is vLLM's business."""
    folders = {"": config.model}
    if config.speculative_config is not None and config.speculative_config.model is not None:
        folders["the draft: "] = config.speculative_config.model
    folders |= {f"the adapter {name}: ": folder for name, folder in config.lora_modules.items()}
    for what, folder in folders.items():
        path = Path(folder)
        if not path.is_dir():
            yield _bad(f"{what}no folder at {folder}. Give the path of a Hugging Face folder")
        elif not any(path.glob("*.safetensors")):
            yield _bad(f"{what}{folder} holds no *.safetensors file. Other weight formats are not read")
    if Path(config.model).is_dir():
        yield from _model_refusals(Path(config.model))


def _model_refusals(folder: Path) -> Iterator[Refusal]:
    try:
        missing = missing_modules(tensor_names(folder), load_model_shape(folder))
    except (ModelShapeError, ValueError) as error:
        yield _bad(str(error))
        return
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        yield _bad(f"{folder} has no tensor of {missing[0]}{more}. Give a whole checkpoint")


def _length_refusals(config: EngineConfig, shape: ModelShape) -> Iterator[Refusal]:
    longest = shape.max_position_embeddings
    wanted = config.max_model_len or longest
    if wanted > longest and "hf-overrides" not in vllm_options(config):
        yield Refusal(reason=f"max_model_len {wanted} is more than the checkpoint's {longest} positions")
    if not config.enable_chunked_prefill and config.max_num_batched_tokens < wanted:
        yield Refusal(
            reason=f"max_num_batched_tokens {config.max_num_batched_tokens} cannot hold a prompt of max_model_len "
            f"{wanted} in one step. Raise it, lower max_model_len or enable chunked prefill"
        )


def _memory(config: EngineConfig, shape: ModelShape, place: Place) -> Iterator[Refusal]:
    cache = config.kv_cache_memory_bytes or place.kv_cache_gib * GIB
    one = one_sequence_bytes(config, shape)
    if config.quantization.kv_cache != "bf16":
        one //= 2
    if cache < one:
        reason = f"{plain_bytes(cache)} of KV cache, one sequence of max_model_len needs {plain_bytes(one)}"
        yield Refusal(reason=f"{reason}. Raise kv_cache_memory_bytes or lower max_model_len", kind=_OOM)
    draft = config.speculative_config.model if config.speculative_config else None
    folders = [config.model, draft, *config.lora_modules.values()]
    weights = sum(file.stat().st_size for folder in folders if folder for file in Path(folder).glob("*.safetensors"))
    available = local_available_bytes()
    if weights + cache > available and config.hardware.sku == "local":
        reason = f"weights and KV cache need {plain_bytes(weights + cache)}, {plain_bytes(available)} is available"
        yield Refusal(reason=f"{reason}. Lower kv_cache_memory_bytes or take a larger machine", kind=_OOM)


_OOM = FailureKind.OUT_OF_MEMORY


def _unsupported(reason: str) -> Refusal:
    return Refusal(reason=reason, kind=FailureKind.UNSUPPORTED)


def _bad(reason: str) -> Refusal:
    return Refusal(reason=reason, kind=FailureKind.BAD_CHECKPOINT)
