"""`python -m engine.bundled.server`: one engine process from its arguments to its exit status.

Does not know who starts it; torch is imported only after everything cheap was checked.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import uvloop

from engine.bundled.errors import UnsupportedError
from engine.bundled.model_config import load_model_config
from engine.bundled.server.app import DEFAULT_MAX_BODY_BYTES, make_app
from engine.bundled.server.engine_thread import EngineThread
from engine.bundled.server.errors import ShuttingDownError
from engine.bundled.server.http_server import HttpServer, listen, make_http_server
from engine.bundled.server.parent_death import signal_on_parent_death
from engine.bundled.server.reconfiguration import MakeEngine, Reconfiguration
from engine.bundled.server.served_model import DEFAULT_MAX_REQUESTS, ServedModel
from engine.bundled.server.start_failure import PortError, failure_kind, report
from engine.config import ConfigError, EngineConfig, load_engine_config

_DRAIN_S = 1.5
_LOOK_S = 0.02
_JOIN_S = 0.3
_FAREWELL_S = 1.0  # a dead engine's server still says so for this long


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="engine.bundled.server", description="Serves one engine config over HTTP.")
    parser.add_argument("--config", type=Path, required=True, help="YAML of one engine config")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--served-model-name", help="what requests name as model; default: the model folder's name")
    parser.add_argument("--api-key-env", metavar="VAR", help="environment variable that holds the API key")
    parser.add_argument("--parent-pid", type=int, help="die with this process")
    parser.add_argument("--allow-reconfigure", action="store_true", help="POST /reconfigure takes another config")
    parser.add_argument(
        "--max-requests", type=int, default=DEFAULT_MAX_REQUESTS, help="generations in flight; more get a 429"
    )
    parser.add_argument("--max-body-mib", type=float, default=DEFAULT_MAX_BODY_BYTES / 2**20, help="more gets a 413")
    parser.add_argument("--drain-s", type=float, default=_DRAIN_S, help="time for running answers after SIGTERM")
    parser.add_argument("--cpus", metavar="LIST", help="run on these CPUs only, e.g. 0 or 0,2")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """0 after SIGTERM, 2 when it could not start as asked, 1 for a bug."""
    options = parse_arguments(sys.argv[1:] if argv is None else argv)
    if options.parent_pid is not None:
        signal_on_parent_death(signal.SIGKILL, parent_pid=options.parent_pid)
    if options.cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in options.cpus.split(",")})
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = load_engine_config(options.config)
        load_model_config(Path(config.model))
        with _listener(options.host, options.port) as listener:
            return uvloop.run(_serve(config, listener, options))
    except Exception as error:
        kind = failure_kind(error)
        if kind is None:
            traceback.print_exc()
            return 1
        report(error, kind)
        return 2


def _listener(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise PortError(host, port, error) from None


async def _serve(config: EngineConfig, listener: socket.socket, options: argparse.Namespace) -> int:
    from engine.bundled.llm_engine import LLMEngine  # torch: seconds

    begin = time.perf_counter()
    make_engine: MakeEngine = LLMEngine
    if options.allow_reconfigure:
        from engine.bundled.resident import ResidentModel

        make_engine = partial(LLMEngine, resident=ResidentModel())
    name = options.served_model_name or Path(config.model).name
    if name in config.lora_modules:
        raise UnsupportedError(f"the adapter {name!r} has the served model's name. Give one of them another name")
    gc.freeze()  # what is imported stays: collections need not walk it, so they come often enough to free rings
    thread = EngineThread(lambda: make_engine(config))
    engine = await thread.start()
    model = ServedModel(
        name=name,
        tokenizer=engine.tokenizer,
        max_model_len=engine.max_model_len,
        vocab_size=engine.vocab_size,
        thread=thread,
        scheduling_policy=config.scheduling_policy,
        adapters=config.lora_modules,
        max_requests=options.max_requests,
    )
    can_change = options.allow_reconfigure and config.tensor_parallel_size == 1  # ranks load their own weights
    reconfiguration = Reconfiguration(model, config, make_engine) if can_change else None
    app = make_app(
        model,
        api_key=_api_key(options.api_key_env),
        reconfiguration=reconfiguration,
        max_body_bytes=int(options.max_body_mib * 2**20),
    )
    server = make_http_server(app)
    _end_well(server, thread, drain_s=options.drain_s)
    _say(f"serving {model.name} on {options.host}:{options.port}, loaded in {time.perf_counter() - begin:.2f} s")
    await server.serve([listener])
    if thread.failure is not None:
        return 1
    if not thread.stop(_JOIN_S):
        os._exit(0)  # a step still runs; the interpreter would wait for it
    return 0


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ConfigError(f"environment variable {variable} holds no API key. Set it or leave --api-key-env out")
    return os.environ[variable]


def _end_well(server: HttpServer, thread: EngineThread, *, drain_s: float) -> None:
    """Drain on SIGTERM and SIGINT, stop at once on the second; stop a moment after the engine died.

    While it drains, /health and new requests get a 503, so that a load balancer looks elsewhere.
    """
    loop = asyncio.get_running_loop()

    async def drain() -> None:
        deadline = loop.time() + drain_s
        while thread.num_in_flight and loop.time() < deadline:
            await asyncio.sleep(_LOOK_S)
        thread.fail_all(ShuttingDownError())
        server.stop()

    def stop() -> None:
        if thread.is_draining:
            thread.fail_all(ShuttingDownError())
            server.stop()
            return
        thread.drain()
        drains.append(loop.create_task(drain()))

    drains: list[asyncio.Task[None]] = []  # the loop itself holds tasks weakly
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    thread.on_failure = lambda: loop.call_later(_FAREWELL_S, server.stop)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
