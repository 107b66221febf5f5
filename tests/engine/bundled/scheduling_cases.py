"""Schedulers and sequences without a model."""

from typing import Any

from engine.bundled.block_manager import BlockManager
from engine.bundled.sampling_params import SamplingParams
from engine.bundled.scheduler import Scheduler
from engine.bundled.sequence import Sequence, Standing
from engine.config import EngineConfig

BLOCK_SIZE = 4


def make_scheduler(num_blocks: int = 64, *, shares_draft_cache: bool = False, **fields: Any) -> Scheduler:
    values = {"model": "none", "max_num_seqs": 4, "max_num_batched_tokens": 16} | fields
    manager = BlockManager(num_blocks, BLOCK_SIZE, enable_prefix_caching=True)
    config = EngineConfig.model_validate(values)
    return Scheduler(config, manager, max_model_len=64, shares_draft_cache=shares_draft_cache)


def sequence(
    length: int, first: int = 0, *, standing: Standing | None = None, adapter: int = -1, **params: Any
) -> Sequence:
    token_ids = list(range(first, first + length))
    drawn = SamplingParams(**{"max_tokens": 32} | params)
    name = f"{first}+{length}"
    return Sequence(name, token_ids, drawn, seed=0, eos=(), standing=standing or Standing(), adapter=adapter)


def step(scheduler: Scheduler, num_accepted: int = 0) -> list[tuple[int, int]]:
    """(tokens, drafts) of each scheduled sequence; each that draws gets its accepted drafts and one more token."""
    items = scheduler.schedule()
    for item in items:
        scheduler.advance(item, [7] * (1 + min(num_accepted, item.max_draft_tokens)) if item.draws else [])
    return [(item.num_tokens, item.max_draft_tokens) for item in items]
