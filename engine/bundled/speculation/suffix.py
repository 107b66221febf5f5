"""Suffix decoding: what followed the longest earlier occurrence of the latest tokens, here or in past outputs.

Does not know models. Source: Oliaro et al. 2024, "SuffixDecoding": how much is proposed grows with how much matches,
and continuations are weighed by how often they followed. Here pairs of tokens are indexed instead of a tree, and the
latest `MAX_PLACES` places of a pair vote, so that one more token costs one dictionary entry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Seq
from typing import ClassVar, NamedTuple

from engine.bundled.paged_model import Forward
from engine.bundled.scheduler import ScheduledSequence
from engine.bundled.sequence import Sequence
from engine.bundled.speculation.draft import Draft

MAX_PLACES = 8
_END = -1  # between streams; no token


class Continuation(NamedTuple):
    """Tokens proposed, and how many of them the counts expect to be kept."""

    token_ids: list[int]
    score: float


_NOTHING = Continuation([], 0.0)


class SuffixProposer:
    """Proposes from the request's own tokens or from earlier requests' outputs, whichever promises more.

    Args:
        max_depth: tokens that a match is followed back at most.
        max_requests: outputs remembered; the older half is forgotten at once.
        spec_factor: tokens proposed per token matched, at most.
        min_probability: a draft ends before its probability, by the counts, falls below.
    """

    has_cache: ClassVar[bool] = False
    needs_hidden_states: ClassVar[bool] = False

    def __init__(self, *, max_depth: int, max_requests: int, spec_factor: float, min_probability: float) -> None:
        self.max_depth, self.spec_factor, self.min_probability = max_depth, spec_factor, min_probability
        self._own: dict[Sequence, TokenHistory] = {}
        self._past = PastOutputs(max_requests)
        self._max_requests = max_requests

    def propose(self, scheduled: Seq[ScheduledSequence]) -> list[Draft]:
        return [self._propose(item) for item in scheduled]

    def observe(self, scheduled: Seq[ScheduledSequence], forward: Forward) -> None:  # noqa: ARG002
        raise AssertionError("suffix decoding reads no hidden states")

    def finished(self, sequence: Sequence) -> None:
        self._past.add(sequence.token_ids[sequence.num_prompt_tokens :])
        self._own.pop(sequence, None)

    def reset(self) -> None:
        self._past = PastOutputs(self._max_requests)

    def _propose(self, item: ScheduledSequence) -> Draft:
        if not item.max_draft_tokens:
            return Draft()
        token_ids = item.sequence.token_ids
        own = self._own.get(item.sequence)
        if own is None:
            own = self._own[item.sequence] = TokenHistory(token_ids)
        own.catch_up()
        best = _NOTHING
        for history in (own, *self._past.generations):
            found = self._continue(history, token_ids, item.max_draft_tokens)
            if found.score > best.score:
                best = found
        return Draft.chain(best.token_ids)

    def _continue(self, history: TokenHistory, token_ids: list[int], max_tokens: int) -> Continuation:
        places, length = history.longest_matches(token_ids, self.max_depth)
        if not places:
            return _NOTHING
        count = min(max_tokens, max(1, int(self.spec_factor * length)))
        return history.continuation(places, count, self.min_probability)


class TokenHistory:
    """A growing list of tokens and the places where each pair of them stood.

    Args:
        tokens: read on when `catch_up` is called; may be appended to by its owner.
    """

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self._places: dict[tuple[int, int], list[int]] = {}  # pair -> where what followed it stands
        self._num_indexed = 1

    def catch_up(self) -> None:
        """Index the pairs that something follows."""
        tokens, places = self.tokens, self._places
        for place in range(max(2, self._num_indexed + 1), len(tokens)):
            places.setdefault((tokens[place - 2], tokens[place - 1]), []).append(place)
        self._num_indexed = max(self._num_indexed, len(tokens) - 1)

    def longest_matches(self, context: list[int], max_depth: int) -> tuple[list[int], int]:
        """Places after the longest match of `context`'s end, latest first, and the match's length (two at least)."""
        if len(context) < 2:
            return [], 0
        best: list[int] = []
        longest = 0
        for place in reversed(self._places.get((context[-2], context[-1]), [])[-MAX_PLACES:]):
            length = self._match_length(place, context, max_depth)
            if length > longest:
                best, longest = [], length
            if length == longest:
                best.append(place)
        return best, longest

    def _match_length(self, place: int, context: list[int], max_depth: int) -> int:
        tokens, length, end = self.tokens, 2, len(context)
        limit = min(max_depth, place, end)
        while length < limit and tokens[place - length - 1] == context[end - length - 1]:
            length += 1
        return length

    def continuation(self, places: list[int], count: int, min_probability: float) -> Continuation:
        """The likeliest path of up to `count` tokens from the places on, running on into itself where tokens end."""
        path: list[int] = []
        score, probability = 0.0, 1.0
        while len(path) < count:
            if len(places) == 1 and places[0] < len(self.tokens):
                run = self._run(places[0], count - len(path))
                if not run:
                    break
                path += run
                score += probability * len(run)
                places = [places[0] + len(run)]
                continue
            following = [self._at(place, path) for place in places]
            token, votes = following[0], following.count(following[0])
            if votes < len(places):
                token, votes = Counter(following).most_common(1)[0]
            probability *= votes / len(places)
            if token == _END or probability < min_probability:
                break
            path.append(token)
            score += probability
            places = [place + 1 for place, other in zip(places, following, strict=True) if other == token]
        return Continuation(path, score)

    def _run(self, place: int, count: int) -> list[int]:
        """Up to `count` tokens from the place on, to the end of their stream."""
        run = self.tokens[place : place + count]
        return run[: run.index(_END)] if _END in run else run

    def _at(self, place: int, path: list[int]) -> int:
        tokens = self.tokens
        return tokens[place] if place < len(tokens) else path[place - len(tokens)]


class PastOutputs:
    """Finished requests' outputs in two generations: when the younger is full, the older is forgotten."""

    def __init__(self, max_requests: int) -> None:
        self._limit = (max_requests + 1) // 2
        self._num_requests = 0
        self.generations = [TokenHistory([_END])]

    def add(self, token_ids: list[int]) -> None:
        if not self._limit:
            return
        if self._num_requests == self._limit:
            self.generations = [TokenHistory([_END]), self.generations[0]]
            self._num_requests = 0
        young = self.generations[0]
        young.tokens += [*token_ids, _END]
        young.catch_up()
        self._num_requests += 1
