"""`paged_model`: how the eager network's steps are computed on a device: CUDA graphs and Triton where they can be.

Does not know CPUs' compiled steps (`FusedModel`), speculation or scheduling.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec

import torch

from engine.bundled.draft_length import max_draft_tokens
from engine.bundled.loader import LoadedModel
from engine.bundled.lora.low_rank import AdapterRows
from engine.bundled.paged_model import Model, PagedModel
from engine.config import EngineConfig, SpeculativeConfig

_log = logging.getLogger(__name__)
_FEWEST_DIMENSIONS = 16  # of a head, in Triton's products


def paged_model(
    model: LoadedModel,
    config: EngineConfig,
    *,
    num_blocks: int,
    max_model_len: int,
    device: torch.device,
    adapter_rows: AdapterRows | None = None,
) -> Model:
    """The network with its cache; a reason is logged where its steps are slower than they could be."""
    on_pages = device.type == "cuda" and _triton_serves(model.config.head_dim)
    graphed = on_pages and not config.enforce_eager
    paged = PagedModel(
        model,
        num_blocks=num_blocks + graphed,  # padding writes to the last
        block_size=config.block_size,
        max_short_query=1 + max_draft_tokens(config.speculative_config),
        kv_format=config.quantization.kv_cache,
        attention="triton" if on_pages else "gathered",
        adapter_rows=adapter_rows,
    )
    return _graphed(paged, config, max_model_len) if graphed else paged


def _triton_serves(head_dim: int) -> bool:
    if find_spec("triton") is None:
        _log.warning("no Triton: attention gathers its pages, which is slower. Install triton")
        return False
    if head_dim < _FEWEST_DIMENSIONS or head_dim & (head_dim - 1):
        _log.warning("heads of %d are no power of two: attention gathers its pages, which is slower", head_dim)
        return False
    return True


def _graphed(paged: PagedModel, config: EngineConfig, max_model_len: int) -> Model:
    from engine.bundled.graphed_model import GraphedModel

    try:
        return GraphedModel(
            paged,
            max_num_seqs=config.max_num_seqs,
            max_model_len=max_model_len,
            lengths=_lengths(config.speculative_config),
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as reason:
        _log.warning("no CUDA graphs, slower: %s", reason)
        return paged


def _lengths(speculation: SpeculativeConfig | None) -> list[int]:
    """Tokens a sequence: a plain step, verification of a whole draft, and a short one where drafts vary much."""
    longest = 1 + max_draft_tokens(speculation)
    return [length for length in (1, 5) if length < longest] + [longest]
