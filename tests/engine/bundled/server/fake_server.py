"""The server's command over the fake engine, without torch: seed 1 is slow, seed 2 breaks at its first step."""

import sys
import types

from fake_engine import FakeEngine

from engine.bundled.server.command import main
from engine.config import EngineConfig


def make_engine(config: EngineConfig) -> FakeEngine:
    slow = config.seed == 1
    return FakeEngine(step_s=0.1 if slow else 0.001, breaks=config.seed == 2)


if __name__ == "__main__":
    fake = types.ModuleType("engine.bundled.llm_engine")
    fake.LLMEngine = make_engine
    sys.modules[fake.__name__] = fake
    sys.exit(main())
