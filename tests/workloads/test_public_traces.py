"""Every public recording beside the repository: it imports, has its known figures, and a scaled window replays."""

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from workload_cases import TRACES

from engine.backend import Server
from engine.bundled_backend import BundledBackend
from engine.config import EngineConfig
from workloads.characterize import characterize
from workloads.description import describe
from workloads.importers import import_workload
from workloads.replay.replayer import Replayer
from workloads.request import Request
from workloads.sampling import session_numbers
from workloads.servegen import generate_servegen
from workloads.tokenizer import TokenCounter
from workloads.workload import Workload

pytestmark = pytest.mark.skipif(not TRACES.is_dir(), reason="the public traces are not here")

MAX_TOKENS = 4096  # that the tiny model takes
NUM_REPLAYED = 10
IMPORTED = ("azure2023/AzureLLMInferenceTrace_code.csv", "mooncake/conversation_trace.jsonl", "agent_sessions", "otel")
EVERYTHING = (*IMPORTED, "servegen/deepseek-r1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine tests' own checkpoint of random weights."""
    path = Path(__file__).parent.parent / "engine" / "tiny_checkpoint.py"
    spec = importlib.util.spec_from_file_location("tiny_checkpoint", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder: Path = module.write_tiny_checkpoint(
        tmp_path_factory.mktemp("traces") / "tiny", max_positions=MAX_TOKENS + 64
    )
    return folder


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    config = EngineConfig(model=str(model), num_threads=1)
    with BundledBackend().launch(config, log_path=model.parent / "engine.log") as launched:
        yield launched


@pytest.fixture(scope="module")
def recorded(model: Path) -> dict[str, Workload]:
    found = {
        name: import_workload(TRACES / name, tokenizer=TokenCounter(model) if name == "otel" else None)
        for name in IMPORTED
    }
    return found | {EVERYTHING[-1]: generate_servegen(TRACES / EVERYTHING[-1], seconds=60, start_s=36_000)}


def test_nothing_beside_the_repository_is_left_out() -> None:
    """A new recording needs a line in `EVERYTHING`."""
    kept = [path for path in TRACES.rglob("*") if path.is_file() and path.name != "LICENSE"]
    known = [TRACES / name for name in EVERYTHING]
    assert all(any(path == name or name in path.parents for name in known) for path in kept)


@pytest.mark.parametrize("name", EVERYTHING)
def test_it_is_inspected(recorded: dict[str, Workload], name: str) -> None:
    profile = characterize(recorded[name])
    assert profile.num_requests > 0
    assert profile.input_tokens is not None
    assert profile.output_tokens is not None
    assert {"input tokens", "output tokens", "longest request"} <= {row.what for row in describe(profile)}


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_scaled_window_of_it_replays(recorded: dict[str, Workload], server: Server, model: Path, name: str) -> None:
    window = scaled(recorded[name])
    replayer = Replayer(
        base_url=server.base_url,
        model=server.model_name,
        mode="auto" if "open_loop" in window.capabilities else "concurrency",
        concurrency=4,
        speedup=1000.0,
        vocab_size=TokenCounter(model).vocab_size,
        limit_s=60,
    )
    result = replayer.replay(window)
    assert [record.error for record in result.records if record.status != "ok"] == []
    assert len(result.records) == len(window) >= min(NUM_REPLAYED, len(recorded[name]))
    expected = {request.request_id: request.output_tokens for request in window}
    assert {r.request_id: r.output_tokens for r in result.records} == expected


def scaled(workload: Workload) -> Workload:
    """The first whole sessions, lengths and hash blocks divided by one power of two so that they fit the tiny model."""
    sessions = session_numbers(workload)
    last = int(sessions[:NUM_REPLAYED].max())
    requests = [request for request, number in zip(workload, sessions, strict=True) if number <= last]
    longest = max(request.input_tokens or 0 for request in requests)
    factor = 1
    while longest / factor > MAX_TOKENS - 16:
        factor *= 2
    prefix = workload.metadata.prefix
    if prefix is not None:
        assert prefix.block_size % factor == 0
        prefix = prefix.model_copy(update={"block_size": prefix.block_size // factor})
    # whole blocks stay whole: floor(floor(n / f) / b) = floor(n / (f b)), and so for ceilings, where the tail is hashed
    tail = prefix is not None and prefix.tail_hashed is True
    small = [_scaled(request, factor, round_up=tail or prefix is None) for request in requests]
    return Workload.from_requests(small, workload.metadata.model_copy(update={"prefix": prefix, "capabilities": None}))


def _scaled(request: Request, factor: int, *, round_up: bool) -> Request:
    tokens = request.input_tokens or 1
    inputs = -(-tokens // factor) if round_up else tokens // factor
    return replace(
        request,
        input_tokens=inputs if request.messages is None else request.input_tokens,
        output_tokens=min(8, max(2, request.output_tokens or 2)),
        model=None,
        cached_tokens=None,
    )


def test_the_azure_code_trace_has_its_published_figures(recorded: dict[str, Workload]) -> None:
    found = characterize(recorded["azure2023/AzureLLMInferenceTrace_code.csv"])
    assert found.arrivals is not None
    assert found.input_tokens is not None
    assert found.output_tokens is not None
    assert (found.num_requests, round(found.arrivals.rate_rps, 2)) == (8819, 2.57)
    assert (found.input_tokens.p50, found.input_tokens.p99) == (1469, 7436)
    assert (found.output_tokens.p50, found.output_tokens.p99) == (13, 252)


def test_the_mooncake_conversation_trace_has_its_published_figures(recorded: dict[str, Workload]) -> None:
    found = characterize(recorded["mooncake/conversation_trace.jsonl"])
    assert found.arrivals is not None
    assert found.arrivals.interarrival_cv is not None
    assert found.arrivals.stamped_cv is not None
    assert found.prefix is not None
    assert (found.num_requests, round(found.arrivals.rate_rps, 2)) == (12_031, 3.40)
    assert (round(found.prefix.ideal_hit_ratio, 3), found.prefix.block_size) == (0.374, 512)
    assert (round(found.arrivals.interarrival_cv, 2), round(found.arrivals.stamped_cv, 2)) == (1.01, 3.03)
    assert found.prefix.lru[-1].hit_ratio == pytest.approx(found.prefix.ideal_hit_ratio)
    assert [size.hit_ratio for size in found.prefix.lru] == sorted(size.hit_ratio for size in found.prefix.lru)
