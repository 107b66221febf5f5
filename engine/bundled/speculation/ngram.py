"""N-gram speculation: what followed the last time these tokens stood here (prompt lookup decoding).

Does not know models. Source: Saxena 2023, "Prompt lookup decoding".
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import ClassVar

from engine.bundled.paged_model import Forward
from engine.bundled.scheduler import ScheduledSequence
from engine.bundled.sequence import Sequence
from engine.bundled.speculation.draft import Draft


class NgramProposer:
    """Continues the latest earlier occurrence of the longest matching suffix."""

    has_cache: ClassVar[bool] = False
    needs_hidden_states: ClassVar[bool] = False

    def __init__(self, *, min_ngram: int, max_ngram: int) -> None:
        self.sizes = range(max_ngram, min_ngram - 1, -1)  # longest first
        self._indices: dict[Sequence, _NgramIndex] = {}

    def propose(self, scheduled: Seq[ScheduledSequence]) -> list[Draft]:
        return [self._propose(item) for item in scheduled]

    def observe(self, scheduled: Seq[ScheduledSequence], forward: Forward) -> None:  # noqa: ARG002
        raise AssertionError("n-gram speculation reads no hidden states")

    def finished(self, sequence: Sequence) -> None:
        self._indices.pop(sequence, None)

    def reset(self) -> None:
        """Nothing outlives a request."""

    def _propose(self, item: ScheduledSequence) -> Draft:
        if not item.max_draft_tokens:
            return Draft()
        index = self._indices.setdefault(item.sequence, _NgramIndex(self.sizes))
        return Draft.chain(index.continuation(item.sequence.token_ids, item.max_draft_tokens))


class _NgramIndex:
    """For every n-gram of one sequence, where its latest earlier occurrence was continued."""

    def __init__(self, sizes: range) -> None:
        self.sizes = sizes
        self._next: dict[tuple[int, ...], int] = {}
        self._num_indexed = 0

    def continuation(self, token_ids: list[int], count: int) -> list[int]:
        """Up to `count` tokens after the latest match, running on into the draft where history ends."""
        self._extend(token_ids)
        start = self._match(token_ids)
        if start is None:
            return []
        history = token_ids[start:]
        while len(history) < count:
            history += history[: count - len(history)]
        return history[:count]

    def _match(self, token_ids: list[int]) -> int | None:
        for size in self.sizes:
            found = self._next.get(tuple(token_ids[-size:]))
            if found is not None:
                return found
        return None

    def _extend(self, token_ids: list[int]) -> None:
        """Index n-grams that something follows: those ending before the last token."""
        for end in range(self._num_indexed + 1, len(token_ids)):
            for size in self.sizes:
                if size <= end:
                    self._next[tuple(token_ids[end - size : end])] = end
        self._num_indexed = max(self._num_indexed, len(token_ids) - 1)
