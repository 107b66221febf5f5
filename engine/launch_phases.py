"""What a starting server is doing, told by the last words of its log: vLLM's, and what SGLang and llama.cpp say alike.

Does not know processes, nor how long a phase takes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

# Lines of ours in a server's log, about what is made before it starts.
OURS = "fopt: "

# The last line that any row matches is the phase; of its rows the first.
_PHASES: tuple[tuple[str, str], ...] = (
    (r"Capturing .*graph|graph captur", "capturing graphs"),
    (
        r"[Cc]ompiling|Dynamo bytecode transform|torch\.compile (took|takes)|[Ww]arming up model for the compilation"
        r"|Tuning|autotun",
        "compiling",
    ),
    (r"Loading drafter", "loading the draft"),
    (
        r"Loading safetensors|Starting to load model|Loading weights|Load weight|Loading model weights"
        r"|llama_model_load|load_tensors|Loading .*checkpoint",
        "loading weights",
    ),
    (
        r"[Mm]emory profiling|KV cache (size|memory)|init engine|Available KV cache|KV Cache is allocated"
        r"|llama_kv_cache|Memory pool",
        "laying out the KV cache",
    ),
    (
        r"Starting \w+ server on|Started server process|Waiting for application startup|Application startup complete"
        r"|Uvicorn running|server is (listening|fired up)|HTTP server|Available routes|Route: /",
        "waiting for health",
    ),
    (r"Initializing a|non-default args|Resolved architecture|server_args", "starting the engine"),
)
_PERCENT = re.compile(r"(\d{1,3})%")
# A warning tells of what is off or missing, and the file that a line comes from may be called anything.
_PREFIX = re.compile(r"^(\([^)]*\)\s*)*(INFO|DEBUG)\s+[\d-]+ [\d:.]+\s+\[[^\]]*\]")


def note_for_reader(log_path: Path, text: str) -> None:
    """Add a line to a server's log, for `launch_phase` and for whoever reads it."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("a", encoding="utf-8") as log:
        log.write(f"{OURS}{text}\n")


def launch_phase(lines: Sequence[str]) -> str | None:
    """E.g. `loading weights 45%`; None before any line says what it does."""
    for line in reversed(lines):
        if line.startswith(OURS):
            return line.removeprefix(OURS)
        if " WARNING " in line or "Warning: " in line:
            continue
        said = _PREFIX.sub("", line)
        for words, phase in _PHASES:
            if re.search(words, said):
                percent = _PERCENT.search(said)
                return f"{phase} {percent[1]}%" if percent else phase
    return None
