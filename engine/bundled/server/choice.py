"""One choice of an answer while it grows: tokens, text, logprobs and why it ended.

Does not know the JSON around it.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.bundled.outputs import RequestOutput, TokenLogprob
from engine.bundled.server.text_stream import TextStream


@dataclass(slots=True)
class Delta:
    """What one engine output adds to a choice."""

    is_first: bool
    text: str
    token_ids: list[int]
    logprobs: list[TokenLogprob] | None


class Choice:
    """Grows by engine outputs; `finish_reason` is None until it is complete."""

    def __init__(
        self, *, index: int, prompt: list[int], text: TextStream, stop_token_ids: frozenset[int], keeps_stop: bool
    ) -> None:
        self.index = index
        self.prompt = prompt
        self.text_parts: list[str] = []
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.prompt_logprobs: list[TokenLogprob | None] | None = None
        self.num_cached_tokens = 0
        self.finish_reason: str | None = None
        self.stop_reason: str | int | None = None
        self._text = text
        self._stop_token_ids = stop_token_ids
        self._keeps_stop = keeps_stop
        self._is_new = True

    @property
    def text(self) -> str:
        return "".join(self.text_parts)

    @property
    def is_cut_short(self) -> bool:
        """A stop string ended it: the engine would go on and has to be told."""
        return self._text.stopped_by is not None

    def update(self, output: RequestOutput) -> Delta:
        """Take one engine output in."""
        assert self.finish_reason is None, "a finished choice gets nothing more"
        token_ids = output.token_ids
        self.finish_reason = output.finish_reason
        num_hidden = self._num_hidden(token_ids)
        piece = self._text.push(token_ids[: len(token_ids) - num_hidden], is_final=output.finish_reason is not None)
        if self.is_cut_short:
            token_ids = token_ids[: piece.num_tokens]
            self.finish_reason, self.stop_reason = "stop", self._text.stopped_by
        elif self.finish_reason == "stop":
            self.stop_reason = next((last for last in token_ids[-1:] if last in self._stop_token_ids), None)
        return self._take(output, token_ids, piece.text)

    def _num_hidden(self, token_ids: list[int]) -> int:
        """The token that ended the answer is counted, but its text is not shown unless asked for."""
        return 1 if self.finish_reason == "stop" and token_ids and not self._keeps_stop else 0

    def _take(self, output: RequestOutput, token_ids: list[int], text: str) -> Delta:
        logprobs = None if output.logprobs is None else output.logprobs[: len(token_ids)]
        self.logprobs.extend(logprobs or ())
        if output.prompt_logprobs is not None:
            self.prompt_logprobs = output.prompt_logprobs
        self.num_cached_tokens = max(self.num_cached_tokens, output.num_cached_tokens)
        self.text_parts.append(text)
        self.token_ids.extend(token_ids)
        delta = Delta(self._is_new, text, token_ids, logprobs)
        self._is_new = False
        return delta
