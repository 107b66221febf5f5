"""What a workload's numbers mean for the choice of a config: a sentence or two a picture.

Does not know engines' limits or prices: it says which settings a search should vary, not their values.
"""

from __future__ import annotations

from reports.numbers import three_digits
from reports.workload_pictures import time_words
from workloads.description import amount, signed
from workloads.profile import Arrivals, CacheSize, Drawing, PrefixSharing, Repetition, Sessions, WorkloadProfile

_BURSTY, _CALM = 2.0, 1.3  # index of dispersion
_LITTLE_SHARING = 0.03  # of prompt tokens
_COPIES, _HARDLY = 1.5, 1.15  # tokens a step
_ENOUGH = 0.9  # of the ideal hit ratio


def headline(profile: WorkloadProfile) -> str:
    """The workload in one sentence."""
    first = f"{profile.num_requests:,} requests"
    parts = []
    if profile.arrivals is not None:
        first += f" in {_duration(profile.arrivals.duration_s)}"
        parts.append(f"{three_digits(profile.arrivals.rate_rps)} a second, {_burst_word(profile.arrivals)}")
    else:
        first += " without recorded arrivals"
    if profile.input_tokens and profile.output_tokens and profile.output_tokens.mean:
        times = profile.input_tokens.mean / profile.output_tokens.mean
        longer = "prompts" if times >= 1 else "answers"
        factor = three_digits(times if times >= 1 else 1 / max(times, 1e-9))
        parts.append(f"{longer} {factor} times as long as {'answers' if times >= 1 else 'prompts'}")
    return f"{first}: {'; '.join(parts)}." if parts else f"{first}."


def _duration(seconds: float) -> str:
    if seconds >= 7200:
        return f"{three_digits(seconds / 3600)} hours"
    return f"{three_digits(seconds / 60)} minutes" if seconds >= 120 else f"{three_digits(seconds)} s"


def _burst_word(arrivals: Arrivals) -> str:
    values = list(arrivals.dispersion.values()) or [1.0]  # of windows from the shortest on
    if max(values) < _BURSTY:
        return "evenly" if max(values) < 0.7 else "at random"
    if values[0] < _BURSTY:
        return "at a rate that drifts"
    return "in bursts" if max(values) >= 4 else "unevenly"


def arrivals_meaning(profile: WorkloadProfile) -> str:
    """Mean against the busiest stretch, in requests and tokens."""
    arrivals = profile.arrivals
    if arrivals is None:
        return "No arrivals are recorded: replay with a fixed concurrency; latency under bursts cannot be judged."
    told = f"The mean is {three_digits(arrivals.rate_rps)} requests/s"
    if profile.input_tokens and profile.output_tokens:
        inputs, outputs = (arrivals.rate_rps * q.mean for q in (profile.input_tokens, profile.output_tokens))
        told += f", or {amount(inputs)} prompt and {amount(outputs)} output tokens/s"
    if arrivals.over_time is None or len(arrivals.over_time.counts) < 2:
        return told + "."
    step = arrivals.over_time.step_s
    ratio = max(arrivals.over_time.counts) / step / arrivals.rate_rps
    told += f"; the busiest {time_words(step)} has {three_digits(ratio)} times that. "
    if ratio >= 1.5:
        return told + "Size replicas and max_num_seqs for the busy stretches: a config that just holds the mean queues."
    return told + "The mean is a fair size for the fleet."


def burstiness_meaning(arrivals: Arrivals) -> str:
    """At which time scale load varies, and what answers that."""
    values = list(arrivals.dispersion.values())
    if not values:
        return "The recording is too short to say how counts vary."
    windows = [float(window) for window in arrivals.dispersion]
    if max(values) < _CALM:
        return "Counts vary as those of random arrivals do: steady load, and queues come from long requests alone."
    at = windows[values.index(max(values))]
    told = f"Counts in {time_words(at)} vary {three_digits(max(values))} times as much as random arrivals' would. "
    if values[0] >= _BURSTY:
        return told + (
            "Already single seconds are bursty, which no autoscaler follows: headroom (replicas, max_num_seqs, "
            "max_num_batched_tokens) decides the tail, so judge configs at the recorded arrivals, not at a mean rate."
        )
    return told + (
        "Single seconds are nearly random: the load drifts slowly, which more replicas at busy times can follow; "
        "between drifts the mean rate is a fair guide."
    )


