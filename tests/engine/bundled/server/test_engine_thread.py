"""Another engine in the thread, between requests."""

import asyncio

import pytest
from fake_engine import FakeEngine

from engine.bundled.errors import CapacityError
from engine.bundled.outputs import RequestOutput
from engine.bundled.sampling_params import SamplingParams
from engine.bundled.server.engine_thread import EngineThread
from engine.bundled.server.errors import ApiError


class Deaf:
    """A sink that hears nothing."""

    def put(self, output: RequestOutput) -> None:
        pass

    def fail(self, error: Exception) -> None:
        pass


async def started(engine: FakeEngine) -> EngineThread:
    thread = EngineThread(lambda: engine)
    await thread.start()
    return thread


def test_an_engine_is_closed_and_the_next_one_serves() -> None:
    async def swap() -> None:
        old, new = FakeEngine(), FakeEngine()
        thread = await started(old)
        assert await thread.replace(lambda: new, restore=lambda: old) is new
        assert old.closed
        assert await thread.call(lambda engine: engine) is new
        assert thread.stop(30)

    asyncio.run(swap())


def test_a_running_request_keeps_its_engine() -> None:
    async def swap() -> None:
        old = FakeEngine(step_s=0.01, max_model_len=10**6)
        thread = await started(old)
        thread.submit("a", [5], SamplingParams(max_tokens=10**5, ignore_eos=True), Deaf())
        with pytest.raises(ApiError, match="requests are running") as refusal:
            await thread.replace(FakeEngine, restore=lambda: old)
        assert refusal.value.status == 409
        assert not old.closed
        assert await thread.call(lambda engine: engine) is old
        assert thread.stop(30)

    asyncio.run(swap())


def test_an_engine_that_cannot_be_made_is_told_and_the_old_config_goes_on() -> None:
    async def swap() -> None:
        restored = FakeEngine()
        thread = await started(FakeEngine())

        def fail() -> FakeEngine:
            raise CapacityError("no room")

        with pytest.raises(CapacityError, match="no room"):
            await thread.replace(fail, restore=lambda: restored)
        assert await thread.call(lambda engine: engine) is restored
        assert thread.failure is None
        assert thread.stop(30)

    asyncio.run(swap())
