"""The Triton kernels against attention over gathered pages: on CUDA, or with TRITON_INTERPRET=1 in the interpreter."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import save_random_model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytest.importorskip("triton")
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no CUDA, and TRITON_INTERPRET=1 is not set", allow_module_level=True)

from engine.bundled.attention.gathered import GatheredAttention  # noqa: E402
from engine.bundled.attention.paged_kernels import ShortQueries  # noqa: E402
from engine.bundled.attention.triton import TritonAttention  # noqa: E402
from engine.bundled.batch import Span, pack  # noqa: E402
from engine.bundled.kv_cache import KVCache  # noqa: E402
from engine.bundled.model_config import load_model_config  # noqa: E402
from engine.config import KvCacheFormat  # noqa: E402

BLOCK_SIZE, NUM_BLOCKS, MOST_SHORT = 8, 64, 5
with tempfile.TemporaryDirectory() as _folder:
    MODEL = load_model_config(save_random_model(Path(_folder)))
FORMATS: list[KvCacheFormat] = ["bf16", "int8", *(["fp8"] if DEVICE == "cuda" else [])]  # not in the interpreter


def caches(kv_format: KvCacheFormat) -> tuple[KVCache, KVCache]:
    """Two with the same contents."""
    made = []
    for _ in range(2):
        cache = KVCache(
            MODEL, NUM_BLOCKS, BLOCK_SIZE, dtype=torch.float32, device=torch.device(DEVICE), kv_format=kv_format
        )
        generator = torch.Generator().manual_seed(0)
        heads = torch.randn(NUM_BLOCKS * BLOCK_SIZE, 2 * cache.num_kv_heads, cache.head_dim, generator=generator)
        cache.write(0, torch.arange(NUM_BLOCKS * BLOCK_SIZE, device=DEVICE), heads.to(DEVICE))
        made.append(cache)
    return made[0], made[1]


def spans_of(sizes: list[tuple[int, int]]) -> list[Span]:
    """(start, tokens) of each sequence, on blocks of their own in a random order."""
    free = np.random.default_rng(1).permutation(NUM_BLOCKS).tolist()
    spans = []
    for start, count in sizes:
        blocks = [free.pop() for _ in range(-(-(start + count) // BLOCK_SIZE))]
        spans.append(Span([1] * count, start, blocks))
    return spans


def inputs(num_tokens: int, cache: KVCache, num_heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    joint = torch.randn(num_tokens, num_heads + 2 * cache.num_kv_heads, cache.head_dim, generator=generator).to(DEVICE)
    return joint[:, :num_heads], joint[:, num_heads:]


@pytest.mark.parametrize("kv_format", FORMATS)
@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 9)), min_size=1, max_size=4))
def test_short_and_long_queries_attend_as_over_gathered_pages(
    kv_format: KvCacheFormat, sizes: list[tuple[int, int]]
) -> None:
    ours, theirs = caches(kv_format)
    batch = pack(spans_of(sizes), BLOCK_SIZE, torch.device(DEVICE))
    query, key_value = inputs(len(batch.token_ids), ours, MODEL.num_heads)
    found = []
    for attention in (TritonAttention(ours, MOST_SHORT), GatheredAttention(theirs, MOST_SHORT)):
        attention.plan(batch)
        found.append(attention.attend(0, query, key_value.clone()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_splits", [1, 2, 8])
def test_splits_change_nothing(num_splits: int) -> None:
    ours, theirs = caches("bf16")
    batch = pack(spans_of([(200, 1), (3, 1), (130, 1)]), BLOCK_SIZE, torch.device(DEVICE))
    query, key_value = inputs(3, ours, MODEL.num_heads)
    split, plain = TritonAttention(ours, MOST_SHORT), GatheredAttention(theirs, MOST_SHORT)
    contexts = torch.from_numpy((batch.starts + batch.lengths).astype(np.int32)).to(DEVICE)
    tables = torch.from_numpy(batch.block_tables.astype(np.int32)).to(DEVICE)
    firsts, lengths = (torch.tensor(x, dtype=torch.int32, device=DEVICE) for x in ([0, 1, 2], [1, 1, 1]))
    split.plan_short(batch.slots, ShortQueries(firsts, lengths, contexts, tables), max_length=1, num_splits=num_splits)
    plain.plan(batch)
    torch.testing.assert_close(
        split.attend(0, query, key_value.clone()), plain.attend(0, query, key_value.clone()), rtol=1e-4, atol=1e-5
    )
