"""`LoadGenerator`: a tool that sends requests at a constant rate and says how long they took.

Does not know the truth.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
MODEL = "mock"
PROMPT_TOKENS = 8


class Job(NamedTuple):
    """What to do: `count` streamed completions of 16 tokens at a constant rate."""

    base_url: str
    rate: float
    count: int
    core: int | None  # the client's
    python: Path | None  # of the tool's own environment
    tokenizer: Path  # a Hugging Face folder
    folder: Path  # for what the tool writes


class Said(NamedTuple):
    """What the tool says, a value a request in the order sent, seconds."""

    ttft: Floats
    e2el: Floats
    lag: Floats | None = None  # how late it sent, where it says so
    intended: Floats | None = None  # when it meant to send, from any zero; None: at a constant rate
    is_steady: bool = True  # False: at random gaps that it does not tell, so that nobody knows how late it was


class ToolError(Exception):
    """The tool did not do it; the words are for the table."""


class LoadGenerator(Protocol):
    """Runs one job."""

    def __call__(self, job: Job) -> Said:
        """Do it.

        Raises:
            ToolError: it failed, with its last words.
        """
        ...


def beside(python: Path | None, name: str) -> str:
    """A command of the environment that an interpreter belongs to."""
    if python is None:
        raise ToolError("no environment given (--python NAME=PATH)")
    return str(python.parent / name)


def run(command: Sequence[str], job: Job, *, env: dict[str, str] | None = None, timeout_s: float = 120) -> None:
    """Run a tool pinned to the client's core, in the job's folder.

    Raises:
        ToolError: it cannot start, fails or does not end.
    """
    core, log = job.core, job.folder / "log.txt"
    settings = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "NO_COLOR": "1", **(env or {})}
    try:
        with log.open("wb") as output:
            subprocess.run(
                command,
                cwd=job.folder,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | settings,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=True,
                preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
            )
    except (subprocess.SubprocessError, OSError) as error:
        words = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
        raise ToolError(f"{type(error).__name__}: {' / '.join(words)[-300:] or error}") from error
