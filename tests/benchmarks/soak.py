"""A long run at random load: does anything leak, hang or come out wrong?

    python -m tests.benchmarks.soak --minutes 20 [--model DIR] [--workload FILE] [--seed 0]

A pool of requests (short, long up to the context, greedy and drawn with a seed) is answered once, one at a time, by a
quiet server of each number format: the reference; a third of them by one of three random LoRA adapters. Then rounds of
random load follow: clients that leave in the middle, several answers a request, users and priorities, requests that
must be refused. After each round the idle server must hold no request and no block; then it is reconfigured to another
random config. Every complete answer must equal its reference token for token, but for drawn ones under a draft model:
its drafts are drawn too, so that a seed gives another sample of the same distribution. The server's memory, read after
each round under one and the same config, must stay within 5% between the first and the last third of the rounds. Exit
status 1 with the first violation in words.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from engine.bundled.model_config import load_model_config
from engine.bundled_backend import BundledBackend
from engine.config import EngineConfig
from engine.process_server import ProcessServer
from tests.engine.bundled.random_adapters import save_adapter
from workloads.parquet import read_workload

MEMORY_TOLERANCE = 0.05
SMALL_CACHE = 24 * 2**20  # preemption
WEIGHTS = ("bf16", "int8")
ADAPTERS = ("plain", "terse", "formal")
SPECULATION: tuple[dict[str, Any] | None, ...] = (
    None,
    {"method": "ngram", "num_speculative_tokens": 4},
    {"method": "suffix", "num_speculative_tokens": "auto"},
    {"method": "draft_model", "num_speculative_tokens": 3, "model": "draft"},
    {"method": "medusa", "num_speculative_tokens": 3, "model": "medusa"},
    {"method": "medusa", "num_speculative_tokens": 3, "tree_nodes": 12, "model": "medusa"},
    {"method": "eagle", "num_speculative_tokens": 3, "model": "eagle"},
)
BAD = (
    {"prompt": []},
    {"prompt": [10**9]},
    {"prompt": [1], "temperature": float("nan")},
    {"prompt": [1], "max_tokens": 10**6},
    {"prompt": [1] * 2000},
    {"prompt": [1], "model": "no such adapter"},
    {"prompt": [1], "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 7}}}},
)


class ViolationError(Exception):
    """What a soak exists to find."""


@dataclass
class Tally:
    """What happened."""

    answers: int = 0
    tokens: int = 0
    left: int = 0
    refused: int = 0
    turned_away: int = 0
    rounds: int = 0
    rss_mib: list[float] = field(default_factory=list)


def main() -> None:
    arguments = parse_arguments()
    rng = random.Random(arguments.seed)
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="fopt-soak-") as folder:
        arguments.adapters = {
            name: str(save_adapter(Path(folder) / name, arguments.model, seed=number, size=0.05))
            for number, name in enumerate(ADAPTERS)
        }
        backend = BundledBackend(reconfigurable=True)
        with backend.launch(config_of(arguments, "bf16"), log_path=Path(folder) / "engine.log") as server:
            try:
                asyncio.run(soak(server, arguments, rng, tally))
            except ViolationError as violation:
                print(f"FAILED after {tally.rounds} rounds: {violation}")
                print((Path(folder) / "engine.log").read_text()[-4000:])
                sys.exit(1)
    report(tally, arguments)


async def soak(server: ProcessServer, arguments: argparse.Namespace, rng: random.Random, tally: Tally) -> None:
    pool = make_pool(arguments, rng)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(base_url=server.base_url, timeout=timeout) as session:
        reference: dict[str, list[list[int]]] = {}
        for weights in WEIGHTS:
            must_reconfigure(server, config_of(arguments, weights))
            reference[weights] = [await answer(session, body) for body in pool]
        print(f"reference: {len(pool)} requests, {sum(map(len, reference['bf16']))} tokens", flush=True)
        deadline = time.monotonic() + 60 * arguments.minutes
        while time.monotonic() < deadline:
            config = random_config(arguments, rng)
            must_reconfigure(server, config)
            await one_round(session, pool, reference[config.quantization.weights], config, rng, tally)
            await check_idle(server)
            tally.rounds += 1
            must_reconfigure(server, config_of(arguments, "bf16", kv_cache_memory_bytes=SMALL_CACHE))
            tally.rss_mib.append(resident_mib(server.pid))
            print(f"round {tally.rounds}: {config.label(config_of(arguments, 'bf16'))}: {tally.answers} answers, "
                  f"{tally.rss_mib[-1]:.0f} MiB", flush=True)  # fmt: skip
    check_memory(tally.rss_mib)


def make_pool(arguments: argparse.Namespace, rng: random.Random) -> list[dict[str, Any]]:
    """Bodies without stream fields: prompts of the workload, and some of nearly the whole context."""
    requests = [
        request for request in read_workload(arguments.workload).requests() if request.prompt or request.messages
    ]
    vocab_size = load_model_config(arguments.model).vocab_size
    bodies: list[dict[str, Any]] = []
    for number, request in enumerate(rng.sample(requests, arguments.pool)):
        text = request.prompt or "\n".join(str(message.get("content")) for message in request.chat_messages())
        body: dict[str, Any] = {"prompt": text, "max_tokens": rng.randint(1, 96), "ignore_eos": rng.random() < 0.3}
        if number % 10 == 0:
            body |= {"prompt": [rng.randrange(3, vocab_size) for _ in range(rng.randint(600, 950))], "max_tokens": 32}
        drawn = {"temperature": 0.8, "top_p": 0.9, "seed": number} if number % 3 == 0 else {"temperature": 0}
        adapter = {"model": ADAPTERS[number // 3 % len(ADAPTERS)]} if number % 3 == 1 else {}
        bodies.append(body | drawn | adapter)
    return bodies


def config_of(arguments: argparse.Namespace, weights: str, **fields: Any) -> EngineConfig:
    return EngineConfig.model_validate(
        {
            "model": str(arguments.model),
            "max_model_len": 1024,
            "quantization": {"weights": weights},
            "lora_modules": arguments.adapters,
            **fields,
        }
    )


def random_config(arguments: argparse.Namespace, rng: random.Random) -> EngineConfig:
    speculation = rng.choice(SPECULATION)
    if speculation and "model" in speculation:
        speculation = speculation | {"model": str(arguments.model.parent / speculation["model"])}
    return config_of(
        arguments,
        rng.choice(WEIGHTS),
        max_num_seqs=rng.choice([2, 8, 32]),
        max_loras=rng.randint(1, len(ADAPTERS)),
        max_num_batched_tokens=rng.choice([64, 256, 2048]),
        enable_prefix_caching=rng.random() < 0.7,
        scheduling_policy=rng.choice(["fcfs", "priority", "fair"]),
        kv_cache_memory_bytes=rng.choice([None, SMALL_CACHE]),
        speculative_config=speculation,
    )


def must_reconfigure(server: ProcessServer, config: EngineConfig) -> None:
    if not server.reconfigure(config):
        raise ViolationError(f"the idle server did not take {config.label(EngineConfig(model=config.model))}")


async def one_round(
    session: aiohttp.ClientSession,
    pool: list[dict[str, Any]],
    reference: list[list[int]],
    config: EngineConfig,
    rng: random.Random,
    tally: Tally,
) -> None:
    async def act() -> None:
        await asyncio.sleep(rng.random() * 4)
        number, kind = rng.randrange(len(pool)), rng.random()
        standing: dict[str, Any] = {"user": rng.choice("abc")}
        if config.scheduling_policy == "priority":
            standing["priority"] = rng.randint(-1, 1)
        if kind < 0.05:
            await must_refuse(session, rng.choice(BAD))
            tally.refused += 1
        elif kind < 0.25:
            await leave(session, pool[number] | standing, after=rng.randint(0, 6))
            tally.left += 1
        else:
            got = await answer(session, pool[number] | standing)
            if got != reference[number] and not _is_drawn_otherwise(pool[number], config):
                raise ViolationError(f"request {number} under {config.flat()}: {got} instead of {reference[number]}")
            tally.answers += 1
            tally.tokens += len(got)

    tasks = [asyncio.create_task(act()) for _ in range(rng.randint(20, 120))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _is_drawn_otherwise(body: dict[str, Any], config: EngineConfig) -> bool:
    speculation = config.speculative_config
    return body["temperature"] > 0 and speculation is not None and speculation.method == "draft_model"


async def answer(session: aiohttp.ClientSession, body: dict[str, Any]) -> list[int]:
    async with session.post("/v1/completions", json=body | {"return_token_ids": True}) as reply:
        content = await reply.json()
        if reply.status != 200:
            raise ViolationError(f"{str(body)[:200]} got {reply.status}: {content}")
        tokens: list[int] = content["choices"][0]["token_ids"]
        return tokens


async def leave(session: aiohttp.ClientSession, body: dict[str, Any], *, after: int) -> None:
    """Read a few events of a stream of two answers, then hang up."""
    async with session.post("/v1/completions", json=body | {"stream": True, "n": 2}) as reply:
        for _ in range(after):
            await reply.content.readuntil(b"\n\n") if not reply.content.at_eof() else None
        reply.close()


async def must_refuse(session: aiohttp.ClientSession, body: dict[str, Any]) -> None:
    data = json.dumps(body)  # NaN and all
    async with session.post("/v1/completions", data=data, headers={"content-type": "application/json"}) as reply:
        if not 400 <= reply.status < 500:
            raise ViolationError(f"{data} got {reply.status}")


async def check_idle(server: ProcessServer) -> None:
    """No request and no block a second after the last client."""
    wanted = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    deadline = time.monotonic() + 10
    while True:
        extra = await asyncio.to_thread(lambda: server.statistics().extra)
        held = {name: extra[name] for name in wanted if extra[name]}
        if not held:
            return
        if time.monotonic() > deadline:
            raise ViolationError(f"the idle server still holds {held}")
        await asyncio.sleep(0.05)


def resident_mib(pid: int) -> float:
    leader = psutil.Process(pid)
    return sum(one.memory_info().rss for one in [leader, *leader.children(recursive=True)]) / 2**20


def check_memory(rss_mib: list[float]) -> None:
    """The medians of the first and the last third, the very first round left out."""
    third = max(1, (len(rss_mib) - 1) // 3)
    first, last = statistics.median(rss_mib[1 : 1 + third] or rss_mib), statistics.median(rss_mib[-third:])
    if last > first * (1 + MEMORY_TOLERANCE):
        raise ViolationError(f"memory grew from {first:.0f} to {last:.0f} MiB")


def report(tally: Tally, arguments: argparse.Namespace) -> None:
    third = max(1, (len(tally.rss_mib) - 1) // 3)
    first, last = statistics.median(tally.rss_mib[1 : 1 + third]), statistics.median(tally.rss_mib[-third:])
    print(f"{platform.machine()}, Python {platform.python_version()}, {vars(arguments)}")
    print(
        f"{arguments.minutes:g} minutes, {tally.rounds} rounds and reconfigurations: {tally.answers} complete answers "
        f"({tally.tokens} tokens) equal to the quiet reference, {tally.left} clients left, {tally.refused} requests "
        f"refused as they should; memory {first:.0f} -> {last:.0f} MiB (medians of the first and last third)"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--model", type=Path, default=Path("workloads/demo/models/target"))
    parser.add_argument("--workload", type=Path, default=Path("workloads/demo/workload.parquet"))
    parser.add_argument("--pool", type=int, default=120, help="different requests")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
