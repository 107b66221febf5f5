"""`GenerationJob`: what one HTTP request asks of the engine, whichever endpoint it came by.

Does not know JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.bundled.sampling_params import SamplingParams
from engine.bundled.sequence import ANYBODY, Standing


@dataclass(frozen=True, kw_only=True)
class GenerationJob:
    """`n` choices for each prompt; choice i answers prompt i // n."""

    request_id: str
    created: int  # seconds since the epoch
    model_name: str
    prompts: tuple[list[int], ...]
    params: tuple[SamplingParams, ...]  # one a prompt: the default length depends on the prompt's
    standing: Standing = ANYBODY
    n: int = 1
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    skip_special_tokens: bool = True
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    return_token_ids: bool = False
    echo: bool = False
    scores_only: bool = False  # max_tokens 0: the one token the engine must generate is dropped

    @property
    def num_choices(self) -> int:
        return self.n * len(self.prompts)

    @property
    def num_prompt_tokens(self) -> int:
        """Each prompt counts once, however many choices it has."""
        return sum(map(len, self.prompts))

    def params_of(self, index: int) -> SamplingParams:
        """How choice `index` is drawn: with a seed, each choice of one prompt has its own."""
        params = self.params[index // self.n]
        if params.seed is None or index % self.n == 0:
            return params
        return replace(params, seed=params.seed + index % self.n)
