"""Drawn answers under speculation against those of plain decoding."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scipy import stats

from engine.bundled.llm_engine import LLMEngine, SamplingParams

NUM_SEEDS = 3000


def assert_same_law(
    make_engine: Callable[..., LLMEngine], target: Path, speculation: dict[str, Any], *, max_tokens: int
) -> None:
    """Chi-square of whole answers, over seeds that differ between the two; some drafts are kept and some are not."""
    samples = []
    for config, first_seed in ((None, 0), (speculation, 10_000)):
        engine = make_engine(model=str(target), speculative_config=config, max_num_seqs=500, block_size=16)
        params = [SamplingParams(max_tokens=max_tokens, temperature=1.2, seed=first_seed + i) for i in range(NUM_SEEDS)]
        samples.append(Counter(map(tuple, engine.generate([[1, 2, 3, 1, 2]] * NUM_SEEDS, params))))
    plain, speculative = samples
    outcomes = [outcome for outcome in plain | speculative if plain[outcome] + speculative[outcome] >= 20]
    table = [[sample[outcome] for outcome in outcomes] for sample in samples]
    assert stats.chi2_contingency(table).pvalue > 1e-3
    assert 0 < engine.counters().num_accepted_tokens < engine.counters().num_draft_tokens
