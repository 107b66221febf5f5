"""Small recorded workloads for the fake engine."""

import random

from fakes.fake_model import FakeModel, decode, encode

from workloads.metadata import Source, WorkloadMetadata
from workloads.request import Check, Request, json_text
from workloads.workload import Workload

METADATA = WorkloadMetadata(name="letters", source=Source(format="generated"), vocab_size=128)
MAX_TOKENS = 8


def letters(rng: random.Random, count: int = 8) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=count))


def reference_text(content: str) -> str:
    """What the undamaged fake model answers to a one-message chat."""
    return decode(FakeModel().generate(encode(f"<user>{content}"), MAX_TOKENS))


def chat_request(number: int, rng: random.Random, *, arrival_s: float, checked: bool = True) -> Request:
    content = letters(rng)
    answer = reference_text(content)
    return Request(
        request_id=f"r{number}",
        arrival_s=arrival_s,
        input_tokens=len(encode(f"<user>{content}")),
        output_tokens=max(2, len(answer)),
        messages=json_text([{"role": "user", "content": content}]),
        max_tokens=MAX_TOKENS,
        checks=(Check(kind="exact", spec=json_text(answer)),) if checked else (),
        extra=json_text({"task": "even" if number % 2 == 0 else "odd"}),
    )


def chats(num_requests: int, *, rate_rps: float = 40.0, checked: bool = True, seed: int = 0) -> Workload:
    """One-turn chats at even distances."""
    rng = random.Random(seed)
    requests = [chat_request(i, rng, arrival_s=i / rate_rps, checked=checked) for i in range(num_requests)]
    return Workload.from_requests(requests, METADATA)


def lengths_only(num_requests: int, *, rate_rps: float = 40.0) -> Workload:
    """A trace without any text."""
    requests = [
        Request(request_id=f"r{i}", arrival_s=i / rate_rps, input_tokens=12 + i % 5, output_tokens=4 + i % 3)
        for i in range(num_requests)
    ]
    return Workload.from_requests(requests, METADATA)


def sessions(num_sessions: int, *, gap_s: float = 0.5, num_turns: int = 3, seed: int = 0) -> Workload:
    """Sessions whose turns follow each other after 0.1 s."""
    rng = random.Random(seed)
    requests = [
        Request(
            request_id=f"s{session}-{turn}",
            session_id=f"s{session}",
            turn=turn,
            parent_ids=(f"s{session}-{turn - 1}",) if turn else (),
            think_s=0.1 if turn else None,
            arrival_s=session * gap_s + 0.1 * turn,
            input_tokens=10,
            output_tokens=4,
            prompt=letters(rng),
        )
        for session in range(num_sessions)
        for turn in range(num_turns)
    ]
    return Workload.from_requests(requests, METADATA)
