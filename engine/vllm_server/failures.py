"""What vLLM's log says went wrong: patterns of its own words, the kind of failure each means, and what to do.

Does not read processes: it is given log lines and says what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from engine.backend import FailureKind


class Pattern(NamedTuple):
    """A line that matches `words` means `kind`; `advice` ends the sentence the user reads."""

    words: str
    kind: FailureKind
    advice: str


class Diagnosis(NamedTuple):
    """The kind, vLLM's own line without its prefix, and what to do."""

    kind: FailureKind
    line: str
    advice: str


_SMALLER = "Lower max_model_len, max_num_seqs or the KV cache, or take a larger device"
_OTHER = "Leave this combination out"

# In order: the first row that any line matches is the cause; lines that only report a death come last.
TABLE: tuple[Pattern, ...] = (
    Pattern(r"Address already in use|port \d+ is (already )?in use", FailureKind.PORT, "Choose another port"),
    Pattern(
        r"OutOfMemoryError|CUDA out of memory|HIP out of memory|DefaultCPUAllocator: (can't|not enough) allocate"
        r"|MemoryError|Cannot allocate memory|std::bad_alloc|No space left on device",
        FailureKind.OUT_OF_MEMORY,
        _SMALLER,
    ),
    Pattern(
        r"No available memory for the cache blocks|KV cache is needed, which is larger than the available KV cache"
        r"|larger than the maximum number of tokens that can be stored in KV cache"
        r"|(Available|Free) memory on .* is less than desired|Not enough available (CPU )?memory"
        r"|exceeds? .*available memory",
        FailureKind.OUT_OF_MEMORY,
        _SMALLER,
    ),
    Pattern(
        r"unrecognized arguments?:|invalid choice:|error: argument |ambiguous option",
        FailureKind.UNSUPPORTED,
        "This vLLM has no such option; its version differs from the one that was asked",
    ),
    Pattern(
        r"Failed to find a kernel|[Nn]o kernel (is |image )|no (valid|suitable|compatible) .*(kernel|backend)"
        r"|not implemented for '|Could not run '.*' with arguments from the"
        r"|_C::\w+\(\) expected at most 0 argument"  # an operator that is declared and not built
        r"|has no attribute '\w*(gemm|scaled_mm|kernel)\w*'",
        FailureKind.MISSING_KERNEL,
        "This number format does not run on this device",
    ),
    Pattern(
        r"were not initialized from (the )?checkpoint|SafetensorError|HeaderTooLarge|MetadataIncompleteBuffer"
        r"|Error while deserializing header|Cannot find any model weights|There is no module or parameter named"
        r"|size mismatch|KeyError: '[\w.]*(weight|layers|proj|embed|norm)[\w.]*'|Missing key|shape mismatch.*weight"
        r"|Attempted to load weight|Unrecognized model in|not a valid JSON file",
        FailureKind.BAD_CHECKPOINT,
        "The checkpoint is damaged or of another model",
    ),
    Pattern(
        r"(is|are) not (yet )?(supported|compatible)|not support(ed)?\b|does not support|is only supported|unsupported"
        r"|NotImplementedError|ValidationError|Not enough allowed NUMA nodes|doesn't match local world size"
        r"|must be (divisible|a multiple)|is not divisible by|should be divisible|ModuleNotFoundError|ImportError"
        r"|Arctic Inference is required|User-specified max_model_len|(Value|Type|Attribute)Error:",
        FailureKind.UNSUPPORTED,
        _OTHER,
    ),
    Pattern(
        r"EngineDeadError|Engine core initialization failed|died unexpectedly|WorkerProc .*(failed|hit an exception)"
        r"|EngineCore encountered a fatal error|Segmentation fault",
        FailureKind.DIED,
        "See the log",
    ),
)

# Lines that every failure drags along, and warnings that say `not supported` of what is merely off.
_NOISE = re.compile(
    r"\b(INFO|WARNING|DEBUG)\b.*|Engine core initialization failed.*|.*See root cause above.*|.*Warning: .*"
)
_PREFIX = re.compile(
    r"^(\((\w+|\w+ pid=\d+|[\w ]+=\d+)\)\s*)*((ERROR|CRITICAL)\s+[\d-]+ [\d:.]+\s+\[[^\]]*\]\s*)?(\[rank\d+\]:\s*)?"
)


# What can still go wrong once it has answered; other rows would read old words into a new death.
_WHILE_SERVING = (FailureKind.OUT_OF_MEMORY, FailureKind.MISSING_KERNEL, FailureKind.DIED)


def diagnose(lines: Sequence[str], *, was_healthy: bool = False) -> Diagnosis | None:
    """The cause a log's lines name; None when no row of the table matches."""
    said = [line for raw in lines if (line := _PREFIX.sub("", raw).strip()) and not _NOISE.fullmatch(line)]
    for words, kind, advice in TABLE:
        if was_healthy and kind not in _WHILE_SERVING:
            continue
        pattern = re.compile(words)
        # the last such line: chained exceptions end with the one that was raised
        found = next((line for line in reversed(said) if pattern.search(line)), None)
        if found is not None:
            return Diagnosis(kind, found[:400].rstrip("."), advice)
    return None
