"""`EngineConfig`: one candidate deployment, under vLLM's field names wherever vLLM has one.

Does not know which engine can run it: that is `Backend.check`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from search_spaces.launch_template import LaunchTemplate
from search_spaces.unique_keys import in_one_line, load_yaml

Dtype = Literal["auto", "bfloat16", "float32"]
WeightFormat = Literal[
    "bf16",
    "int8",
    "int4_g32",
    "int4_g64",
    "int4_g128",
    "int4_g32_asym",
    "int4_g64_asym",
    "int4_g128_asym",
    "fp8",
    "nvfp4",
]
ActivationFormat = Literal["bf16", "int8", "fp8"]
KvCacheFormat = Literal["bf16", "int8", "fp8"]
SpeculativeMethod = Literal["ngram", "suffix", "draft_model", "medusa", "eagle", "eagle3"]
SchedulingPolicy = Literal["fcfs", "priority", "fair"]
EngineName = Literal["bundled", "vllm", "endpoint", "command", "simulated"]
EngineArgument = str | int | float | bool | None | dict[str, Any] | list[Any]


class ConfigError(ValueError):
    """An engine config that cannot be read; the message is the sentence the user reads."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Quantization(_Frozen):
    """Number format of each part. `bf16` means: as the checkpoint and `dtype` have it.

    `overrides` gives single linear layers another weight format: shell pattern of the module's name (as in the
    checkpoint, e.g. `model.layers.0.*` or `*.down_proj`) to format; the last pattern that matches holds. Files may
    write it as one text, `*.down_proj=int8, model.layers.0.*=bf16`, which is how a search space names it.
    """

    weights: WeightFormat = "bf16"
    activations: ActivationFormat = "bf16"
    kv_cache: KvCacheFormat = "bf16"
    communication: Literal["bf16", "int8"] = "bf16"  # between the ranks of tensor parallelism
    overrides: dict[str, WeightFormat] = {}

    @field_validator("overrides", mode="before")
    @classmethod
    def _of_a_text(cls, value: object) -> object:
        if value is None:
            return {}
        if not isinstance(value, str):
            return value
        pairs = [part.strip().rpartition("=") for part in value.split(",")]
        if any(not pattern or not weights for pattern, _, weights in pairs):
            raise ValueError(f"overrides {value!r} is not PATTERN=FORMAT, PATTERN=FORMAT, ...")
        return {pattern: weights for pattern, _, weights in pairs}

    def overrides_text(self) -> str | None:
        """`overrides` as one text; None without any."""
        return ", ".join(f"{pattern}={weights}" for pattern, weights in self.overrides.items()) or None


MAX_TREE_NODES = 64
_MAX_CLASS_TEXT = 80
_METHOD_FIELDS: dict[str, tuple[str, ...]] = {
    "ngram": ("prompt_lookup_",),
    "suffix": ("suffix_decoding_",),
    "draft_model": ("model",),
    "medusa": ("model", "tree_nodes"),
    "eagle": ("model",),
    "eagle3": ("model",),
}


