"""Plain words for every config field and metric: what it is called, and what it does.

Does not know any particular config or result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FieldWords:
    """A config field as a reader without background meets it."""

    name: str
    does: str


@dataclass(frozen=True, kw_only=True)
class MetricWords:
    """A metric's name, unit and direction. `style` is a key of `reports.numbers.STYLES`."""

    name: str
    means: str = ""
    unit: str = ""
    style: str = "number"
    lower_is_better: bool = True


FIELDS = {
    "model": FieldWords(name="Model", does="the model that answers"),
    "engine": FieldWords(name="Engine", does="the program that runs the model"),
    "dtype": FieldWords(name="Number format", does="how precisely the engine computes; fewer bits are faster"),
    "quantization.weights": FieldWords(
        name="Weight format",
        does="how many bits store each model weight; fewer are faster and smaller, and may change answers",
    ),
    "quantization.activations": FieldWords(
        name="Activation format", does="how many bits carry values between layers; fewer may change answers"
    ),
    "quantization.kv_cache": FieldWords(
        name="Cache format",
        does="how many bits store what the model remembers of a conversation; fewer make room and may change answers",
    ),
    "quantization.overrides": FieldWords(
        name="Weight format of single layers",
        does="layers that bear fewer bits badly keep more",
    ),
    "quantization.communication": FieldWords(
        name="Communication format", does="how many bits travel between devices; fewer may change answers"
    ),
    "speculative_config": FieldWords(
        name="Speculation", does="guesses several tokens ahead and keeps the right ones; answers stay the same"
    ),
    "speculative_config.method": FieldWords(
        name="Speculation",
        does="where guesses of the next tokens come from; wrong guesses are discarded, so answers stay the same",
    ),
    "speculative_config.num_speculative_tokens": FieldWords(
        name="Tokens guessed ahead", does="more saves time when guesses are good and wastes work when they are not"
    ),
    "speculative_config.tree_nodes": FieldWords(
        name="Guesses checked at once",
        does="several guesses for one place instead of one; more are right, and each costs work",
    ),
    "speculative_config.model": FieldWords(name="Draft model", does="the small model that makes the guesses"),
    "speculative_config.prompt_lookup_max": FieldWords(
        name="Longest phrase looked up", does="how many last tokens are searched for earlier in the text"
    ),
    "speculative_config.prompt_lookup_min": FieldWords(
        name="Shortest phrase looked up", does="below this many matching tokens no guess is made"
    ),
    "speculative_config.suffix_decoding_max_tree_depth": FieldWords(
        name="Longest repetition followed", does="how far back a repetition is compared, in tokens"
    ),
    "speculative_config.suffix_decoding_max_cached_requests": FieldWords(
        name="Answers remembered", does="how many earlier answers guesses are drawn from"
    ),
    "speculative_config.suffix_decoding_max_spec_factor": FieldWords(
        name="Tokens guessed per token repeated", does="longer repetitions make longer guesses"
    ),
    "speculative_config.suffix_decoding_min_token_prob": FieldWords(
        name="Least likely guess", does="a guess ends where its chance falls below this"
    ),
    "tensor_parallel_size": FieldWords(
        name="Devices per replica", does="splits each layer over this many devices; faster answers, more hardware"
    ),
    "pipeline_parallel_size": FieldWords(
        name="Pipeline stages per replica", does="puts groups of layers on different devices; fits larger models"
    ),
    "data_parallel_size": FieldWords(
        name="Copies per server", does="serves requests by this many copies of the model behind one address"
    ),
    "disaggregation": FieldWords(
        name="Prefill and decode apart", does="some instances read prompts, others write answers"
    ),
    "disaggregation.prefill_instances": FieldWords(
        name="Prefill instances", does="copies of the model that only read prompts; more start answers sooner"
    ),
    "disaggregation.decode_instances": FieldWords(
        name="Decode instances", does="copies of the model that only write answers; more keep them smooth"
    ),
    "distributed_executor_backend": FieldWords(
        name="How devices are joined", does="processes of one machine (mp), or many machines (ray)"
    ),
    "gpu_memory_utilization": FieldWords(
        name="Share of device memory", does="how much of the device the engine may fill; more leaves less reserve"
    ),
    "max_loras": FieldWords(name="Adapters in one batch", does="how many adapters are worked on together"),
    "max_lora_rank": FieldWords(name="Largest adapter rank", does="memory reserved for each adapter"),
    "max_model_len": FieldWords(name="Longest request", does="prompt and answer together, in tokens"),
    "max_num_seqs": FieldWords(
        name="Requests at once",
        does="how many requests are worked on together; more serve more people, each a little slower",
    ),
    "scheduling_policy": FieldWords(
        name="Who is served first", does="by arrival, by each request's priority, or in turn among users"
    ),
    "max_num_batched_tokens": FieldWords(
        name="Tokens per step",
        does="the most tokens handled in one step; small keeps running answers smooth, large starts new ones sooner",
    ),
    "enable_prefix_caching": FieldWords(
        name="Prefix caching", does="remembers beginnings that requests share, so they are read only once"
    ),
    "enable_chunked_prefill": FieldWords(
        name="Chunked prefill", does="reads long prompts in pieces between the steps of running answers"
    ),
    "block_size": FieldWords(name="Cache block size", does="tokens per unit of cache memory"),
    "kv_cache_memory_bytes": FieldWords(
        name="Cache memory", does="memory for what the model remembers; too little makes requests wait"
    ),
    "num_threads": FieldWords(name="CPU threads", does="how many processor threads compute"),
    "enforce_eager": FieldWords(name="Without compiled steps", does="computes operation by operation; slower"),
    "seed": FieldWords(name="Seed", does="fixes chance, so that runs repeat"),
    "hardware.sku": FieldWords(name="Hardware", does="the machine or accelerator it runs on"),
    "hardware.count": FieldWords(name="Accelerators per replica", does="how many of them one replica takes"),
}


