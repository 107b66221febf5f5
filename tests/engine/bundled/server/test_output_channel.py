"""Where outputs meet: what arrived comes first, and nothing is left behind."""

import asyncio
import gc
import weakref

import pytest

from engine.bundled.outputs import RequestOutput
from engine.bundled.server.errors import ClientGoneError
from engine.bundled.server.output_channel import OutputChannel


def test_what_arrived_before_an_error_comes_before_it() -> None:
    async def read() -> list[int]:
        channel = OutputChannel()
        channel.put(0, RequestOutput(request_id="a", token_ids=[1]))
        channel.fail(ClientGoneError())
        arrived = await channel.receive()
        with pytest.raises(ClientGoneError):
            await channel.receive()
        return [token for _, output in arrived for token in output.token_ids]

    assert asyncio.run(read()) == [1]


def test_a_client_that_leaves_leaves_nothing_for_the_garbage_collector() -> None:
    async def leave() -> "weakref.ref[OutputChannel]":
        channel = OutputChannel()
        channel.fail(ClientGoneError())
        try:
            await channel.receive()
        except ClientGoneError:
            return weakref.ref(channel)
        raise AssertionError("the channel failed")

    gc.disable()
    try:
        assert asyncio.run(leave())() is None
    finally:
        gc.enable()
