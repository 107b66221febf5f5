"""`InstanceSplit`: how many prefill and decode instances one replica has, and the link over which KV blocks move.

Does not know number formats: a block's bytes are given.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import EngineConfig
from engine.simulator.errors import SimulatorError
from search_spaces.skus import Sku


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


def split_of(config: EngineConfig, sku: Sku, *, block_bytes: int) -> InstanceSplit | None:
    """A config's split, on different machines; None where one instance does both.

    The devices of an instance send their heads at the same time, each over its own link.

    Args:
        block_bytes: of one KV block on one device.

    Raises:
        SimulatorError: the catalogue does not know the network.
    """
    if config.disaggregation is None:
        return None
    if sku.network is None:
        raise SimulatorError(
            f"the catalogue does not say how fast the network between machines of {sku.name} is, over which KV moves. "
            "Add network in a private catalogue file"
        )
    return InstanceSplit(
        prefill_instances=config.disaggregation.prefill_instances,
        decode_instances=config.disaggregation.decode_instances,
        latency_s=sku.network.latency_us * 1e-6,
        block_s=block_bytes / (sku.network.gb_s * 1e9),
    )
