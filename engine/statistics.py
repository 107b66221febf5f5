"""Reads `EngineStatistics` from a /metrics page under vLLM's names, and as far as they go SGLang's and llama.cpp's.

Does not know which engine wrote the page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from engine.backend import EngineStatistics

_PREFIXES: Mapping[str, Mapping[str, str]] = {  # and what is called otherwise than in vLLM
    "vllm:": {},
    "sglang:": {},
    "llamacpp:": {"tokens_predicted_total": "generation_tokens_total"},
}
_FIELDS = {
    "num_drafts": "spec_decode_num_drafts_total",
    "num_draft_tokens": "spec_decode_num_draft_tokens_total",
    "num_accepted_tokens": "spec_decode_num_accepted_tokens_total",
    "prefix_cache_queries": "prefix_cache_queries_total",
    "prefix_cache_hits": "prefix_cache_hits_total",
    "num_preemptions": "num_preemptions_total",
    "prompt_tokens": "prompt_tokens_total",
    "generation_tokens": "generation_tokens_total",
}
_PER_POSITION = "spec_decode_num_accepted_tokens_per_pos_total"
_LEFT_OUT = ("_bucket", "_created")


def parse_statistics(page: str) -> EngineStatistics:
    """Sum every counter over its labels (engines, models); what has no field goes to `extra`, unprefixed."""
    totals, per_position = _totals(page)
    counts = {field: int(totals.pop(name, 0)) for field, name in _FIELDS.items()}
    positions = tuple(int(per_position[position]) for position in sorted(per_position))
    return EngineStatistics(**counts, accepted_tokens_per_position=positions, extra=dict(totals))


def _totals(page: str) -> tuple[dict[str, float], Mapping[int, float]]:
    from prometheus_client.parser import text_string_to_metric_families  # tens of milliseconds, and seldom needed

    totals: dict[str, float] = defaultdict(float)
    per_position: dict[int, float] = defaultdict(float)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name = _known_name(sample.name)
            if name is None:
                continue
            if name == _PER_POSITION:
                per_position[int(sample.labels["position"])] += sample.value
            else:
                totals[name] += sample.value
    return totals, per_position


def _known_name(name: str) -> str | None:
    """vLLM's name without its prefix; None for what is no engine's, or no number of its own."""
    for prefix, renamed in _PREFIXES.items():
        if name.startswith(prefix) and not name.endswith(_LEFT_OUT):
            own = name.removeprefix(prefix)
            return renamed.get(own, own)
    return None