def lengths_meaning(profile: WorkloadProfile) -> str:
    """Where the work is (prefill or decode), and how uneven it is."""
    inputs, outputs = profile.input_tokens, profile.output_tokens
    if inputs is None or outputs is None:
        return "Lengths are not recorded for every request: import with --tokenizer DIR to count them."
    told = f"max_model_len must hold {profile.longest:,} tokens. " if profile.longest else ""
    ratio = inputs.mean / max(outputs.mean, 1e-9)
    if ratio >= 20:
        told += (
            f"{three_digits(ratio)} prompt tokens come to each output token: prefill is the work, so prefix caching, "
            "max_num_batched_tokens and prefill speed matter, and faster decoding (speculation) moves little. "
        )
    elif ratio <= 2:
        told += (
            "Answers are about as long as prompts or longer: decoding is the work, where speculation, batch size and "
        )
        told += "weight and KV-cache quantization pay. "
    else:
        told += "Both prefill and decoding are work: search max_num_batched_tokens and speculation together. "
    spread = inputs.p99 / max(inputs.p50, 1.0)
    if spread >= 4:
        told += (
            f"One prompt in a hundred is {three_digits(spread)} times the median: without chunked prefill it stalls "
        )
        told += "everyone's next token."
    return told.strip()


def joint_meaning(correlation: float | None) -> str:
    """Whether prompt length foretells the work of an answer."""
    if correlation is None:
        return "All requests are about alike, so there is nothing to split by length."
    told = f"Correlation of the logarithms: {signed(correlation)}. "
    if abs(correlation) < 0.2:
        return told + (
            "A prompt's length says nothing about its answer's: fleets split by prompt length (fopt plan) separate "
            "prefill work, not decode work."
        )
    kind = "longer" if correlation > 0 else "shorter"
    return told + f"Longer prompts get {kind} answers: kinds of requests differ, and a fleet split by length may pay."


def sessions_meaning(sessions: Sessions, profile: WorkloadProfile) -> str:
    """What later turns ask of the cache and of routing."""
    later = sessions.num_requests - sessions.num_sessions
    if not later:
        return "Every session is one request: nothing to keep between turns."
    share = later / sessions.num_requests
    told = f"{share:.0%} of the requests of sessions are later turns that bring their history along. "
    if sessions.think_s is None:
        return told + "Think times are not recorded: how long a prefix must stay cached is unknown."
    told += f"Half of them come {three_digits(sessions.think_s.p50)} s or more after the answer before"
    if profile.arrivals is not None and profile.input_tokens is not None:
        between = sessions.think_s.p50 * profile.arrivals.rate_rps * profile.input_tokens.mean
        told += f", while about {amount(between)} prompt tokens of others arrive: the KV cache must hold that many to "
        return told + "serve them from enable_prefix_caching, and replicas need routing by session."
    return told + ": the KV cache must outlast that for enable_prefix_caching to help, with routing by session."


def cache_meaning(prefix: PrefixSharing) -> str:
    """How large a prefix cache is worth having."""
    ideal = prefix.ideal_hit_ratio
    if ideal < _LITTLE_SHARING:
        return f"Only {ideal:.1%} of the prompts could ever be reused: enable_prefix_caching buys nothing here."
    told = f"At best {ideal:.1%} of prompt {prefix.unit} are found again"
    enough = _enough(prefix)
    if enough is None:
        return told + "."
    told += f"; {enough.hit_ratio:.1%} with room for {amount(enough.capacity)} {prefix.unit} of cached prefixes beside "
    told += "the running requests. More KV memory (kv_cache_dtype, gpu_memory_utilization, more GPUs) pays until there"
    half = next((s for s in prefix.lru if s.hit_ratio >= 0.5 * prefix.lru[-1].hit_ratio), None)
    if half is not None and half.capacity < enough.capacity:
        told += f", and below {amount(half.capacity)} half of the hits are lost"
    return told + "."


