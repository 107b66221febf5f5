"""When demo conversations happen: bursts of sessions, thinking between turns. It does not know tokens or files."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from workloads.demo.conversation import Conversation, TaskName
from workloads.demo.tasks import draw_conversation

REQUEST_MIX: Mapping[TaskName, float] = {"edit": 0.35, "extraction": 0.30, "table": 0.20, "text": 0.15}
MEAN_TURNS: Mapping[TaskName, float] = {"edit": 1.25, "extraction": 1.8, "table": 2.5, "text": 4 / 3}


@dataclass(frozen=True, kw_only=True)
class TrafficShape:
    """Calm and burst phases of exponential length; in a burst sessions start ``burst_factor`` times as often."""

    requests_per_s: float = 30.0
    burst_factor: float = 2.0
    calm_s: float = 2.4
    burst_s: float = 1.0
    think_s: tuple[float, float] = (0.5, 2.0)
    answer_s: float = 0.1

    def calm_sessions_per_s(self) -> float:
        """Session rate in calm phases that makes the mean request rate ``requests_per_s``."""
        mean_turns = 1 / sum(share / MEAN_TURNS[task] for task, share in REQUEST_MIX.items())
        burst_share = self.burst_s / (self.burst_s + self.calm_s)
        return self.requests_per_s / mean_turns / (1 + burst_share * (self.burst_factor - 1))


@dataclass(frozen=True, kw_only=True)
class Session:
    """A conversation in time: ``arrivals_s`` and ``thinks_s`` have one entry a turn, the first think is 0."""

    number: int
    conversation: Conversation
    arrivals_s: tuple[float, ...]
    thinks_s: tuple[float, ...]


def session_mix() -> dict[TaskName, float]:
    """How often sessions are of each task, so that requests follow ``REQUEST_MIX``."""
    return {task: share / MEAN_TURNS[task] for task, share in REQUEST_MIX.items()}


def draw_starts(rng: random.Random, shape: TrafficShape, duration_s: float) -> Iterator[float]:
    """Start times of sessions before ``duration_s``."""
    calm = shape.calm_sessions_per_s()
    phase_start, in_burst = 0.0, False
    while phase_start < duration_s:
        rate = calm * shape.burst_factor if in_burst else calm
        phase_end = phase_start + rng.expovariate(1 / (shape.burst_s if in_burst else shape.calm_s))
        now = phase_start + rng.expovariate(rate)
        while now < min(phase_end, duration_s):
            yield now
            now += rng.expovariate(rate)
        phase_start, in_burst = phase_end, not in_burst


def draw_sessions(seed: int, shape: TrafficShape, duration_s: float) -> list[Session]:
    """The sessions that start within ``duration_s``, in order of their start."""
    times, content, pauses = (random.Random(f"{seed}-{part}") for part in ("times", "content", "pauses"))
    mix = session_mix()
    sessions = []
    for number, start in enumerate(draw_starts(times, shape, duration_s)):
        conversation = draw_conversation(content, mix)
        sessions.append(_in_time(pauses, shape, number, start, conversation))
    return sessions


def _in_time(rng: random.Random, shape: TrafficShape, number: int, start: float, conversation: Conversation) -> Session:
    thinks, arrivals = [0.0], [start]
    for _ in conversation.turns[1:]:
        thinks.append(round(rng.uniform(*shape.think_s), 3))
        arrivals.append(arrivals[-1] + shape.answer_s + thinks[-1])
    return Session(
        number=number,
        conversation=conversation,
        arrivals_s=tuple(round(arrival, 6) for arrival in arrivals),
        thinks_s=tuple(thinks),
    )
