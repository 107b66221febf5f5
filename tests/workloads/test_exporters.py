"""What is exported and imported again is what it was, in all that the format can hold."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.errors import WorkloadError
from workloads.exporters import EXPORTERS, export_workload
from workloads.importers import import_workload
from workloads.metadata import PrefixHashing, Source, WorkloadMetadata
from workloads.request import Request, json_text
from workloads.workload import Workload

LENGTHS = st.tuples(st.integers(1, 5000), st.integers(0, 3000), st.integers(0, 10**7))
FIELDS = {
    "vllm-custom": ("prompt", "output_tokens"),
    "vllm-timed-trace": ("arrival_s", "input_tokens", "output_tokens", "prefix_hashes"),
    "mooncake": ("arrival_s", "input_tokens", "output_tokens", "prefix_hashes"),
}


def workload_of(rows: list[tuple[int, int, int]], block_size: int = 512, **metadata: object) -> Workload:
    """Requests with text and hashes; arrivals in ms from 0; every full and partial block hashed."""
    first = min(ms for _, _, ms in rows)
    requests = [
        Request(
            request_id=f"r{number}",
            arrival_s=(ms - first) / 1000,
            input_tokens=inputs,
            output_tokens=outputs,
            prompt=f"né {number}\n\u2028",
            prefix_hashes=tuple(number * 400 + block for block in range(-(-inputs // block_size))),
        )
        for number, (inputs, outputs, ms) in enumerate(rows)
    ]
    prefix = PrefixHashing(**({"block_size": block_size, "tail_hashed": True} | metadata))  # type: ignore[arg-type]
    return Workload.from_requests(requests, WorkloadMetadata(name="w", source=Source(format="test"), prefix=prefix))


@pytest.mark.parametrize("name", FIELDS)
@given(rows=st.lists(LENGTHS, min_size=1, max_size=8))
def test_a_round_trip_loses_nothing_the_format_holds(name: str, rows: list[tuple[int, int, int]]) -> None:
    workload = workload_of(rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.jsonl"
        export_workload(workload, path, format=name)
        back = import_workload(path, format=name)
    for field in FIELDS[name]:
        assert [getattr(r, field) for r in back] == [getattr(r, field) for r in workload], field


@pytest.mark.parametrize("name", EXPORTERS)
def test_the_format_is_recognised_and_exported_again_alike(name: str, tmp_path: Path) -> None:
    export_workload(workload_of([(600, 5, 0), (513, 7, 1500)]), tmp_path / "a.jsonl", format=name)
    again = import_workload(tmp_path / "a.jsonl")
    assert again.metadata.source.format == name
    if name != "vllm-timed-trace":  # whose importer cannot know that the last block is hashed: the file does not say
        export_workload(again, tmp_path / "b.jsonl", format=name)
        assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


def test_hashes_of_sessions_are_told_apart(tmp_path: Path) -> None:
    two = workload_of([(20, 5, 0), (20, 7, 10)], 16, scope="session")
    same = [
        Request(
            request_id=r.request_id,
            session_id=r.request_id,
            arrival_s=r.arrival_s,
            input_tokens=20,
            output_tokens=1,
            prefix_hashes=(7, 8),
        )
        for r in two
    ]
    export_workload(Workload.from_requests(same, two.metadata), tmp_path / "x.jsonl", format="vllm-timed-trace")
    assert [r.prefix_hashes for r in import_workload(tmp_path / "x.jsonl")] == [(0, 1), (2, 3)]


def test_what_a_format_cannot_hold_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="blocks of 512"):
        export_workload(workload_of([(20, 5, 0)], 16), tmp_path / "x.jsonl", format="mooncake")
    bare = Workload.from_requests(
        [Request(request_id="a", prompt="x")], WorkloadMetadata(name="w", source=Source(format="test"))
    )
    with pytest.raises(WorkloadError, match=r"has no (arrival_s|input_tokens)"):
        export_workload(bare, tmp_path / "x.jsonl", format="vllm-timed-trace")
    assert list(tmp_path.iterdir()) == []


def again(
    requests: list[Request], name: str, prefix: PrefixHashing | None = None
) -> tuple[list[Request], list[Request]]:
    """The requests as a workload has them, and as they come back."""
    metadata = WorkloadMetadata(name="w", source=Source(format="test"), prefix=prefix)
    workload = Workload.from_requests(requests, metadata)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.jsonl"
        export_workload(workload, path, format=name)
        back = import_workload(path, format=name)
    return tuple(sorted(found, key=lambda request: request.request_id) for found in (workload, back))


def times(requests: list[Request]) -> list[float]:
    return [-1.0 if request.arrival_s is None else request.arrival_s for request in requests]


COUNT = st.integers(0, 2**31 - 1)
BLOCK = st.integers(-(2**63) + 1, 2**63 - 1)


@st.composite
def prompts(draw: st.DrawFn) -> tuple[list[Request], None]:
    rows = draw(st.lists(st.tuples(st.text(), st.none() | COUNT), min_size=1, max_size=6))
    return [Request(request_id=str(n), prompt=text, output_tokens=out) for n, (text, out) in enumerate(rows)], None


@st.composite
def hashed(
    draw: st.DrawFn, size: int, arrival: st.SearchStrategy[float], tail: bool
) -> tuple[list[Request], PrefixHashing]:
    arrivals = sorted(draw(st.lists(arrival, min_size=1, max_size=6)))
    requests = []
    for number, time in enumerate(arrivals):
        tokens = draw(st.integers(1, 6 * size))
        num_blocks = -(-tokens // size) if tail else tokens // size
        hashes = draw(st.none() | st.lists(BLOCK, min_size=num_blocks, max_size=num_blocks).map(tuple))
        fields = {"input_tokens": tokens, "output_tokens": draw(COUNT), "prefix_hashes": hashes}
        requests.append(Request(request_id=str(number), arrival_s=time - arrivals[0], **fields))
    return requests, PrefixHashing(block_size=size, tail_hashed=tail)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Request], None]:
    requests: list[Request] = []
    for number, num_turns in enumerate(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))):
        sent: list[dict[str, str]] = []
        for turn in range(num_turns):
            sent.append({"role": "user", "content": draw(st.text())})
            first = turn == 0
            request = Request(
                request_id=f"s{number}#{turn}",
                session_id=f"s{number}",
                turn=turn,
                parent_ids=() if first else (f"s{number}#{turn - 1}",),
                arrival_s=number * draw(st.integers(0, 10**6)) / 1000 if first else None,
                think_s=None if first else draw(st.integers(0, 10**6)) / 1000,
                output_tokens=draw(st.none() | COUNT),
                messages=json_text(sent),
            )
            requests.append(request)
    return requests, None


SECONDS = st.floats(0, 1e6, allow_subnormal=False)
MILLISECONDS = st.integers(0, 10**9).map(lambda ms: ms / 1000)
WORKLOADS = {
    "vllm-custom": (prompts(), {"prompt", "output_tokens"}),
    "vllm-timed-trace": (
        st.sampled_from([16, 64, 512]).flatmap(lambda size: st.booleans().flatmap(lambda t: hashed(size, SECONDS, t))),
        {"arrival_s", "input_tokens", "output_tokens", "prefix_hashes"},
    ),
    "mooncake": (
        hashed(512, MILLISECONDS, True),
        {"arrival_s", "input_tokens", "output_tokens", "prefix_hashes"},
    ),
    "aiperf": (
        conversations(),
        {"request_id", "session_id", "turn", "parent_ids", "arrival_s", "think_s", "output_tokens", "messages"},
    ),
}


def test_every_format_that_is_written_is_read_back_here() -> None:
    assert WORKLOADS.keys() == EXPORTERS.keys()


@pytest.mark.parametrize("name", WORKLOADS)
@given(data=st.data())
def test_whatever_a_format_holds_comes_back(name: str, data: st.DataObject) -> None:
    strategy, fields = WORKLOADS[name]
    requests, prefix = data.draw(strategy)
    given_, back = again(requests, name, prefix)
    assert len(back) == len(given_)
    for field in fields:
        if field == "arrival_s":
            assert times(back) == pytest.approx(times(given_), rel=1e-12, abs=1e-9)
        else:
            assert [getattr(r, field) for r in back] == [getattr(r, field) for r in given_], field


@given(delays=st.lists(st.lists(st.integers(0, 10**6), min_size=1, max_size=4), min_size=1, max_size=4))
def test_sessions_survive_aiperf_multi_turn(delays: list[list[int]]) -> None:
    rows = [
        {
            "session_id": f"s{i}",
            "turns": [
                {"text": f"{i} {j}", "timestamp" if j == 0 else "delay": ms * (i + j > 0)}
                for j, ms in enumerate(session)
            ],
        }
        for i, session in enumerate(delays)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        workload = import_workload(path)
        export_workload(workload, Path(folder) / "b.jsonl", format="aiperf")
        back = import_workload(Path(folder) / "b.jsonl")
    by_id = {r.request_id: (r.session_id, r.turn, r.parent_ids, r.arrival_s, r.think_s, r.messages) for r in workload}
    again = {r.request_id: (r.session_id, r.turn, r.parent_ids, r.arrival_s, r.think_s, r.messages) for r in back}
    assert again == by_id
