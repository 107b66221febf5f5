"""Why the bundled engine could not run a config here, found without launching it.

Does not import torch: the checkpoint's config and file names are enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.backend import FailureKind, Refusal
from engine.bundled.errors import CheckpointError, UnsupportedError
from engine.bundled.head_config import load_medusa_config
from engine.bundled.layer_formats import MODULES, Formats, layer_formats
from engine.bundled.lora.adapter_config import checked_adapter
from engine.bundled.model_config import load_model_config
from engine.bundled.parallel.split import split_obstacle
from engine.config import EngineConfig, SpeculativeConfig, WeightFormat
from engine.memory import int4_group, local_available_bytes, one_sequence_bytes, plain_bytes, required_bytes
from engine.model_shape import ModelShape, ModelShapeError, load_model_shape


def refusals(config: EngineConfig, *, num_cores: int) -> list[Refusal]:
    """Everything that speaks against a config; checks that need the checkpoint's shape wait until it is readable."""
    found = [*_field_refusals(config, num_cores=num_cores), *_checkpoint_refusals(Path(config.model))]
    speculation = config.speculative_config
    draft_folder = speculation.model if speculation is not None and speculation.method != "medusa" else None
    if draft_folder is not None:
        found += _checkpoint_refusals(Path(draft_folder), what="the draft: ")
    if any(refusal.kind is FailureKind.BAD_CHECKPOINT for refusal in found):
        return found
    found += _adapter_refusals(config)
    shape = load_model_shape(Path(config.model))
    draft = load_model_shape(Path(draft_folder)) if draft_folder is not None else None
    try:
        model = load_model_config(Path(config.model))
        formats = layer_formats(config.quantization, model.stored_formats, shape.num_hidden_layers)
        if obstacle := split_obstacle(model, config.tensor_parallel_size):
            raise UnsupportedError(obstacle)
    except UnsupportedError as error:
        return [*found, Refusal(reason=str(error), kind=FailureKind.UNSUPPORTED)]
    found += [*_shape_refusals(config, shape), *_group_refusals(formats, shape, config.tensor_parallel_size)]
    if draft is not None:
        found += _draft_refusals(config, shape, draft)
    if speculation is not None and speculation.method == "medusa":
        found += _medusa_refusals(speculation, shape)
    return [*found, *_memory(config, shape, draft, formats, stored_quantized=bool(model.stored_formats))]


def _field_refusals(config: EngineConfig, *, num_cores: int) -> Iterator[Refusal]:
    if config.engine != "bundled":
        yield Refusal(reason=f"the config is for engine {config.engine}, not for bundled")
    yield from _foreign_refusals(config)
    if config.num_threads is not None and config.num_threads > num_cores:
        yield Refusal(reason=f"num_threads {config.num_threads} is more than the {num_cores} cores it may use")


def _foreign_refusals(config: EngineConfig) -> Iterator[Refusal]:
    """Fields of the vocabulary that other engines have and this one does not."""
    parts, speculation = config.quantization, config.speculative_config
    lacks = {
        "quantization.communication without tensor_parallel_size above 1": (
            parts.communication != "bf16" and config.tensor_parallel_size == 1
        ),
        f"speculative method {speculation.method if speculation else ''}": bool(
            speculation and speculation.method == "eagle3"
        ),
        f"pipeline_parallel_size {config.pipeline_parallel_size}": config.pipeline_parallel_size != 1,
        f"data_parallel_size {config.data_parallel_size}": config.data_parallel_size != 1,
        "disaggregation: prefill and decode run in one process": config.disaggregation is not None,
        "distributed_executor_backend": config.distributed_executor_backend is not None,
        "gpu_memory_utilization (use kv_cache_memory_bytes)": config.gpu_memory_utilization is not None,
        "engine_args": bool(config.engine_args),
    }
    for field, wanted in lacks.items():
        if wanted:
            yield Refusal(reason=f"the bundled engine has no {field}. Leave it out", kind=FailureKind.UNSUPPORTED)


def _checkpoint_refusals(folder: Path, *, what: str = "") -> Iterator[Refusal]:
    try:
        load_model_config(folder)
        load_model_shape(folder)
    except (CheckpointError, ModelShapeError) as error:
        yield _bad(f"{what}{error}")
        return
    if not any(folder.glob("*.safetensors")):
        yield _bad(f"{what}{folder} holds no *.safetensors file. Other weight formats are not read")
    if not what and not (folder / "tokenizer.json").is_file():
        yield _bad(f"{folder} holds no tokenizer.json. Save the tokenizer in its fast form")


def _adapter_refusals(config: EngineConfig) -> Iterator[Refusal]:
    model = load_model_config(Path(config.model))
    for name, folder in config.lora_modules.items():
        if name == Path(config.model).name:
            reason = f"the adapter {name!r} has the model's name. Give it another name"
            yield Refusal(reason=reason, kind=FailureKind.UNSUPPORTED)
            continue
        try:
            checked_adapter(Path(folder), model, max_rank=config.max_lora_rank)
        except CheckpointError as error:
            yield _bad(f"the adapter {name}: {error}")
        except UnsupportedError as error:
            yield Refusal(reason=f"the adapter {name}: {error}", kind=FailureKind.UNSUPPORTED)


