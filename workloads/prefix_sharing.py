"""How much of the prompts a prefix cache of infinite size would have held.

Does not know engines or their block managers: only leading runs of blocks seen before count as hits.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workloads.columns import requests_from_table
from workloads.metadata import PrefixHashing
from workloads.profile import PrefixSharing
from workloads.request import Request
from workloads.tokenizer import TokenCounter, text_of

BLOCK_TOKENS = 16
BLOCK_CHARACTERS = 64  # about 16 tokens of English
_CONTENT = ("prefix_hashes", "prompt_token_ids", "messages", "prompt")
_READ = ("request_id", "session_id", "input_tokens")
MAX_BLOCKS = 4_000_000  # distinct ones: bounds memory
MAX_BLOCKS_KEPT = 12_000_000  # of all prompts, by `PrefixChains`


Ints = npt.NDArray[np.int64]


class PrefixMeter:
    """Feed tables in order of arrival; `result` gives the ideal hit ratio of what was seen."""

    def __init__(self, hashing: PrefixHashing | None, tokenizer: TokenCounter | None = None) -> None:
        self._hashing = hashing
        self._tokenizer = tokenizer
        self._seen: set[int] = set()
        self._total = 0
        self._hits = 0
        self._num_requests = 0
        self._bases: dict[str, int] = {}  # what was hashed and its block size
        self._unit = "tokens"
        self._row = self._first_row = self._end_row = 0

    @property
    def is_full(self) -> bool:
        return len(self._seen) >= MAX_BLOCKS

    def feed(self, table: pa.Table) -> None:
        """Take the requests of a table until enough blocks have been seen."""
        given = [name for name in _CONTENT if table.column(name).null_count < len(table)]
        self._first_row, self._end_row = self._end_row, self._end_row + len(table)
        if not given:
            return
        for row, request in enumerate(requests_from_table(table.select([*_READ, *given]))):
            if self.is_full:
                return
            self._row = self._first_row + row
            self._take(request)

    def _take(self, request: Request) -> None:
        if request.prefix_hashes is not None and self._hashing is not None:
            self._take_hashes(request, request.prefix_hashes, self._hashing)
        elif (ids := self._token_ids(request)) is not None:
            self._take_pieces(ids, BLOCK_TOKENS, "token ids in blocks of 16")
        elif (text := _text(request)) is not None:
            self._unit = "characters"
            self._take_pieces(text, BLOCK_CHARACTERS, "text in chunks of 64 characters, about 16 tokens")

    def _token_ids(self, request: Request) -> Sequence[int] | None:
        if request.prompt_token_ids is not None:
            return request.prompt_token_ids
        if self._tokenizer is None:
            return None
        if request.messages is not None:
            return self._tokenizer.ids(self._tokenizer.chat_text(request.chat_messages()))
        return self._tokenizer.ids(request.prompt, special=True) if request.prompt is not None else None

    def _take_hashes(self, request: Request, hashes: Sequence[int], hashing: PrefixHashing) -> None:
        size = hashing.block_size
        length = request.input_tokens if request.input_tokens is not None else size * len(hashes)
        scope = request.session_id if hashing.scope == "session" else None
        blocks = ((value, min(size, length - size * i)) for i, value in enumerate(hashes))
        self._count(blocks, length, seed=scope)
        self._bases[f"recorded hashes in blocks of {size}"] = size

    def _take_pieces(self, content: Sequence[int] | str, size: int, basis: str) -> None:
        """Whole blocks alone can be shared; the rest of the prompt still counts as its length."""
        whole = range(0, len(content) - size + 1, size)
        self._count(((_frozen(content[i : i + size]), size) for i in whole), len(content), seed=None)
        self._bases[basis] = size

    def _count(self, blocks: Iterable[tuple[Hashable, int]], length: int, *, seed: Hashable) -> None:
        chain, leading = hash(seed), True
        for block, size in blocks:
            chain = hash((chain, block))
            leading = leading and chain in self._seen
            self._hits += size if leading else 0
            self._seen.add(chain)
            self._took(chain, size)
        self._total += length
        self._num_requests += 1

    def _took(self, chain: int, size: int) -> None:
        """A block was counted; for those that keep them."""

    def result(self) -> PrefixSharing | None:
        """None when no request had hashes, ids or text."""
        if not self._total:
            return None
        return PrefixSharing(
            ideal_hit_ratio=self._hits / self._total,
            block_size=next(iter(self._bases.values())),
            basis=" and ".join(self._bases),
            num_requests=self._num_requests,
            unit=self._unit,
        )


class PrefixChains(PrefixMeter):
    """A meter that keeps the blocks, so that the hit ratio of any of the requests among themselves can be asked.

    A block is named by the chain of all blocks up to it: seen before means that those before it were, too.

    Args:
        most: blocks of all prompts together that are looked at.
    """

    def __init__(
        self, hashing: PrefixHashing | None, tokenizer: TokenCounter | None = None, *, most: int = MAX_BLOCKS_KEPT
    ) -> None:
        super().__init__(hashing, tokenizer)
        self._most = most
        self._chains, self._sizes, self._rows = array("q"), array("i"), array("q")
        self._counted_rows, self._lengths = array("q"), array("q")

    @property
    def is_full(self) -> bool:
        return super().is_full or len(self._chains) >= self._most

    def _took(self, chain: int, size: int) -> None:
        self._chains.append(chain)
        self._sizes.append(size)
        self._rows.append(self._row)

    def _count(self, blocks: Iterable[tuple[Hashable, int]], length: int, *, seed: Hashable) -> None:
        super()._count(blocks, length, seed=seed)
        self._counted_rows.append(self._row)
        self._lengths.append(length)

    def blocks(self) -> PrefixBlocks | None:
        """The blocks of every request; None when there are none, or too many to have been kept."""
        return None if self.is_full else self.kept_blocks()

    def kept_blocks(self) -> PrefixBlocks | None:
        """The blocks of the requests looked at, the first ones of a long workload; None when there are none."""
        if not self._total:
            return None
        num_rows = self._row + 1 if self.is_full else self._end_row
        lengths = np.zeros(num_rows, np.int64)
        lengths[np.frombuffer(self._counted_rows, np.int64)] = np.frombuffer(self._lengths, np.int64)
        rows = np.frombuffer(self._rows, np.int64) if self._rows else np.empty(0, np.int64)
        _, names = np.unique(np.array(self._chains, np.int64), return_inverse=True)
        offsets = np.searchsorted(rows, np.arange(num_rows + 1))
        return PrefixBlocks(names.astype(np.int64), np.array(self._sizes, np.int64), offsets, lengths)


class PrefixBlocks(NamedTuple):
    """Blocks of all requests end to end, request i's from offsets[i] to offsets[i+1]; equal name: equal prefix."""

    names: Ints
    sizes: Ints  # tokens
    offsets: Ints  # (num_requests + 1,)
    lengths: Ints  # (num_requests,) tokens of the prompt

    def hit_ratio(self, rows: npt.NDArray[np.integer]) -> float | None:
        """The ideal hit ratio of these requests alone; None when none has blocks or text."""
        total = int(self.lengths[rows].sum())
        if not total:
            return None
        counts = self.offsets[rows + 1] - self.offsets[rows]
        ends = np.cumsum(counts)
        blocks = np.arange(int(ends[-1])) + np.repeat(self.offsets[rows] - (ends - counts), counts)
        names, sizes = self.names[blocks], self.sizes[blocks]
        first = np.empty(int(self.names.max(initial=-1)) + 1, np.int64)  # place of a name's first block; only those set
        first[names[::-1]] = np.arange(len(names))[::-1]  # the last one written stays
        again = first[names] != np.arange(len(names))
        return float(sizes[again].sum()) / total


def _frozen(piece: Sequence[int] | str) -> Hashable:
    return piece if isinstance(piece, str) else tuple(piece)


def _text(request: Request) -> str | None:
    if request.messages is not None:
        return "".join(f"{m.get('role')}: {text_of(m)}\n" for m in request.chat_messages())
    return request.prompt
