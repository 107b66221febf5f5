"""Writes the demo's recorded workload, a train part and a later held-out part. It does not know engines or weights.

Run ``python -m workloads.demo.build``.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from workloads.demo.conversation import Message
from workloads.demo.tokenizer import BOS, END
from workloads.demo.traffic import Session, TrafficShape, draw_sessions
from workloads.metadata import Converter, SloClass, Source, WorkloadMetadata
from workloads.parquet import write_workload
from workloads.request import Check, Request, json_text

MODEL = "workloads/demo/models/target"
MAX_TOKENS = 160
SLO_CLASSES = {"interactive": SloClass(ttft_ms=250, tpot_ms=15, percentile=95)}
SYNTHETIC_PARTS = (
    "arrivals: sessions start at random in calm and burst phases",
    "think times: uniform; arrivals of later turns assume a fixed answer time",
    "messages and responses: generated from templates; every response is the gold answer, not a model's output",
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of the workload: sessions of one stretch of the timeline that begins at ``start_s``."""

    name: str
    start_s: float
    sessions: list[Session]


def num_tokens(tokenizer: Tokenizer, text: str) -> int:
    """Tokens of ``text``, special ones counted as written."""
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def render_prompt(messages: list[Message]) -> str:
    """The prompt the chat template makes of the messages, ready for an answer."""
    turns = "".join(f"<|{message['role']}|>{message['content']}{END}" for message in messages)
    return f"{BOS}{turns}<|assistant|>"


def session_requests(tokenizer: Tokenizer, session: Session, start_s: float) -> Iterator[Request]:
    """One request a turn, each waiting for the one before."""
    talk = session.conversation
    session_id = f"session-{session.number:05d}"
    for number, turn in enumerate(talk.turns):
        messages = talk.messages(number)
        yield Request(
            request_id=f"{session_id}-{number}",
            arrival_s=round(session.arrivals_s[number] - start_s, 6),
            session_id=session_id,
            turn=number,
            parent_ids=(f"{session_id}-{number - 1}",) if number else (),
            think_s=session.thinks_s[number] if number else None,
            tenant=talk.tenant,
            slo_class="interactive",
            input_tokens=num_tokens(tokenizer, render_prompt(messages)),
            output_tokens=num_tokens(tokenizer, turn.answer + END),
            messages=json_text(messages),
            max_tokens=MAX_TOKENS,
            temperature=0.0,
            response=turn.answer,
            status="ok",
            finish_reason="stop",
            checks=tuple(Check(kind=item.kind, spec=item.spec, weight=item.weight) for item in turn.checks),
            extra=json_text({"task": talk.task}),
        )


def split(sessions: list[Session], cut_s: float) -> tuple[Part, Part]:
    """The sessions that start before ``cut_s``, and the later ones."""
    early = [session for session in sessions if session.arrivals_s[0] < cut_s]
    late = [session for session in sessions if session.arrivals_s[0] >= cut_s]
    return (
        Part(name="demo", start_s=early[0].arrivals_s[0], sessions=early),
        Part(name="demo-heldout", start_s=late[0].arrivals_s[0], sessions=late),
    )


def metadata(part: Part, vocab_size: int) -> WorkloadMetadata:
    """What holds for the whole file."""
    return WorkloadMetadata(
        name=part.name,
        source=Source(format="generated", license="Apache-2.0"),
        tokenizer=MODEL,
        vocab_size=vocab_size,
        model=MODEL,
        slo_classes=SLO_CLASSES,
        capabilities=("open_loop", "closed_loop", "quality"),
        synthetic_parts=SYNTHETIC_PARTS,
        converter=Converter(name="workloads.demo.build", version="1"),
    )


def write_part(path: Path, part: Part, tokenizer: Tokenizer) -> None:
    """Write one file and say what it holds."""
    requests = [row for session in part.sessions for row in session_requests(tokenizer, session, part.start_s)]
    write_workload(path, requests, metadata(part, tokenizer.get_vocab_size()))
    last = max(request.arrival_s or 0.0 for request in requests)
    print(f"{path.name}: {len(requests)} requests, {len(part.sessions)} sessions, {last:.1f} s")


def main() -> None:
    """Parse arguments and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("workloads/demo"))
    parser.add_argument("--tokenizer", type=Path, default=Path(MODEL) / "tokenizer.json")
    parser.add_argument("--requests-per-s", type=float, default=TrafficShape.requests_per_s)
    parser.add_argument("--train-s", type=float, default=60.0)
    parser.add_argument("--heldout-s", type=float, default=45.0)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    shape = TrafficShape(requests_per_s=args.requests_per_s)
    sessions = draw_sessions(args.seed, shape, args.train_s + args.heldout_s)
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    for file, part in zip(("workload", "heldout"), split(sessions, args.train_s), strict=True):
        write_part(args.out / f"{file}.parquet", part, tokenizer)


if __name__ == "__main__":
    main()
