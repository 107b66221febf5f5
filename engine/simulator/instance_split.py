"""`InstanceSplit`: how many prefill and decode instances one replica has, and the link over which KV blocks move.

Does not know devices or number formats: a block's time on the link is given.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.simulator.errors import SimulatorError


@dataclass(frozen=True, kw_only=True)
class InstanceSplit:
    """Instances of one scheduler each, all alike.

    Args:
        latency_s: of a transfer, whatever its size.
        block_s: that one KV block takes on the link of a prefill instance.
    """

    prefill_instances: int
    decode_instances: int
    latency_s: float
    block_s: float

    def __post_init__(self) -> None:
        if min(self.prefill_instances, self.decode_instances) < 1:
            raise SimulatorError("prefill_instances and decode_instances are at least 1")
        if not (0 <= self.latency_s < float("inf") and 0 <= self.block_s < float("inf")):
            raise SimulatorError("a transfer's latency and its time per block are zero or more seconds")

    @property
    def num_instances(self) -> int:
        return self.prefill_instances + self.decode_instances

    def transfer_s(self, num_blocks: int) -> float:
        """latency + blocks x time per block."""
        return self.latency_s + num_blocks * self.block_s
