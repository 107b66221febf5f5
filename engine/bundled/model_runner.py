"""`ModelRunner`: turns a schedule into tokens: draft, one target pass, draw and verify, log-probabilities.

Does not know scheduling, blocks' owners or when a request ends.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch

from engine.bundled.batch import Moves, Span
from engine.bundled.outputs import TokenLogprob
from engine.bundled.paged_model import Forward, Model
from engine.bundled.sampling import draw_rows_at, mask_by_grammar_, mask_stop_tokens_, token_logprobs
from engine.bundled.scheduler import ScheduledSequence
from engine.bundled.sequence import Sequence
from engine.bundled.speculation import Draft, Proposer
from engine.bundled.speculation.rejection import Verdicts, verify

_NO_DRAFT = Draft()


@dataclass(kw_only=True)
class StepResult:
    """What one scheduled sequence gained; nothing is trimmed to the request's limits yet."""

    token_ids: list[int] = field(default_factory=list)  # accepted drafts and one more; empty while prefilling
    num_drafted: int = 0
    logprobs: list[TokenLogprob] | None = None
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)  # of the prompt tokens this chunk predicts


class ModelRunner:
    """Runs the target, and the proposer before it when there is one."""

    def __init__(self, model: Model, proposer: Proposer | None) -> None:
        self.model = model
        self.proposer = proposer

    @torch.inference_mode()
    def run(self, scheduled: Seq[ScheduledSequence]) -> list[StepResult]:
        """One result per scheduled sequence."""
        drafts = self._propose(scheduled)
        forward = self.model.forward([_span(item, draft) for item, draft in zip(scheduled, drafts, strict=True)])
        results = [StepResult(num_drafted=len(draft.token_ids)) for draft in drafts]
        self._draw(scheduled, drafts, forward, results)
        self._score_prompts(scheduled, forward, results)
        if self.proposer is not None and self.proposer.needs_hidden_states:
            self.proposer.observe(scheduled, forward)
        return results

    def _propose(self, scheduled: Seq[ScheduledSequence]) -> list[Draft]:
        if self.proposer is None:
            return [_NO_DRAFT] * len(scheduled)
        return self.proposer.propose(scheduled)

    def _draw(
        self, scheduled: Seq[ScheduledSequence], drafts: Seq[Draft], forward: Forward, results: Seq[StepResult]
    ) -> None:
        """Draw for every sequence whose last known token was computed: a row after it and after each draft token."""
        drawing = [index for index, item in enumerate(scheduled) if item.draws]
        if not drawing:
            return
        ends = forward.batch.ends
        hidden_rows = [row for i in drawing for row in range(ends[i] - len(drafts[i].token_ids), ends[i] + 1)]
        sequences = [scheduled[i].sequence for i in drawing]
        owned = [drafts[i] for i in drawing]
        rows = draw_rows_at([(s, _positions(s, draft)) for s, draft in zip(sequences, owned, strict=True)])
        logits = self.model.logits(forward.hidden[hidden_rows])
        num_top = max((-1 if s.params.logprobs is None else s.params.logprobs) for s in sequences)
        bound = _first_rows_of_bound(sequences, owned)
        raw = logits.clone() if num_top >= 0 and (rows.masked_rows or bound) else logits
        mask_stop_tokens_(logits, rows)
        mask_by_grammar_(logits, bound)
        verdicts = verify(logits, rows, owned)
        scores = (
            token_logprobs(raw, torch.tensor(verdicts.token_ids, device=raw.device), num_top) if num_top >= 0 else []
        )
        kept = _kept_rows(owned, verdicts)
        _hand_out([results[i] for i in drawing], sequences, kept, verdicts, scores)
        self._close_gaps(kept, hidden_rows, forward)

    def _close_gaps(self, kept: Seq[list[int]], hidden_rows: Seq[int], forward: Forward) -> None:
        """Bring what was computed of a tree's kept tokens to where a chain's would lie: keys, values, hidden states."""
        sources: list[int] = []
        targets: list[int] = []
        for rows in kept:
            if rows[-1] - rows[0] == len(rows) - 1:
                continue
            sources += (hidden_rows[row] for row in rows[1:])
            targets += range(hidden_rows[rows[0]] + 1, hidden_rows[rows[0]] + len(rows))
        if not sources:
            return
        slots = forward.batch.slots
        self.model.move(Moves(slots[sources].tolist(), slots[targets].tolist()))
        forward.hidden[targets] = forward.hidden[sources]

    def _score_prompts(self, scheduled: Seq[ScheduledSequence], forward: Forward, results: Seq[StepResult]) -> None:
        """Log-probabilities of the prompt tokens that this step's hidden states predict."""
        wanting = [i for i, item in enumerate(scheduled) if item.sequence.needs_prompt_logprobs]
        firsts = forward.batch.ends - forward.batch.lengths + 1
        rows: list[int] = []
        targets: list[int] = []
        borders = [0]
        for i in wanting:
            predicted = _predicted_prompt_tokens(scheduled[i])
            rows += range(firsts[i], firsts[i] + len(predicted))
            targets += predicted
            borders.append(len(rows))
        if not rows:
            return
        num_top = max(scheduled[i].sequence.params.prompt_logprobs or 0 for i in wanting)
        scores = self._score(forward, rows, targets, num_top)
        for i, (first, last) in zip(wanting, pairwise(borders), strict=True):
            own = scheduled[i].sequence.params.prompt_logprobs or 0
            results[i].prompt_logprobs = _cut_top(scores[first:last], own)

    def _score(self, forward: Forward, rows: list[int], targets: list[int], num_top: int) -> list[TokenLogprob]:
        device = forward.hidden.device
        index, wanted = torch.tensor(rows, device=device), torch.tensor(targets, device=device)
        scores: list[TokenLogprob] = []
        for part, ids in zip(torch.split(index, _SCORED_ROWS), torch.split(wanted, _SCORED_ROWS), strict=True):
            scores += token_logprobs(self.model.logits(forward.hidden[part]), ids, num_top)
        return scores


