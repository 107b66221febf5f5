"""Ways to attend over paged keys and values; `ATTENTION` lists the members.

A member writes a step's keys and values into the cache and attends to each sequence's whole context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from engine.bundled.attention.gathered import GatheredAttention
from engine.bundled.batch import Batch
from engine.bundled.kv_cache import KVCache


class PagedAttention(Protocol):
    """One way to attend; `plan` runs once per step, `attend` once per layer."""

    def plan(self, batch: Batch) -> None: ...

    def attend(self, layer: int, query: Tensor, key_value: Tensor) -> Tensor: ...


def _on_pages(cache: KVCache, max_short_query: int) -> PagedAttention:
    from engine.bundled.attention.triton import TritonAttention  # Triton comes with torch for CUDA only

    return TritonAttention(cache, max_short_query)


ATTENTION: dict[str, Callable[[KVCache, int], PagedAttention]] = {"gathered": GatheredAttention, "triton": _on_pages}
