"""`Reply`: the JSON of an answer, whole or as server-sent events; one subclass an endpoint.

Does not know where the choices come from.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from engine.bundled.server.choice import Choice, Delta
from engine.bundled.server.job import GenerationJob
from engine.bundled.server.logprob_forms import TokenTexts
from engine.bundled.server.usage import usage

quote = json.encoder.encode_basestring_ascii
DONE = "data: [DONE]\n\n"


class Reply(ABC):
    """Formats one job's answer. Events are put together from strings: they are made for every token."""

    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(self, job: GenerationJob, texts: TokenTexts) -> None:
        self.job = job
        self.texts = texts
        self._chunk_head = json.dumps(self._head(self.chunk_object), separators=(",", ":"))[:-1]

    def _head(self, kind: str) -> dict[str, Any]:
        job = self.job
        return {"id": job.request_id, "object": kind, "created": job.created, "model": job.model_name}

    @abstractmethod
    def events(self, choice: Choice, delta: Delta, choices: Sequence[Choice]) -> str:
        """The server-sent events of one engine output; one, but for what opens a choice."""

    @abstractmethod
    def choice_object(self, choice: Choice) -> dict[str, Any]:
        """One choice of a whole answer."""

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer of a request that does not stream."""
        objects = [self.choice_object(choice) for choice in choices]
        return {**self._head(self.whole_object), "choices": objects, "usage": usage(self.job, choices)}

    def closing(self, choices: Sequence[Choice]) -> str:
        """What ends a stream: the usage when asked for, and the end mark."""
        if not self.job.include_usage:
            return DONE
        counts = json.dumps(usage(self.job, choices))
        return f'data: {self._chunk_head},"choices":[],"usage":{counts}}}\n\n{DONE}'

    def event(self, choice: Choice, members: str, choices: Sequence[Choice], *, top_level: str = "") -> str:
        """One event with one choice; `members` and `top_level` are JSON members with a leading comma."""
        use = self._usage_member(choices) if self.job.include_usage else ""
        return f'data: {self._chunk_head},"choices":[{{"index":{choice.index}{members}}}]{use}{top_level}}}\n\n'

    def _usage_member(self, choices: Sequence[Choice]) -> str:
        if not self.job.continuous_usage:
            return ',"usage":null'
        return f',"usage":{json.dumps(usage(self.job, choices))}'


def ending(choice: Choice) -> str:
    """The members that say whether and why a choice ended."""
    if choice.finish_reason is None:
        return ',"finish_reason":null'
    return f',"finish_reason":"{choice.finish_reason}","stop_reason":{json.dumps(choice.stop_reason)}'