def field_words(field: str) -> FieldWords:
    """Words for a dotted config field; the field's own name where none were written."""
    return FIELDS.get(field) or FieldWords(name=field.removeprefix("engine_args.").replace("_", " "), does="")


_STAGES = {
    "ttft": ("time to first token", "from the moment a request was meant to start until its first token"),
    "tpot": ("time per output token", "a request's average time between its output tokens"),
    "itl": ("gap between tokens", "every single wait between two output tokens"),
    "e2el": ("end-to-end latency", "from the moment a request was meant to start until its last token"),
    "schedule_lag": (
        "lateness of the load generator",
        "from the moment a request was meant to start until it was sent",
    ),
}
_STATISTICS = {"mean": "mean", "median": "median", "std": "spread of"}

_METRICS = {
    "quality": MetricWords(
        name="quality",
        means="1 means as good as the unquantized reference",
        style="share",
        lower_is_better=False,
    ),
    "top1_agreement": MetricWords(
        name="top-1 agreement",
        means="share of tokens where the most likely token is the reference's",
        style="share",
        lower_is_better=False,
    ),
    "kl_nats": MetricWords(
        name="divergence (KL)", means="distance of token probabilities from the reference's", unit="nats"
    ),
    "checks_score": MetricWords(
        name="checks passed",
        means="share of answers that pass the workload's own checks",
        style="share",
        lower_is_better=False,
    ),
    "usd_per_million_tokens": MetricWords(name="cost per million tokens", unit="USD"),
    "cost": MetricWords(name="cost per million tokens", unit="USD"),
    "usd_per_hour": MetricWords(name="cost per hour", unit="USD"),
    "replicas": MetricWords(name="replicas", means="copies of the engine needed for the recorded load"),
    "utilisation": MetricWords(name="utilisation", means="recorded rate over capacity", lower_is_better=False),
    "capacity_rps": MetricWords(
        name="capacity", means="requests per second one replica holds", unit="req/s", lower_is_better=False
    ),
    "request_throughput": MetricWords(name="request throughput", unit="req/s", lower_is_better=False),
    "request_goodput": MetricWords(
        name="goodput", means="requests per second that meet every SLO", unit="req/s", lower_is_better=False
    ),
    "output_throughput": MetricWords(name="output throughput", unit="tokens/s", lower_is_better=False),
    "total_token_throughput": MetricWords(name="total throughput", unit="tokens/s", lower_is_better=False),
    "saturation_throughput": MetricWords(
        name="throughput at saturation",
        means="input and output tokens per second when there is always work",
        unit="tokens/s",
        lower_is_better=False,
    ),
    "slo_attainment": MetricWords(
        name="requests within limits",
        means="share of requests that meet every SLO",
        style="share",
        lower_is_better=False,
    ),
    "error_rate": MetricWords(name="error rate", means="share of requests that failed"),
    "acceptance_length": MetricWords(
        name="acceptance length",
        means="tokens gained per step of the big model, the sure one included",
        unit="tokens",
        lower_is_better=False,
    ),
    "acceptance_rate": MetricWords(name="guesses accepted", style="share", lower_is_better=False),
    "prefix_cache_hit_rate": MetricWords(
        name="prefix cache hit rate", means="share of prompt tokens that were already known", lower_is_better=False
    ),
}
_LATENCY = re.compile(r"(?P<statistic>mean|median|std|p\d+(?:\.\d+)?)_(?P<stage>ttft|tpot|itl|e2el|schedule_lag)_ms")


def metric_words(metric: str) -> MetricWords:
    """Words for a flat metric name; its own name where none were written."""
    if words := _METRICS.get(metric):
        return words
    if match := _LATENCY.fullmatch(metric):
        name, means = _STAGES[match["stage"]]
        statistic = _STATISTICS.get(match["statistic"], match["statistic"])
        return MetricWords(name=f"{statistic} {name}", means=means, unit="ms")
    unit = "ms" if metric.endswith("_ms") else ""
    higher = "throughput" in metric or "goodput" in metric
    return MetricWords(name=metric.removesuffix("_ms").replace("_", " "), unit=unit, lower_is_better=not higher)
