"""Tokens to text as they come, ended by stop strings.

Does not know the response that carries the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class Piece(NamedTuple):
    """Text that may be shown now, and how many of the pushed tokens it took to get there."""

    text: str
    num_tokens: int


class TextStream(Protocol):
    """Turns one choice's tokens into text."""

    @property
    def stopped_by(self) -> str | None:
        """The stop string that ended the text."""
        ...

    def push(self, token_ids: Sequence[int], *, is_final: bool) -> Piece: ...


class WholeText:
    """All text at the end, decoded at once: for answers that nobody watches and no stop string ends."""

    stopped_by: str | None = None

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._token_ids: list[int] = []

    def push(self, token_ids: Sequence[int], *, is_final: bool) -> Piece:
        self._token_ids.extend(token_ids)
        return Piece(self._decode(self._token_ids) if is_final else "", len(token_ids))


class RunningText:
    """Text token by token, for streams."""

    stopped_by: str | None = None

    def __init__(self, append: Callable[[int], str], finish: Callable[[], str]) -> None:
        self._append = append
        self._finish = finish

    def push(self, token_ids: Sequence[int], *, is_final: bool) -> Piece:
        text = "".join([self._append(token_id) for token_id in token_ids])
        return Piece(text + self._finish() if is_final else text, len(token_ids))


class StoppingText:
    """Text token by token that ends before the first stop string, wherever step borders fall.

    The end of the text is held back while it may still become a stop string. Text of the first
    `min_tokens` tokens is not searched, as in vLLM.
    """

    def __init__(self, running: RunningText, stop: Sequence[str], *, min_tokens: int, include_stop: bool) -> None:
        assert stop
        assert all(stop)
        self._running = running
        self._stop = tuple(stop)
        self._tokens_to_skip = min_tokens
        self._include_stop = include_stop
        self._held = ""
        self.stopped_by: str | None = None

    def push(self, token_ids: Sequence[int], *, is_final: bool) -> Piece:
        shown: list[str] = []
        for count, token_id in enumerate(token_ids, start=1):
            shown.append(self._advance((token_id,), is_final=False))
            if self.stopped_by is not None:
                return Piece("".join(shown), count)
        if is_final:
            shown.append(self._advance((), is_final=True))
        return Piece("".join(shown), len(token_ids))

    def _advance(self, token_ids: tuple[int, ...], *, is_final: bool) -> str:
        self._held += self._running.push(token_ids, is_final=is_final).text
        self._tokens_to_skip -= len(token_ids)
        if self._tokens_to_skip >= 0:
            return self._release(len(self._held))
        if (found := self._first_stop()) is not None:
            begin, self.stopped_by = found
            return self._release(begin + (len(self.stopped_by) if self._include_stop else 0))
        return self._release(len(self._held) - (0 if is_final else self._num_held_back()))

    def _first_stop(self) -> tuple[int, str] | None:
        found = [(begin, stop) for stop in self._stop if (begin := self._held.find(stop)) >= 0]
        return min(found, default=None, key=lambda pair: pair[0])

    def _num_held_back(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        held = self._held
        longest = min(len(held), max(map(len, self._stop)) - 1)
        lengths = range(longest, 0, -1)
        return next((n for n in lengths if any(stop.startswith(held[-n:]) for stop in self._stop)), 0)

    def _release(self, num_characters: int) -> str:
        shown, self._held = self._held[:num_characters], self._held[num_characters:]
        return shown
