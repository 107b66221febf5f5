"""`PromptWriter`: a recorded request as a greedy, unstreamed question of free length.

Does not send it.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from optimizer.quality.client import Query
from workloads.prompts import PromptBuilder
from workloads.request import Request
from workloads.workload import Workload

MAX_RESPONSE_TOKENS = 512
_NOT_ASKED = ("stream", "stream_options", "top_p", "top_k", "seed")


class PromptWriter:
    """Writes the questions for one workload; those without text get the same synthetic prompts as in a replay.

    Args:
        adapters: LoRA adapters that the server has; requests for others ask the base model, as in a replay.
    """

    def __init__(self, workload: Workload, *, vocab_size: int | None, adapters: Collection[str] = ()) -> None:
        self._builder = PromptBuilder(
            model="",
            metadata=workload.metadata,
            pin_lengths=False,
            vocab_size=vocab_size,
            served_models=adapters,
        )

    def query(self, request: Request) -> Query:
        """Raises WorkloadError when the request holds nothing to send."""
        prepared = self._builder.build(request)
        body = json.loads(prepared.body)
        asked = {name: value for name, value in body.items() if name not in _NOT_ASKED}
        asked |= {"temperature": 0.0, "max_tokens": free_length(request)}
        return Query(path=prepared.path, body=asked, adapter=body["model"] or None)


def free_length(request: Request) -> int:
    """Most tokens of a free answer: as sent, else room for twice the recorded length."""
    asked = request.max_tokens or 2 * (request.output_tokens or 64) + 32
    return min(asked, MAX_RESPONSE_TOKENS)
