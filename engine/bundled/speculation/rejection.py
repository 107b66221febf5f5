"""Exact verification of drafts: what is kept is distributed as if the target had drawn alone.

Does not know who drafted. Source: Leviathan, Kalman and Matias 2023, algorithm 1.

A deterministic draft is the case of a one-hot draft distribution. There the target draws as it would without
speculation and the draft is kept as far as it agrees: the same acceptance probability p(d), the same residual,
and, beyond the law, the very tokens plain decoding draws with that seed. In a tree, the child that agrees is followed.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import NamedTuple

import torch
from torch import Tensor

from engine.bundled.sampling import DrawRows, Stream, draw, probabilities, uniforms
from engine.bundled.speculation.draft import Draft


class Verdicts(NamedTuple):
    """Per row: the token to emit, and whether it is the drafted one so that the next row of a chain counts too."""

    token_ids: list[int]
    accepted: list[bool]

    def kept(self, draft: Draft, first: int) -> list[int]:
        """The rows, among those of the draft that begin at `first`, whose tokens are emitted."""
        if not draft.is_chain:
            nodes = draft.followed(self.token_ids[first : first + 1 + len(draft.token_ids)])
            return [first, *(first + 1 + node for node in nodes)]
        last = first
        while self.accepted[last]:
            last += 1
        return list(range(first, last + 1))


def verify(logits: Tensor, rows: DrawRows, drafts: Seq[Draft]) -> Verdicts:
    """Judge float32 logits [R, V]; each draft of n tokens owns n + 1 consecutive rows: after the last known token and
    after each of its own."""
    drafted = torch.tensor([t for draft in drafts for t in (*draft.token_ids, -1)], device=logits.device)  # [R]
    if rows.all_greedy:
        token_ids = logits.argmax(-1)
        return _verdicts(token_ids, token_ids == drafted)
    target = probabilities(logits, rows)
    token_ids = draw(target, uniforms(rows, Stream.DRAW))
    accepted = token_ids == drafted
    if any(draft.distribution is not None for draft in drafts):
        _reject(target, rows, drafts, drafted, token_ids, accepted)
    return _verdicts(token_ids, accepted)


def _reject(
    target: Tensor, rows: DrawRows, drafts: Seq[Draft], drafted: Tensor, token_ids: Tensor, accepted: Tensor
) -> None:
    """Overwrite the rows of drawn drafts: accept with min(1, p/q), else draw from max(p - q, 0)."""
    owned, distributions = _drawn_rows(drafts)
    index = torch.tensor(owned, device=target.device)
    p, q, token = target[index], torch.cat(distributions), drafted[index]
    coins = torch.from_numpy(uniforms(rows, Stream.ACCEPT)[owned]).to(target.device)
    keep = coins * q.gather(-1, token.unsqueeze(-1)).squeeze(-1) < p.gather(-1, token.unsqueeze(-1)).squeeze(-1)
    residual = (p - q).clamp_min_(0)
    residual = torch.where(residual.sum(-1, keepdim=True) > 0, residual, p)  # p == q up to rounding
    replacement = draw(residual, uniforms(rows, Stream.RESIDUAL)[owned])
    token_ids[index] = torch.where(keep, token, replacement)
    accepted[index] = keep


def _drawn_rows(drafts: Seq[Draft]) -> tuple[list[int], list[Tensor]]:
    """Rows of tokens that were drawn from a distribution, and those distributions."""
    owned: list[int] = []
    distributions: list[Tensor] = []
    row = 0
    for draft in drafts:
        if draft.distribution is not None:
            owned += range(row, row + len(draft.token_ids))
            distributions.append(draft.distribution)
        row += len(draft.token_ids) + 1
    return owned, distributions


def _verdicts(token_ids: Tensor, accepted: Tensor) -> Verdicts:
    tokens, flags = torch.stack((token_ids, accepted.to(token_ids.dtype))).tolist()
    return Verdicts(tokens, [bool(flag) for flag in flags])
