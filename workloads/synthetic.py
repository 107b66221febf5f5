"""Token ids for prompts that were recorded without text: the same block hash always gives the same ids.

Does not know tokenizers: ids are drawn from the middle of the vocabulary, where no tokenizer keeps special tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workloads.metadata import PrefixHashing
from workloads.request import Request

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticPrompts:
    """Makes prompts of exact lengths whose shared prefixes are those of the recorded block hashes."""

    vocab_size: int
    seed: int = 0
    prefix: PrefixHashing | None = None

    def token_ids(self, request: Request, num_tokens: int) -> list[int]:
        """`num_tokens` ids: one run a hashed block, then ids unique to the request for the unhashed tail."""
        size = self.prefix.block_size if self.prefix else 1
        hashes = (request.prefix_hashes or ())[: -(-num_tokens // size)]
        scope = request.session_id if self.prefix and self.prefix.scope == "session" else "global"
        parts = [self._run(f"{scope}/{value}/{block}", size) for block, value in enumerate(hashes)]
        tail = num_tokens - size * len(hashes)
        if tail > 0:
            parts.append(self._run(f"tail/{request.request_id}", tail))
        ids: list[int] = np.concatenate(parts)[:num_tokens].tolist() if parts else []
        return ids

    def _run(self, key: str, length: int) -> npt.NDArray[np.int64]:
        """PRF(seed, key) as `length` ids: splitmix64 from a hashed start, reduced to the ordinary ids."""
        digest = hashlib.blake2b(f"{self.seed}/{key}".encode(), digest_size=8).digest()
        state = np.frombuffer(digest, np.uint64) + np.arange(1, length + 1, dtype=np.uint64) * _GOLDEN
        state = (state ^ (state >> np.uint64(30))) * _MIX_1
        state = (state ^ (state >> np.uint64(27))) * _MIX_2
        state ^= state >> np.uint64(31)
        first, end = ordinary_ids(self.vocab_size)
        return np.asarray(first + state % np.uint64(end - first), np.int64)


def ordinary_ids(vocab_size: int) -> tuple[int, int]:
    """First and end of the middle 80% of the vocabulary: special ids lie at its ends (Llama 0–2, Qwen the last)."""
    margin = vocab_size // 10
    return margin, max(margin + 1, vocab_size - margin)
