"""How far a candidate's next-token distributions are from the reference's on the same tokens; numpy only.

Does not know where log-probabilities come from, nor requests' texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_NO_TOKEN = -1
_SMALLEST = 1e-9  # mass left to a rest bucket that rounding has emptied


@dataclass(frozen=True, kw_only=True)
class TopLogprobs:
    """The likeliest tokens at each position of one response, most likely first.

    Rows are padded with token id -1 and log-probability -inf.
    """

    token_ids: npt.NDArray[np.int32]  # [num_positions, width]
    logprobs: npt.NDArray[np.float64]  # [num_positions, width], nats

    def __len__(self) -> int:
        return len(self.token_ids)

    def top1(self) -> npt.NDArray[np.int32]:  # [num_positions]
        return self.token_ids[:, 0]


def top_logprobs(positions: Sequence[Mapping[int, float]]) -> TopLogprobs:
    """Each position's token ids and log-probabilities as arrays; ties go to the smaller id, as in argmax."""
    width = max((len(position) for position in positions), default=1)
    token_ids = np.full((len(positions), width), _NO_TOKEN, dtype=np.int32)
    logprobs = np.full((len(positions), width), -np.inf)
    for row, position in enumerate(positions):
        ordered = sorted(position.items(), key=lambda item: (-item[1], item[0]))
        token_ids[row, : len(ordered)] = [token for token, _ in ordered]
        logprobs[row, : len(ordered)] = [logprob for _, logprob in ordered]
    return TopLogprobs(token_ids=token_ids, logprobs=logprobs)


@dataclass(frozen=True, kw_only=True)
class ResponseDivergence:
    """Sums over one response's positions, so that a bootstrap can draw whole requests."""

    num_tokens: int
    num_agreements: int  # positions where both have the same likeliest token
    kl_nats: float

    @property
    def num_flips(self) -> int:
        return self.num_tokens - self.num_agreements


def compare(reference: TopLogprobs, candidate: TopLogprobs) -> ResponseDivergence:
    """Divergence over the positions of one response, fed to both token by token."""
    assert len(reference) == len(candidate), "both sides were fed the same response"
    agreements = int(np.sum(reference.top1() == candidate.top1()))
    kl = float(np.sum(kl_per_position(reference, candidate)))
    return ResponseDivergence(num_tokens=len(reference), num_agreements=agreements, kl_nats=kl)


def kl_per_position(reference: TopLogprobs, candidate: TopLogprobs) -> npt.NDArray[np.float64]:
    """KL(reference || candidate) in nats over a coarser vocabulary: the tokens both sides list, and one rest bucket.

    KL = Σ_shared p·ln(p/q) + p_rest·ln(p_rest/q_rest). Merging tokens never raises a KL divergence, hence this is a
    lower bound of the full one, whatever the number of listed tokens.
    """
    same = (reference.token_ids[:, :, None] == candidate.token_ids[:, None, :]) & (
        reference.token_ids[:, :, None] != _NO_TOKEN
    )  # [num_positions, reference width, candidate width]
    shared = same.any(axis=2)
    theirs = np.take_along_axis(candidate.logprobs, same.argmax(axis=2), axis=1)
    p = np.where(shared, np.exp(reference.logprobs), 0.0)
    q = np.where(shared, np.exp(theirs), 0.0)
    log_ratio = np.subtract(reference.logprobs, theirs, out=np.zeros_like(p), where=p > 0)
    p_rest, q_rest = (np.maximum(1.0 - x.sum(axis=1), _SMALLEST) for x in (p, q))
    kl = (p * log_ratio).sum(axis=1) + p_rest * np.log(p_rest / q_rest)
    return np.asarray(np.maximum(kl, 0.0), dtype=np.float64)
