"""`Draft` and `Proposer`: what speculation proposes and who proposes it.

Does not know how drafts are verified.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from engine.bundled.paged_model import Forward
from engine.bundled.scheduler import ScheduledSequence
from engine.bundled.sequence import Sequence
from engine.bundled.token_tree import depths


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Proposed tokens as a tree in topological order; `parents[i]` is a token's parent, -1 the last known token.

    No two tokens of one parent are alike.

    Args:
        distribution: [n, V] what each token was drawn from, which exact rejection needs; None when the
            tokens were chosen deterministically. Only chains have one.
    """

    token_ids: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    distribution: Tensor | None = None

    @staticmethod
    def chain(token_ids: Seq[int], distribution: Tensor | None = None) -> Draft:
        return Draft(
            token_ids=tuple(token_ids), parents=tuple(range(-1, len(token_ids) - 1)), distribution=distribution
        )

    @property
    def is_chain(self) -> bool:
        return self.parents == tuple(range(-1, len(self.token_ids) - 1))

    @property
    def depths(self) -> tuple[int, ...]:
        """How many drafted tokens come before each."""
        return depths(self.parents)

    def followed(self, drawn: Seq[int]) -> list[int]:
        """The tokens, by their place in the draft, that the target draws too.

        Args:
            drawn: what the target draws after the last known token, then after each token of the draft.
        """
        children = {
            (parent, token_id): node
            for node, (parent, token_id) in enumerate(zip(self.parents, self.token_ids, strict=True))
        }
        path: list[int] = []
        node = children.get((-1, drawn[0]))
        while node is not None:
            path.append(node)
            node = children.get((node, drawn[node + 1]))
        return path


class Proposer(Protocol):
    """Drafts tokens before each target pass.

    Attributes:
        has_cache: whether it keeps keys and values of its own under the target's block tables; it then maintains
            `sequence.num_draft_computed_tokens`, and blocks are shared once both caches are filled.
        needs_hidden_states: whether `observe` is called with every target pass (Medusa and EAGLE read them).
    """

    has_cache: ClassVar[bool]
    needs_hidden_states: ClassVar[bool]

    def propose(self, scheduled: Seq[ScheduledSequence]) -> list[Draft]:
        """One draft per scheduled sequence, of at most its `max_draft_tokens`; empty where it has no idea."""
        ...

    def finished(self, sequence: Sequence) -> None:
        """The request has ended and `sequence` holds all its tokens; it will not be scheduled again."""
        ...

    def reset(self) -> None:
        """Forget what finished requests left behind, so that a repeated replay starts as the first one did."""
        ...

    def observe(self, scheduled: Seq[ScheduledSequence], forward: Forward) -> None:
        """The target's hidden states of this step's tokens, drafts included, those that were kept first."""
        ...
