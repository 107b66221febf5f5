"""`Share`: what one client process is to do; and what it and the replay that started it tell each other.

Does not know processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from workloads.prompts import PromptBuilder
from workloads.records import RequestRecord
from workloads.replay.pacing import Mode
from workloads.replay.part import Part
from workloads.request import Request
from workloads.stopping.stop_rule import InFlight


@dataclass(frozen=True, kw_only=True)
class Share:
    """Names as the `Replayer`'s; `concurrency` and `requests` are this client's own.

    Args:
        builder: knows the server's dialect.
        origin_s: recorded arrival that is replayed at second 0.
        core: to run on alone; None: wherever the system likes.
        tells_records: report records as requests end, not only at the end.
        tells_flights: report what is in flight, one by one.
        look_every_s: how often to report.
    """

    base_url: str
    requests: Sequence[Request] = field(repr=False)
    builder: PromptBuilder = field(repr=False)
    mode: Mode
    speedup: float
    concurrency: int | None
    origin_s: float
    keep_text: bool
    limit_s: float | None
    timeout_s: float
    max_retries: int
    api_key: str | None = field(repr=False)
    core: int | None
    tells_records: bool
    tells_flights: bool
    look_every_s: float


class Ready(NamedTuple):
    """The client has prepared its requests and waits for `Start`."""


class Start(NamedTuple):
    """The moment, on CLOCK_MONOTONIC, that intended starts count from: the same for all clients."""

    zero_s: float


class Report(NamedTuple):
    """What a running client has seen since its last report; `now_s` and the records are on the replay's clock."""

    now_s: float  # infinity: nothing more is sent
    ended: list[RequestRecord]
    in_flight: list[InFlight]
    num_in_flight: int
    last_data_s: float  # monotonic: a byte came from the server


class Done(NamedTuple):
    """The client has come to its end; `changes` are its builder's."""

    part: Part
    changes: Counter[str]


class Failure(NamedTuple):
    """The client cannot do it."""

    error: Exception
