"""Speculation: proposers draft tokens, the target verifies them in one pass, rejection keeps it exact.

`PROPOSERS` maps `speculative_config.method` to how its proposer is made, from what `loading.py` has read.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.bundled.fused.fused_heads import FusedHeads
from engine.bundled.fused.library import UnavailableError
from engine.bundled.head_loader import EagleInput, MedusaHeads
from engine.bundled.paged_model import Model
from engine.bundled.speculation.draft import Draft, Proposer
from engine.bundled.speculation.draft_model import DraftModelProposer
from engine.bundled.speculation.eagle import EagleProposer
from engine.bundled.speculation.medusa import MedusaProposer
from engine.bundled.speculation.ngram import NgramProposer
from engine.bundled.speculation.parts import DraftParts, load_draft_parts
from engine.bundled.speculation.suffix import SuffixProposer
from engine.config import EngineConfig, SpeculativeConfig

__all__ = ["Draft", "DraftParts", "Proposer", "load_draft_parts", "make_proposer"]


def _ngram(config: SpeculativeConfig, _parts: DraftParts, _model: Model | None, _engine: EngineConfig) -> Proposer:
    return NgramProposer(min_ngram=config.prompt_lookup_min, max_ngram=config.prompt_lookup_max)


def _suffix(config: SpeculativeConfig, _parts: DraftParts, _model: Model | None, _engine: EngineConfig) -> Proposer:
    return SuffixProposer(
        max_depth=config.suffix_decoding_max_tree_depth,
        max_requests=config.suffix_decoding_max_cached_requests,
        spec_factor=config.suffix_decoding_max_spec_factor,
        min_probability=config.suffix_decoding_min_token_prob,
    )


def _draft_model(
    _config: SpeculativeConfig, _parts: DraftParts, model: Model | None, _engine: EngineConfig
) -> Proposer:
    assert model is not None, "the engine pages the draft"
    return DraftModelProposer(model)


def _medusa(config: SpeculativeConfig, parts: DraftParts, _model: Model | None, engine: EngineConfig) -> Proposer:
    heads = parts.heads
    assert isinstance(heads, MedusaHeads)
    return MedusaProposer(
        heads if engine.enforce_eager else _compiled(heads),
        num_heads=heads.num_heads,
        vocab_size=heads.vocab_size,
        drafts_trees=config.tree_nodes is not None,
    )


def _compiled(heads: MedusaHeads) -> FusedHeads | MedusaHeads:
    """Where this machine can, else as they are; the engine says why it runs eagerly."""
    if heads.heads.device.type != "cpu":
        return heads
    try:
        return FusedHeads(heads)
    except UnavailableError:
        return heads


def _eagle(_config: SpeculativeConfig, parts: DraftParts, model: Model | None, engine: EngineConfig) -> Proposer:
    assert isinstance(parts.heads, EagleInput)
    assert model is not None, "the engine pages the head's layer"
    return EagleProposer(model, parts.heads, block_size=engine.block_size)


PROPOSERS: dict[str, Callable[[SpeculativeConfig, DraftParts, Model | None, EngineConfig], Proposer]] = {
    "ngram": _ngram,
    "suffix": _suffix,
    "draft_model": _draft_model,
    "medusa": _medusa,
    "eagle": _eagle,
}


def make_proposer(config: EngineConfig, parts: DraftParts, model: Model | None) -> Proposer | None:
    """The proposer that the config asks for; `model` is `parts.paged` with its cache."""
    speculation = config.speculative_config
    if speculation is None:
        return None
    return PROPOSERS[speculation.method](speculation, parts, model, config)