class SpeculativeConfig(_Frozen):
    """How tokens are drafted. `model` is the folder of the draft (`draft_model`) or of the heads (`medusa`, `eagle`,
    `eagle3`).

    Fields that the method does not read are left out of dumps, labels and fingerprints. With `tree_nodes` the draft is
    a tree of so many tokens, at most `num_speculative_tokens` of them one after another; with `auto` of as many as pay,
    `tree_nodes` at most.
    """

    method: SpeculativeMethod
    num_speculative_tokens: Annotated[int, Field(gt=0, le=32)] | Literal["auto"]  # auto: as many as pay at the time
    model: str | None = None
    tree_nodes: int | None = Field(default=None, ge=1, le=MAX_TREE_NODES)  # tokens of a tree; None: a chain
    prompt_lookup_max: int = Field(default=4, ge=1)
    prompt_lookup_min: int = Field(default=2, ge=1)
    suffix_decoding_max_tree_depth: int = Field(default=24, ge=2)  # longest match, tokens
    suffix_decoding_max_cached_requests: int = Field(default=10_000, ge=0)  # whose outputs are remembered
    suffix_decoding_max_spec_factor: float = Field(default=1.0, gt=0)  # tokens drafted per token matched
    suffix_decoding_min_token_prob: float = Field(default=0.1, ge=0, le=1)

    @model_serializer(mode="wrap")
    def _of_the_method(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        read = ("method", "num_speculative_tokens", *_METHOD_FIELDS[self.method])
        chain = {"tree_nodes"} if self.tree_nodes is None else set()
        return {name: value for name, value in values.items() if name.startswith(read) and name not in chain}

    @model_validator(mode="after")
    def _fields_fit_the_method(self) -> SpeculativeConfig:
        reads_model = "model" in _METHOD_FIELDS[self.method]
        if reads_model and not self.model:
            raise ValueError(f"speculative_config.model is needed for method {self.method}: give the draft's folder")
        if not reads_model and self.model is not None:
            raise ValueError(f"speculative_config.model does not belong to method {self.method}")
        if self.prompt_lookup_min > self.prompt_lookup_max:
            raise ValueError("speculative_config.prompt_lookup_min is larger than prompt_lookup_max")
        self._check_tree()
        return self

    def _check_tree(self) -> None:
        if self.tree_nodes is None:
            return
        if "tree_nodes" not in _METHOD_FIELDS[self.method]:
            raise ValueError(
                f"speculative_config.tree_nodes does not belong to method {self.method}: medusa drafts trees"
            )
        if self.num_speculative_tokens != "auto" and self.tree_nodes < self.num_speculative_tokens:
            raise ValueError(
                f"speculative_config.tree_nodes ({self.tree_nodes}) is smaller than num_speculative_tokens "
                f"({self.num_speculative_tokens}), the tree's depth"
            )


class Disaggregation(_Frozen):
    """Instances that compute prompts and instances that compute answers, of one replica; all of them alike."""

    prefill_instances: int = Field(ge=1)
    decode_instances: int = Field(ge=1)


class Hardware(_Frozen):
    """The SKU (a key of search_spaces/skus.yaml) and how many of it one replica takes."""

    sku: str = "local"
    count: int = Field(default=1, ge=1)


class EngineConfig(_Frozen):
    """One candidate: a complete, launchable description of an engine."""

    model: str
    engine: EngineName = "bundled"
    dtype: Dtype = "auto"
    quantization: Quantization = Quantization()
    speculative_config: SpeculativeConfig | None = None
    tensor_parallel_size: int = Field(default=1, ge=1)
    pipeline_parallel_size: int = Field(default=1, ge=1)
    data_parallel_size: int = Field(default=1, ge=1)
    disaggregation: Disaggregation | None = None  # None: an instance is a replica and does prefill and decode
    distributed_executor_backend: Literal["mp", "ray"] | None = None  # None: the engine decides; ray: many machines
    max_model_len: int | None = Field(default=None, ge=16)  # None: what the checkpoint says
    max_num_seqs: int = Field(default=64, ge=1)
    max_num_batched_tokens: int = Field(default=2048, ge=16)
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    scheduling_policy: SchedulingPolicy = "fcfs"  # by arrival; by each request's priority; in turn among users
    block_size: int = Field(default=16, ge=1)  # tokens per KV block
    kv_cache_memory_bytes: int | None = Field(default=None, gt=0)  # None: the engine decides
    num_threads: int | None = Field(default=None, ge=1)  # CPU threads; None: every core it may use
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)  # None: the engine decides
    enforce_eager: bool = False  # no compiled steps
    lora_modules: dict[str, str] = {}  # adapter's name to its Hugging Face PEFT folder
    max_loras: int = Field(default=1, ge=1)  # adapters in one batch
    max_lora_rank: int = Field(default=16, ge=1)
    engine_args: dict[str, EngineArgument] = {}  # what has no field here, under the engine's own flag names
    launch: LaunchTemplate | None = None  # of engine `command`: how its server is started
    seed: int = 0
    hardware: Hardware = Hardware()

    @model_validator(mode="after")
    def _budget_holds_every_sequence(self) -> EngineConfig:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) is smaller than max_num_seqs "
                f"({self.max_num_seqs}): a decode step could not hold every sequence"
            )
        return self

    @property
    def num_instances(self) -> int:
        """Instances of one replica, each on `tensor_parallel_size` devices."""
        apart = self.disaggregation
        return 1 if apart is None else apart.prefill_instances + apart.decode_instances

    def quality_class(self) -> str:
        """Key of everything that changes the numbers the model computes; lossless speculation does not."""
        parts = self.quantization
        numbers = f"{self.dtype}/w-{parts.weights}/a-{parts.activations}/kv-{parts.kv_cache}/c-{parts.communication}"
        numbers += _overrides_part(parts)
        for name in self.launch.quality if self.launch else ():
            numbers += f"/{name}={self.engine_args.get(name)}"
        is_quantized = (parts.weights, parts.activations) != ("bf16", "bf16")
        if self.engine == "bundled" and self.tensor_parallel_size > 1 and is_quantized:
            numbers += f"/tp{self.tensor_parallel_size}"  # each rank rounds its own part
        return f"{numbers}/eager" if self.enforce_eager else numbers

    def fingerprint(self) -> str:
        """Twelve hex digits that name this config whatever its key order."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def flat(self) -> dict[str, str | int | float | bool | None]:
        """Dotted names to scalars, e.g. `quantization.weights`; an absent speculative_config is one None.

        Overrides are one text, where there are any. Without `launch`, which no config of a study changes.
        """
        values = self.model_dump(mode="json", exclude={"launch"})
        if text := self.quantization.overrides_text():
            values["quantization"]["overrides"] = text
        return dict(_flatten("", values))

    def differences(self, other: EngineConfig) -> dict[str, tuple[Any, Any]]:
        """Dotted names whose value differs, as (other's, mine)."""
        theirs, mine = other.flat(), self.flat()
        names = [*mine, *(name for name in theirs if name not in mine)]
        return {n: (theirs.get(n), mine.get(n)) for n in names if theirs.get(n) != mine.get(n)}

    def label(self, default: EngineConfig) -> str:
        """What sets this config apart from the default, short: `draft_model k=4, int8, max_num_seqs 16`."""
        differing = self.differences(default)
        parts = [self._speculation_label()] if any(name.startswith("speculative_config") for name in differing) else []
        if hardware := [name for name in differing if name.startswith("hardware.")]:
            parts.append(f"{self.hardware.count} x {self.hardware.sku}")
        if any(name.startswith("disaggregation") for name in differing):
            parts.append(self._disaggregation_label())
        told = {*hardware} | ({"tensor_parallel_size"} if self._split_over_all(hardware) else set())
        for name, (_, value) in differing.items():
            if not name.startswith(("speculative_config", "disaggregation")) and name not in told:
                parts.append(_label_part(name, value))
        return ", ".join(parts) or "default"

    def _split_over_all(self, told: list[str]) -> bool:
        """Whether `4 x h200` says the parallel split too."""
        return bool(told) and self.tensor_parallel_size * self.num_instances == self.hardware.count

    def _disaggregation_label(self) -> str:
        apart = self.disaggregation
        if apart is None:
            return "prefill and decode together"
        return f"{apart.prefill_instances} prefill + {apart.decode_instances} decode"

    def _speculation_label(self) -> str:
        draft = self.speculative_config
        if draft is None:
            return "no speculation"
        tree = f" tree of {draft.tree_nodes}" if draft.tree_nodes else ""
        return f"{draft.method} k={draft.num_speculative_tokens}{tree}"


def _overrides_part(parts: Quantization) -> str:
    """Of a quality class: all of a few overrides; of many, which would make no file's name, a hash."""
    text = "".join(f"/{pattern}={weights}" for pattern, weights in parts.overrides.items())
    return text if len(text) <= _MAX_CLASS_TEXT else f"/mix-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def overrides_label(text: str) -> str:
    """`2 x int8, 1 x bf16` for overrides of so many patterns."""
    counts = Counter(pair.rpartition("=")[2] for pair in text.split(", "))
    return ", ".join(f"{count} x {weights}" for weights, count in counts.most_common())


def _label_part(name: str, value: Any) -> str:
    if name == "quantization.overrides":
        return f"mixed with {overrides_label(value)}" if value else "not mixed"
    field = name.removeprefix("quantization.").removeprefix("engine_args.")
    if value is None and name.startswith("engine_args."):
        return f"no {field}"
    if field == "weights" or field == "dtype":
        return str(value)
    if isinstance(value, bool):
        return f"{field.removeprefix('enable_')} {'on' if value else 'off'}"
    return f"{field} {value}"


def _flatten(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(prefix, value)]
    return [pair for key, item in value.items() for pair in _flatten(f"{prefix}.{key}" if prefix else key, item)]


def parse_engine_config(values: object, *, where: str) -> EngineConfig:
    """Validate a mapping, naming `where` it came from in the error.

    Raises:
        ConfigError: unknown or invalid fields.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: an engine config is a mapping of fields. Check the file's layout")
    try:
        return EngineConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "config"
        raise ConfigError(f"{where}: {field}: {_plain(first['msg'])}") from None


def _plain(message: str) -> str:
    if message.startswith("Extra inputs"):
        return "unknown option. Remove it or correct its name"
    return message.removeprefix("Value error, ")


def load_engine_config(path: Path) -> EngineConfig:
    """Read a bare engine config (not a Deployment) from YAML."""
    try:
        values = load_yaml(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}. Give the path of a config file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text. Give the path of a config file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {in_one_line(error)}. Correct the file") from None
    return parse_engine_config(values, where=str(path))


def dump_engine_config(config: EngineConfig) -> str:
    """YAML of the fields that differ from the defaults, `model` first."""
    values = {"model": config.model, **config.model_dump(mode="json", exclude_defaults=True)}
    return yaml.safe_dump(values, sort_keys=False)