def _bad(reason: str) -> Refusal:
    return Refusal(reason=reason, kind=FailureKind.BAD_CHECKPOINT)


def _shape_refusals(config: EngineConfig, shape: ModelShape) -> Iterator[Refusal]:
    longest = shape.max_position_embeddings
    wanted = config.max_model_len or longest
    if wanted > longest:
        yield Refusal(reason=f"max_model_len {wanted} is more than the checkpoint's {longest} positions")
    if not config.enable_chunked_prefill and config.max_num_batched_tokens < wanted:
        yield Refusal(
            reason=f"max_num_batched_tokens {config.max_num_batched_tokens} cannot hold a prompt of max_model_len "
            f"{wanted} in one step. Raise it, lower max_model_len or enable chunked prefill"
        )


def _group_refusals(formats: Formats, shape: ModelShape, split: int) -> Iterator[Refusal]:
    columns = {module: columns for module, (_, columns) in zip(MODULES, shape.linear_shapes, strict=True)}
    columns |= {module: columns[module] // split for module in ("self_attn.o_proj", "mlp.down_proj")}
    uneven: dict[WeightFormat, set[int]] = {}
    for name, form in formats.items():
        width = columns[name.split(".", 3)[3]]
        if width % (int4_group(form.weights) or 1):
            uneven.setdefault(form.weights, set()).add(width)
    for weights, widths in uneven.items():
        sizes = ", ".join(map(str, sorted(widths)))
        group = int4_group(weights)
        where = "this model's matrix widths" if split == 1 else "the matrix widths of each rank"
        reason = f"weights {weights}: groups of {group} do not divide {where} ({sizes})"
        yield Refusal(reason=reason, kind=FailureKind.UNSUPPORTED)


def _draft_refusals(config: EngineConfig, shape: ModelShape, draft: ModelShape) -> Iterator[Refusal]:
    if draft.vocab_size != shape.vocab_size:
        yield Refusal(
            reason=f"the draft's vocabulary has {draft.vocab_size} tokens, the model's {shape.vocab_size}. "
            "A draft must share the model's tokenizer",
            kind=FailureKind.UNSUPPORTED,
        )
    speculation = config.speculative_config
    if speculation is not None and speculation.method == "eagle":
        if load_model_config(Path(speculation.model or "")).stored_formats:
            yield _bad("the head: it is quantized, which is not supported. Give the unquantized one")
        yield from _foreign_head_refusals(shape, hidden_size=draft.hidden_size, vocab_size=draft.vocab_size)
    wanted = config.max_model_len or shape.max_position_embeddings
    if draft.max_position_embeddings < wanted:
        yield Refusal(
            reason=f"the draft has {draft.max_position_embeddings} positions, max_model_len is {wanted}. Lower it",
            kind=FailureKind.UNSUPPORTED,
        )


def _medusa_refusals(speculation: SpeculativeConfig, shape: ModelShape) -> Iterator[Refusal]:
    folder = Path(speculation.model or "")
    try:
        heads = load_medusa_config(folder)
    except CheckpointError as error:
        yield _bad(f"the heads: {error}")
        return
    if not any(folder.glob("*.safetensors")):
        yield _bad(f"the heads: {folder} holds no *.safetensors file. Other weight formats are not read")
    yield from _foreign_head_refusals(shape, hidden_size=heads.hidden_size, vocab_size=heads.vocab_size)
    wanted = speculation.num_speculative_tokens
    if wanted != "auto" and wanted > heads.num_heads:
        yield Refusal(
            reason=f"num_speculative_tokens {wanted} needs as many Medusa heads, {folder} has {heads.num_heads}",
            kind=FailureKind.UNSUPPORTED,
        )


def _foreign_head_refusals(shape: ModelShape, *, hidden_size: int, vocab_size: int) -> Iterator[Refusal]:
    if (hidden_size, vocab_size) != (shape.hidden_size, shape.vocab_size):
        yield Refusal(
            reason=f"the heads are for a model of hidden size {hidden_size} and {vocab_size} tokens, this one has "
            f"{shape.hidden_size} and {shape.vocab_size}. Heads belong to the model they were trained on",
            kind=FailureKind.UNSUPPORTED,
        )


def _memory(
    config: EngineConfig, shape: ModelShape, draft: ModelShape | None, formats: Formats, *, stored_quantized: bool
) -> Iterator[Refusal]:
    cache = config.kv_cache_memory_bytes
    one = one_sequence_bytes(config, shape, draft)
    if cache is not None and cache < one:
        reason = (
            f"kv_cache_memory_bytes is {plain_bytes(cache)}, one sequence of max_model_len needs {plain_bytes(one)}"
        )
        yield Refusal(reason=f"{reason}. Raise it or lower max_model_len", kind=FailureKind.OUT_OF_MEMORY)
    if config.hardware.sku != "local":
        return
    needed = required_bytes(config, shape, draft, formats, stored_quantized=stored_quantized)
    available = local_available_bytes()
    if needed > available:
        yield Refusal(
            reason=f"weights and the KV cache of one sequence need {plain_bytes(needed)}, {plain_bytes(available)} is "
            "available. Lower max_model_len, drop the draft or take a larger machine",
            kind=FailureKind.OUT_OF_MEMORY,
        )
