"""A backend whose servers behave as a function of the config says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fakes.fake_server import Behaviour, FakeServer

from engine.backend import EngineError, FailureKind, Refusal
from engine.config import EngineConfig

DAMAGE = {"bf16": 0.0, "int8": 0.02, "int4_g128": 1.0, "int4_g64": 0.8, "int4_g32": 0.6}


def by_quantization(config: EngineConfig) -> Behaviour:
    """Damage by weight format; a drafting engine is faster."""
    tpot_s = 0.0005 if config.speculative_config else 0.002
    return Behaviour(
        damage=DAMAGE[config.quantization.weights.removesuffix("_asym")],
        tpot_s=tpot_s,
        max_num_seqs=config.max_num_seqs,
    )


class FakeBackend:
    """Implements `engine.backend.Backend`; remembers what it launched."""

    name = "fake"

    def __init__(
        self,
        behaviour: Callable[[EngineConfig], Behaviour] = by_quantization,
        *,
        refuses: Callable[[EngineConfig], bool] = lambda _: False,
        cannot_launch: Callable[[EngineConfig], bool] = lambda _: False,
    ) -> None:
        self.behaviour, self.refuses, self.cannot_launch = behaviour, refuses, cannot_launch
        self.launched: list[EngineConfig] = []
        self.servers: list[FakeServer] = []

    def check(self, config: EngineConfig) -> list[Refusal]:
        return [Refusal(reason="too large for this machine")] if self.refuses(config) else []

    @contextmanager
    def launch(
        self,
        config: EngineConfig,
        *,
        log_path: Path,
        port: int | None = None,  # noqa: ARG002
    ) -> Iterator[FakeServer]:
        if self.cannot_launch(config):
            raise EngineError("out of memory", kind=FailureKind.OUT_OF_MEMORY, log_path=log_path)
        self.launched.append(config)
        with FakeServer(self.behaviour(config), log_path=log_path) as server:
            self.servers.append(server)
            yield server
