"""How much of the recorded responses stands already in their prompts: what speculation by lookup could copy.

Does not know engines: the drafter is a plain prompt lookup, simulated on the recorded tokens, so every draft that
agrees with the recording is accepted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Sequence

import pyarrow as pa

from workloads.columns import requests_from_table
from workloads.profile import Repetition, quantiles
from workloads.request import Request
from workloads.tokenizer import TokenCounter, text_of

LOOKUP_NGRAM = 3  # pieces that a draft's place is looked up by
DRAFT_LENGTH = 5
COPY_NGRAMS = (1, 2, 4, 8)
NUM_LOOKED_AT = 512  # requests
_MOST_PIECES = 2_000_000  # of all of them: bounds time
_MOST_OF_ONE = 20_000  # pieces of one prompt, its end
_PIECE = re.compile(r"\w+|\s+|[^\w\s]")
_COLUMNS = ("messages", "prompt", "prompt_token_ids", "response", "response_token_ids")

Pieces = Sequence[Hashable]


class RepetitionMeter:
    """Feed tables; requests with a recorded response are looked at, one in so many of a long workload."""

    def __init__(self, num_requests: int, tokenizer: TokenCounter | None = None) -> None:
        self._every = max(1, -(-num_requests // NUM_LOOKED_AT))
        self._tokenizer = tokenizer
        self._row = 0
        self._num_pieces = 0
        self._copied: dict[int, list[int]] = {n: [0, 0] for n in COPY_NGRAMS}  # n-grams found, all
        self._tokens_per_step: list[float] = []
        self._copied_share: list[float] = []
        self._bases: set[str] = set()

    def feed(self, table: pa.Table) -> None:
        """Take the requests of a table until enough has been seen."""
        first, self._row = self._row, self._row + len(table)
        if table.column("response").null_count == len(table) == table.column("response_token_ids").null_count:
            return
        rows = range(-first % self._every, len(table), self._every)
        for request in requests_from_table(table.select(["request_id", *_COLUMNS]).take(pa.array(rows, pa.int64()))):
            if self._num_pieces < _MOST_PIECES:
                self._take(request)

    def _take(self, request: Request) -> None:
        pieces = self._pieces(request)
        if pieces is None:
            return
        prompt, response = pieces[0][-_MOST_OF_ONE:], pieces[1][:_MOST_OF_ONE]
        self._num_pieces += len(prompt) + len(response)
        if not prompt or len(response) < 2:
            return
        for n, counts in self._copied.items():
            known = {tuple(prompt[i : i + n]) for i in range(len(prompt) - n + 1)}
            grams = [tuple(response[i : i + n]) for i in range(len(response) - n + 1)]
            num_known = sum(gram in known for gram in grams)
            counts[0] += num_known
            counts[1] += len(grams)
            if n == 4 and grams:
                self._copied_share.append(num_known / len(grams))
        self._tokens_per_step.append(len(response) / lookup_steps(prompt, response))

    def _pieces(self, request: Request) -> tuple[Pieces, Pieces] | None:
        """Prompt and response as the same kind of pieces; None where one of them is not recorded."""
        if request.prompt_token_ids is not None and request.response_token_ids is not None:
            self._bases.add("token ids")
            return request.prompt_token_ids, request.response_token_ids
        text = _prompt_text(request)
        if text is None or request.response is None:
            return None
        if self._tokenizer is not None:
            self._bases.add("tokens")
            return self._tokenizer.ids(text), self._tokenizer.ids(request.response)
        self._bases.add("words")
        return _PIECE.findall(text), _PIECE.findall(request.response)

    def result(self) -> Repetition | None:
        """None when no request has both a prompt and a response."""
        per_step, share = quantiles(self._tokens_per_step), quantiles(self._copied_share)
        if per_step is None:
            return None
        copied = {str(n): found / total for n, (found, total) in self._copied.items() if total}
        return Repetition(
            basis=" and ".join(sorted(self._bases)),
            num_requests=len(self._tokens_per_step),
            copied=copied,
            copied_share=share,
            tokens_per_step=per_step,
            per_request=tuple(round(value, 3) for value in self._tokens_per_step),
        )


def lookup_steps(prompt: Pieces, response: Pieces) -> int:
    """Engine steps to produce the response when what followed the last three pieces before is drafted each time.

    A step gives the accepted drafts and one piece more; the latest earlier place is taken.
    """
    text = [*prompt, *response]
    places: dict[tuple[Hashable, ...], int] = defaultdict(lambda: -1)
    known = LOOKUP_NGRAM  # n-grams that end before here are in `places`
    at, num_steps = len(prompt), 0
    while at < len(text):
        for end in range(known, at):
            places[tuple(text[end - LOOKUP_NGRAM : end])] = end
        known = max(known, at)
        found = places.get(tuple(text[at - LOOKUP_NGRAM : at]), -1) if at >= LOOKUP_NGRAM else -1
        accepted = 0
        if found >= 0:
            most = min(DRAFT_LENGTH, len(text) - at - 1, at - found)
            while accepted < most and text[found + accepted] == text[at + accepted]:
                accepted += 1
        at += accepted + 1
        num_steps += 1
    return num_steps


def _prompt_text(request: Request) -> str | None:
    if request.messages is not None:
        return "\n".join(text_of(message) for message in request.chat_messages())
    return request.prompt
