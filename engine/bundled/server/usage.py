"""Token counts as OpenAI reports them.

Does not know prices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.bundled.server.choice import Choice
from engine.bundled.server.job import GenerationJob


def usage(job: GenerationJob, choices: Iterable[Choice]) -> dict[str, Any]:
    """Usage so far: prompts once each, completion tokens of all choices, prompt tokens found in the prefix cache."""
    num_completion = num_cached = 0
    for choice in choices:
        num_completion += len(choice.token_ids)
        num_cached += choice.num_cached_tokens if choice.index % job.n == 0 else 0
    return {
        "prompt_tokens": job.num_prompt_tokens,
        "total_tokens": job.num_prompt_tokens + num_completion,
        "completion_tokens": num_completion,
        "prompt_tokens_details": {"cached_tokens": num_cached},
    }