def _enough(prefix: PrefixSharing) -> CacheSize | None:
    return next((size for size in prefix.lru if size.hit_ratio >= _ENOUGH * prefix.lru[-1].hit_ratio), None)


def copying_meaning(repetition: Repetition) -> str:
    """Whether speculation by lookup (n-gram, suffix) can pay."""
    mean = repetition.tokens_per_step.mean
    four = repetition.copied.get("4")
    told = "" if four is None else f"{four:.0%} of the answers' 4-grams stand in their prompts. "
    told += f"Drafts looked up there would give {three_digits(mean)} {repetition.basis} a step: "
    if mean >= _COPIES:
        told += "speculative_config with method ngram or suffix is worth searching"
        if repetition.tokens_per_step.p50 < _HARDLY + 0.1:
            told += ", though half of the requests gain next to nothing"
        return told + ". The gain shrinks as batches grow."
    if mean >= _HARDLY:
        return told + "lookup may pay where batches are small; a draft model or heads may do better."
    return told + "lookup drafts would mostly be wrong; try a draft model or heads, if anything."


def drawing_meaning(drawing: Drawing) -> str:
    """What the sampling parameters mean for speculation and quality."""
    total = max(1, drawing.greedy + drawing.drawn + drawing.unset)
    if drawing.unset == total:
        told = (
            "No temperature is recorded: a replay sends none, and the served model's default decides how well drafts "
        )
        told += "are accepted."
    elif drawing.greedy >= 0.9 * total:
        told = "Nearly all requests are greedy: answers are reproducible, and speculation accepts what the model likes "
        told += "best."
    else:
        told = (
            f"{drawing.drawn / total:.0%} are drawn at random: drafts are accepted less often than in greedy requests, "
        )
        told += "and comparing answers takes more of them."
    if drawing.with_response_format:
        told += f" {drawing.with_response_format:,} ask for a format: the engine must support structured output."
    if drawing.with_tools:
        told += f" {drawing.with_tools:,} bring tools: the model's tool parser must be set."
    return told


def classes_meaning(profile: WorkloadProfile) -> str:
    """What SLO classes ask."""
    if not profile.slo_classes:
        return "No request names an SLO class: limits come from --slo alone."
    if len(profile.slo_classes) == 1:
        return "All requests are of one class: one config serves them."
    return (
        "Classes ask for different latencies: a config must hold the tightest, or the classes need fleets of their own."
    )


def outcomes_meaning(profile: WorkloadProfile) -> str:
    """Whether quality can be scored, and what of the recording went wrong."""
    num_failed = sum(count for status, count in profile.statuses.items() if status != "ok")
    told = f"{num_failed:,} requests did not succeed when they were recorded. " if num_failed else ""
    if profile.checks:
        return told + "Requests with checks score the quality of a config by its answers, not only by its divergence."
    if profile.num_responses:
        return (
            told + "Recorded responses let quality be judged by divergence; checks would score the answers themselves."
        )
    return told + "Without responses or checks, quality is judged against what the unquantized model answers."


def adapters_meaning(profile: WorkloadProfile) -> str:
    """What LoRA adapters ask."""
    if not profile.adapters:
        return "No request names an adapter: LoRA can stay off."
    num, most = len(profile.adapters), max(profile.adapters.values()) / sum(profile.adapters.values())
    return (
        f"{num} adapters are named, the busiest by {most:.0%} of the requests that name one: enable_lora, with "
        "max_loras for those active at once; the others wait or are swapped in."
    )
