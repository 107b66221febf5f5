"""A config in words: its values, and what changed from the default.

Does not know how it performed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.config import EngineConfig, overrides_label
from reports.numbers import memory
from reports.words import field_words

_METHODS = {
    "ngram": "n-gram lookup",
    "suffix": "suffix decoding",
    "draft_model": "draft model",
    "medusa": "Medusa heads",
    "eagle": "EAGLE head",
    "eagle3": "EAGLE-3 head",
}
NONE = "none"
_UNSET = {
    "max_model_len": "the checkpoint's",
    "kv_cache_memory_bytes": "the engine decides",
    "num_threads": "every core",
    "distributed_executor_backend": "the engine decides",
    "gpu_memory_utilization": "the engine decides",
    "speculative_config.method": "off",
}


class Change(NamedTuple):
    """One setting that differs from the default, in words."""

    field: str
    name: str
    default: str
    recommended: str
    does: str


def value_words(field: str, value: Any) -> str:
    """A field's value as people say it: `on`, `int8`, `512 MiB`."""
    if value is None:
        return _UNSET.get(field, NONE)
    if isinstance(value, bool):
        return "on" if value else "off"
    if field == "kv_cache_memory_bytes":
        return memory(int(value))
    if field == "quantization.overrides":
        return overrides_label(str(value))
    if field == "speculative_config.method":
        return _METHODS.get(str(value), str(value))
    return f"{value:,}" if isinstance(value, int) and field != "seed" else str(value)


def changes(config: EngineConfig, default: EngineConfig) -> list[Change]:
    """What differs from the default, in the config's own order."""
    found = []
    for field, (before, after) in config.differences(default).items():
        if _matters(field, config):
            words = field_words(field)
            found.append(Change(field, words.name, value_words(field, before), value_words(field, after), words.does))
    return found


def _matters(field: str, config: EngineConfig) -> bool:
    """Of the absence of speculation, and of what another method would read, nothing is told."""
    if not field.startswith("speculative_config.") or field == "speculative_config.method":
        return True
    return field in config.flat()


def config_sentence(config: EngineConfig, default: EngineConfig) -> str:
    """Every change in one clause: `weight format int8 instead of bf16; requests at once 16 instead of 64`."""
    parts = [_clause(change) for change in changes(config, default)]
    return "; ".join(parts) or "exactly the default settings"


def _clause(change: Change) -> str:
    instead = "" if change.default == NONE else f" instead of {change.default}"
    return f"{change.name.lower()} {change.recommended}{instead}"
