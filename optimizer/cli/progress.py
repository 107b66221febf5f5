"""What a running study shows: one line per finished trial, and a live line with phase, best so far and ETA.

Does not decide anything; everything goes to stderr, so that stdout stays for results.
"""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from optimizer.cli.budget import Budget
from optimizer.results import TrialResult, TrialState


def stderr_console() -> Console:
    """Plain and unwrapped when stderr is not a terminal."""
    console = Console(stderr=True, highlight=False)
    return console if console.is_terminal else Console(stderr=True, highlight=False, width=1000, color_system=None)


class StudyProgress:
    """Live on a terminal, plain lines elsewhere; `quiet` shows nothing."""

    def __init__(self, *, budget: Budget, objective: str, verify_s: float, quiet: bool = False) -> None:
        self._console = stderr_console()
        self._budget, self._objective, self._verify_s, self._quiet = budget, objective, verify_s, quiet
        self._start = time.monotonic()
        self._durations: list[float] = []
        self._best: str = ""
        self._line = ""
        self._live: Live | None = None

    def __enter__(self) -> StudyProgress:
        if self._console.is_terminal and not self._quiet:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            self._console.print(Text(text))

    def phase(self, label: str, text: str) -> None:
        """What is being done now, e.g. ("trial 7 · draft_model k=4", "replaying 43/120")."""
        self._line = f"{label} · {text}"

    def finished(self, result: TrialResult, *, label: str, best: str) -> None:
        """A trial is done; `best` is the best so far in words."""
        self._durations.append(result.duration_s)
        self._best = best
        self.say(f"trial {result.number:>2}  {label:<52} {_outcome(result)}   {self._eta()}")

    def _render(self) -> Text:
        best = f" · best: {self._best}" if self._best else ""
        return Text(
            f"⏱ {_clock(time.monotonic() - self._start)} · {self._line}{best} · {self._eta()}", overflow="ellipsis"
        )

    def _eta(self) -> str:
        left = self.remaining_s()
        return f"ETA {_clock(left)}" if left is not None else "ETA -"

    def remaining_s(self) -> float | None:
        """Seconds to the end, verification included; None until it can be said."""
        elapsed = time.monotonic() - self._start
        if self._budget.seconds is not None:
            return max(0.0, self._budget.seconds - elapsed)
        if not self._durations or self._budget.trials is None:
            return None
        mean = sum(self._durations) / len(self._durations)
        return max(0, self._budget.trials - len(self._durations)) * mean + self._verify_s


class Phases:
    """One changing line on a terminal, one line a phase elsewhere."""

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self._console = stderr_console()
        self._title, self._quiet, self._last = title, quiet, ""
        self._status = self._console.status(title) if self._console.is_terminal and not quiet else None

    def __enter__(self) -> Phases:
        if self._status:
            self._status.start()
        return self

    def show(self, text: str) -> None:
        if self._status:
            self._status.update(f"{self._title}: {text}")
        elif not self._quiet and (kind := text.split(" ")[0]) != self._last:
            self._last = kind  # counts such as "replaying 43/120" would be a line each
            self._console.print(f"{self._title}: {text}")

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()


class Counter:
    """A bar with a count and an ETA on a terminal; two plain lines elsewhere."""

    def __init__(self, text: str, *, total: int, quiet: bool = False) -> None:
        console = stderr_console()
        self._text, self._total, self._count = text, total, 0
        self._console = console
        self._plain = not quiet and not console.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
        self._task = self._bar.add_task(text, total=total)

    def __enter__(self) -> Counter:
        if self._plain:
            self._console.print(f"{self._text} ...")
        self._bar.start()
        return self

    def advance(self, by: int = 1) -> None:
        self._count += by
        self._bar.advance(self._task, by)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._plain:
            self._console.print(f"{self._text}: {self._count} of {self._total} done")


class Rows:
    """A bar with count, rate and ETA on a terminal; nothing elsewhere, where the result tells the count.

    Args:
        expected: about how many there will be; None: unknown, and there is no ETA.
    """

    def __init__(self, text: str, *, expected: int | None = None) -> None:
        console = stderr_console()
        self._text, self._expected, self._count, self._start = text, expected, 0, time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(text, total=expected)

    def __enter__(self) -> Rows:
        self._bar.start()
        return self

    def restart(self) -> None:
        """From 0 again."""
        self._count, self._start = 0, time.monotonic()
        self._bar.reset(self._task, total=self._expected)

    def advance(self, by: int) -> None:
        self._count += by
        rate = self._count / max(1e-9, time.monotonic() - self._start)
        told = f"{self._text}: {self._count:,} requests, {rate:,.0f}/s"
        self._bar.update(self._task, completed=self._count, description=told)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _outcome(result: TrialResult) -> str:
    if result.state is not TrialState.COMPLETE:
        return f"{'stopped early' if result.state is TrialState.STOPPED else result.state}: {result.reason}"
    parts = []
    if (p95 := result.metrics.get("p95_e2el_ms")) is not None:
        parts.append(f"p95 {p95:7.0f} ms")
    if result.quality:
        parts.append(f"quality {result.quality.quality.value:.3f}")
    if result.cost:
        parts.append(f"${result.cost.usd_per_million_tokens.value:.3g}/M")
    if result.reason:
        parts.append(result.reason)
    return "  ".join(parts)
