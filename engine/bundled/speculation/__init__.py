"""Speculation: proposers draft tokens, the target verifies them in one pass, rejection keeps it exact.

`PROPOSERS` maps `speculative_config.method` to how its proposer is made.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.bundled.paged_model import Model
from engine.bundled.speculation.draft import Draft, Proposer
from engine.bundled.speculation.draft_model import DraftModelProposer
from engine.bundled.speculation.ngram import NgramProposer
from engine.bundled.speculation.suffix import SuffixProposer
from engine.config import SpeculativeConfig

__all__ = ["PROPOSERS", "Draft", "Proposer"]


def _ngram(config: SpeculativeConfig, _model: Model | None) -> Proposer:
    return NgramProposer(min_ngram=config.prompt_lookup_min, max_ngram=config.prompt_lookup_max)


def _suffix(config: SpeculativeConfig, _model: Model | None) -> Proposer:
    return SuffixProposer(
        max_depth=config.suffix_decoding_max_tree_depth,
        max_requests=config.suffix_decoding_max_cached_requests,
        spec_factor=config.suffix_decoding_max_spec_factor,
        min_probability=config.suffix_decoding_min_token_prob,
    )


def _draft_model(_config: SpeculativeConfig, model: Model | None) -> Proposer:
    assert model is not None, "the engine loads the draft's folder"
    return DraftModelProposer(model)


PROPOSERS: dict[str, Callable[[SpeculativeConfig, Model | None], Proposer]] = {
    "ngram": _ngram,
    "suffix": _suffix,
    "draft_model": _draft_model,
}
