"""How far speculation got in a measured replay: of every request, and by place in the draft.

Does not know who drafted. Acceptance depends on the draft and the traffic, hardly on the load or the scheduler: what
one replay of the traffic showed holds for the simulation of others.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.backend import EngineStatistics
from engine.simulator.acceptance import AcceptanceProfile
from optimizer.errors import OptimizerError
from workloads.records import RequestRecord


def tokens_per_step(records: Sequence[RequestRecord]) -> dict[str, float]:
    """By request id: (output tokens - 1) / (steps - 1), a step being all tokens that came at the same time.

    Requests of one step, which say nothing, are left out.
    """
    found = {}
    for record in records:
        num_steps = len(set(record.token_times_s))
        if record.status == "ok" and num_steps > 1:
            found[record.request_id] = (record.output_tokens - 1) / (num_steps - 1)
    return found


def acceptance_profile(
    records: Sequence[RequestRecord], statistics: EngineStatistics, *, tree_nodes: int | None = None
) -> AcceptanceProfile:
    """The chances of every place, drafts that were not there counted as not kept.

    Args:
        statistics: of the same replay.
        tree_nodes: of the config, where its drafts were trees.

    Raises:
        OptimizerError: nothing was drafted.
    """
    steps = sum(max(0, len(set(record.token_times_s)) - 1) for record in records)
    if not statistics.num_drafts or not steps:
        raise OptimizerError("nothing was drafted in this replay. Measure a config that speculates")
    kept = [min(1.0, count / steps) for count in statistics.accepted_tokens_per_position]
    chances = [min(1.0, after / before) if before else 0.0 for before, after in zip([1.0, *kept], kept, strict=False)]
    drafted = min(tree_nodes or len(chances), statistics.num_draft_tokens / steps)
    return AcceptanceProfile(per_position=tuple(chances), drafted=drafted, tree_nodes=tree_nodes)
