"""The one thread that owns the engine: commands run between its steps, outputs go back to the event loop.

Does not know HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from engine.bundled.errors import RequestError
from engine.bundled.freed_memory import return_freed_memory
from engine.bundled.outputs import RequestOutput
from engine.bundled.sampling_params import SamplingParams
from engine.bundled.sequence import ANYBODY, Standing
from engine.bundled.server.errors import ApiError, EngineStoppedError, ShuttingDownError

if TYPE_CHECKING:
    from engine.bundled.llm_engine import LLMEngine

Result = TypeVar("Result")
Command = Callable[["LLMEngine"], None]
_LOOK_S = 1.0  # how often an idle engine is asked whether all of it is alive
logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Where one engine request's outputs go; called in the event loop."""

    def put(self, output: RequestOutput) -> None: ...

    def fail(self, error: Exception) -> None: ...


class EngineThread:
    """Builds the engine in its thread (thread counts are per thread in OpenMP) and steps it while there is work.

    Every public method is for the event loop's thread.
    """

    def __init__(self, make_engine: Callable[[], LLMEngine]) -> None:
        self._make_engine = make_engine
        self._engine: LLMEngine | None = None  # the engine thread's own
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._sinks: dict[str, Sink] = {}
        self._calls: set[asyncio.Future[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._stopping = False
        self.is_draining = False  # finishes what it has, takes nothing more
        self.failure: BaseException | None = None
        self.on_failure: Callable[[], object] = lambda: None

    async def start(self) -> LLMEngine:
        """Load the engine; raises whatever its construction raised."""
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[LLMEngine] = self._loop.create_future()
        self._thread.start()
        return await self._started

    @property
    def num_in_flight(self) -> int:
        """Engine requests whose sink waits for more."""
        return len(self._sinks)

    def submit(
        self,
        request_id: str,
        prompt: Sequence[int],
        params: SamplingParams,
        sink: Sink,
        *,
        standing: Standing = ANYBODY,
        adapter: str | None = None,
    ) -> None:
        """Add a request; a refusal by the engine goes to `sink.fail`."""
        if self.failure is not None:
            raise EngineStoppedError
        if self.is_draining:
            raise ShuttingDownError
        self._sinks[request_id] = sink

        def add(engine: LLMEngine) -> None:
            try:
                engine.add_request(request_id, list(prompt), params, standing, adapter=adapter)
            except RequestError as error:
                self._post(self._refuse, request_id, error)

        self._commands.put(add)

    def abort(self, request_id: str) -> None:
        """Forget a request; no output comes after this. Unknown or finished ids are fine."""
        if self._sinks.pop(request_id, None) is not None:
            self._commands.put(lambda engine: engine.abort(request_id))

    async def call(self, act: Callable[[LLMEngine], Result]) -> Result:
        """Run `act` between two steps and return its result.

        Raises:
            EngineStoppedError: there is no engine any more.
        """
        if self.failure is not None:
            raise EngineStoppedError
        future: asyncio.Future[Result] = self._loop.create_future()
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)

        def run(engine: LLMEngine) -> None:
            try:
                self._post(_set_result, future, act(engine))
            except Exception as error:
                self._post(_set_exception, future, error)

        self._commands.put(run)
        return await future

    async def replace(self, make_engine: Callable[[], LLMEngine], *, restore: Callable[[], LLMEngine]) -> LLMEngine:
        """Close the engine and go on with another; when that cannot be made, with what `restore` makes.

        Raises:
            ApiError: requests are running.
            EngineStoppedError: there is no engine any more.
        """

        def swap(engine: LLMEngine) -> LLMEngine:
            if engine.has_unfinished():
                raise ApiError("requests are running: reconfigure when the server is idle", status=409)
            engine.close()
            return_freed_memory()
            try:
                self._engine = make_engine()
            except Exception:
                self._engine = restore()
                raise
            return self._engine

        return await self.call(swap)

    def fail_all(self, error: Exception) -> None:
        """End every request in flight with this error."""
        for request_id, sink in list(self._sinks.items()):
            self.abort(request_id)
            sink.fail(error)

    def drain(self) -> None:
        """Take no more requests; those in flight go on."""
        self.is_draining = True

    def stop(self, timeout_s: float) -> bool:
        """Ask the thread to end after its step; whether it did in time."""
        self._stopping = self.is_draining = True
        self._commands.put(lambda _engine: None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._engine = self._make_engine()
        except BaseException as error:
            self._post(_set_exception, self._started, error)
            return
        self._post(_set_result, self._started, self._engine)
        try:
            while not self._stopping:
                self._run_commands()
                if self._engine.has_unfinished() and (outputs := self._engine.step()):
                    self._post(self._deliver, outputs)
        except BaseException as error:
            logger.exception("the engine thread died")
            self._post(self._die, error)

    def _run_commands(self) -> None:
        """Every command that waits; with nothing to step, sleep until one comes. A command may replace the engine."""
        assert self._engine is not None
        while not self._engine.has_unfinished():
            try:
                self._commands.get(timeout=_LOOK_S)(self._engine)
                break
            except queue.Empty:
                self._engine.check_alive()
        with contextlib.suppress(queue.Empty):
            while True:
                self._commands.get_nowait()(self._engine)

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _deliver(self, outputs: list[RequestOutput]) -> None:
        sinks = self._sinks
        for output in outputs:
            sink = sinks.get(output.request_id)
            if sink is None:
                continue
            if output.finish_reason is not None:
                del sinks[output.request_id]
            sink.put(output)

    def _refuse(self, request_id: str, error: Exception) -> None:
        if (sink := self._sinks.pop(request_id, None)) is not None:
            sink.fail(error)

    def _die(self, error: BaseException) -> None:
        self.failure = error
        for sink in self._sinks.values():
            sink.fail(EngineStoppedError())
        self._sinks.clear()
        for future in list(self._calls):
            _set_exception(future, EngineStoppedError())
        self.on_failure()


def _set_result(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
