"""`PromptWriter`: a recorded request as a greedy, unstreamed question of free length.

Does not send it.
"""

from __future__ import annotations

import json

from optimizer.quality.client import Query
from workloads.prompts import PromptBuilder
from workloads.request import Request
from workloads.workload import Workload

MAX_RESPONSE_TOKENS = 512
_NOT_ASKED = ("stream", "stream_options", "top_p", "top_k", "seed")


class PromptWriter:
    """Writes the questions for one workload; those without text get the same synthetic prompts as in a replay."""

    def __init__(self, workload: Workload, *, vocab_size: int | None) -> None:
        metadata = workload.metadata
        self._builder = PromptBuilder(model="", metadata=metadata, pin_lengths=False, vocab_size=vocab_size)

    def query(self, request: Request) -> Query:
        """Raises WorkloadError when the request holds nothing to send."""
        prepared = self._builder.build(request)
        body = json.loads(prepared.body)
        asked = {name: value for name, value in body.items() if name not in _NOT_ASKED}
        return Query(path=prepared.path, body=asked | {"temperature": 0.0, "max_tokens": free_length(request)})


def free_length(request: Request) -> int:
    """Most tokens of a free answer: as sent, else room for twice the recorded length."""
    asked = request.max_tokens or 2 * (request.output_tokens or 64) + 32
    return min(asked, MAX_RESPONSE_TOKENS)