_SCORED_ROWS = 512  # rows of [*, V] float32 alive at once


def _span(item: ScheduledSequence, draft: Draft) -> Span:
    sequence, start = item.sequence, item.sequence.num_computed_tokens
    known = sequence.token_ids[start : start + item.num_tokens]
    parents = () if draft.is_chain else draft.parents
    return Span(known + list(draft.token_ids), start, sequence.block_table, parents, adapter=sequence.adapter)


def _first_rows_of_bound(sequences: Seq[Sequence], drafts: Seq[Draft]) -> list[tuple[int, Sequence]]:
    """(row, sequence) of those whose answers follow a grammar; they have no drafts."""
    firsts = accumulate((len(draft.token_ids) + 1 for draft in drafts), initial=0)
    return [(row, seq) for row, seq in zip(firsts, sequences, strict=False) if seq.grammar is not None]


def _predicted_prompt_tokens(item: ScheduledSequence) -> list[int]:
    """Prompt tokens one position after the computed ones."""
    sequence, start = item.sequence, item.sequence.num_computed_tokens
    return sequence.token_ids[start + 1 : min(start + item.num_tokens + 1, sequence.num_prompt_tokens)]


def _positions(sequence: Sequence, draft: Draft) -> list[int]:
    """Of the tokens that are drawn after the last known token and after each of the draft's."""
    return [sequence.num_tokens, *(sequence.num_tokens + 1 + depth for depth in draft.depths)]


def _kept_rows(drafts: Seq[Draft], verdicts: Verdicts) -> list[list[int]]:
    """Of each draft's rows those whose tokens are emitted."""
    firsts = accumulate((len(draft.token_ids) + 1 for draft in drafts), initial=0)
    return [verdicts.kept(draft, first) for draft, first in zip(drafts, firsts, strict=False)]


def _hand_out(
    results: Seq[StepResult],
    sequences: Seq[Sequence],
    kept: Seq[list[int]],
    verdicts: Verdicts,
    scores: Seq[TokenLogprob],
) -> None:
    """Give each sequence its kept rows."""
    for result, sequence, rows in zip(results, sequences, kept, strict=True):
        result.token_ids = [verdicts.token_ids[row] for row in rows]
        wanted = sequence.params.logprobs
        if wanted is not None:
            result.logprobs = _cut_top([scores[row] for row in rows], wanted)


def _cut_top(scores: Seq[TokenLogprob], num_top: int) -> list[TokenLogprob]:
    return [score._replace(top=score.top[:num_top]) for score in scores]
