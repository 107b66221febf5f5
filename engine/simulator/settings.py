"""`SchedulerSettings`: what a continuous-batching scheduler is told, under vLLM's names.

Does not know models or hardware: the number of KV blocks is given.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import EngineConfig, SchedulingPolicy
from engine.simulator.acceptance import AcceptanceProfile
from engine.simulator.errors import SimulatorError
from engine.simulator.instance_split import InstanceSplit


@dataclass(frozen=True, kw_only=True)
class SchedulerSettings:
    """One server's scheduler.

    Args:
        num_blocks: KV blocks of one replica.
        acceptance: of speculation; None: no drafts.
        request_overhead_s: from a request's arrival until the scheduler sees it (HTTP, tokenization).
        async_scheduling: a step is scheduled while the one before runs, so who comes meanwhile waits one step more.
        delivery_share: of a step's time, until its tokens have reached their clients: they are written while the
            next step runs.
        split: of a replica into prefill and decode instances, each with a scheduler like this; None: one does both.
    """

    num_blocks: int
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    enable_chunked_prefill: bool = True
    enable_prefix_caching: bool = True
    scheduling_policy: SchedulingPolicy = "fcfs"
    block_size: int = 16
    acceptance: AcceptanceProfile | None = None
    request_overhead_s: float = 0.0
    async_scheduling: bool = False
    delivery_share: float = 0.0
    split: InstanceSplit | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.num_blocks, self.max_num_seqs, self.block_size) < 1:
            raise SimulatorError("num_blocks, max_num_seqs and block_size are at least 1")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise SimulatorError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) is smaller than max_num_seqs "
                f"({self.max_num_seqs}). Raise it or lower max_num_seqs"
            )

    @property
    def num_draft_tokens(self) -> int:
        return 0 if self.acceptance is None else self.acceptance.num_draft_tokens

    @property
    def capacity_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return self.num_blocks * self.block_size


def settings_of(
    config: EngineConfig,
    *,
    num_blocks: int,
    acceptance: AcceptanceProfile | None = None,
    request_overhead_s: float = 0.0,
    async_scheduling: bool = False,
    split: InstanceSplit | None = None,
) -> SchedulerSettings:
    """A config's scheduler.

    Raises:
        SimulatorError: the config speculates and nothing is known of what is accepted.
    """
    if config.speculative_config is not None and acceptance is None:
        raise SimulatorError(
            f"speculation by {config.speculative_config.method} can be simulated only with a measured acceptance "
            "profile. Measure one trial with it first"
        )
    return SchedulerSettings(
        num_blocks=num_blocks,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        enable_chunked_prefill=config.enable_chunked_prefill,
        enable_prefix_caching=config.enable_prefix_caching,
        scheduling_policy=config.scheduling_policy,
        block_size=config.block_size,
        acceptance=acceptance,
        request_overhead_s=request_overhead_s,
        async_scheduling=async_scheduling,
        split=split,
        seed=config.seed,
    )
