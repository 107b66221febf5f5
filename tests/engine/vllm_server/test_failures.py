"""vLLM's own words, kept from real logs of 0.32.0 on a CPU, and the kind of failure each means."""

from pathlib import Path

import pytest

from engine.backend import FailureKind
from engine.vllm_server.failures import TABLE, diagnose

LOGS = Path(__file__).parent / "logs"


@pytest.mark.parametrize(
    ("log", "kind", "words"),
    [
        ("unknown-flag", FailureKind.UNSUPPORTED, "unrecognized arguments: --no-such-flag"),
        ("kv-cache-too-small", FailureKind.OUT_OF_MEMORY, "ValueError: To serve at least one request"),
        ("fp8-at-load", FailureKind.MISSING_KERNEL, "RuntimeError: _C::static_scaled_fp8_quant() expected"),
    ],
)
def test_a_real_log_gives_its_cause_and_not_what_it_dragged_along(log: str, kind: FailureKind, words: str) -> None:
    found = diagnose((LOGS / f"{log}.log").read_text().splitlines())
    assert found is not None
    assert found.kind is kind
    assert found.line.startswith(words) or words in found.line
    assert found.advice


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", FailureKind.OUT_OF_MEMORY),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried", FailureKind.OUT_OF_MEMORY),
        ("OSError: [Errno 98] Address already in use", FailureKind.PORT),
        ("ValueError: Failed to find a kernel that can implement the layer", FailureKind.MISSING_KERNEL),
        ("safetensors_rust.SafetensorError: Error while deserializing header", FailureKind.BAD_CHECKPOINT),
        ("ValueError: Following weights were not initialized from checkpoint: {'a'}", FailureKind.BAD_CHECKPOINT),
        ("NotImplementedError: LoRA is not supported with this", FailureKind.UNSUPPORTED),
        ("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue", FailureKind.DIED),
    ],
)
def test_a_line_means_its_kind_whatever_process_said_it(line: str, kind: FailureKind) -> None:
    said = f"(EngineCore pid=31) ERROR 11-25 19:22:48 [core.py:1510] {line}"
    found = diagnose(["", said, "RuntimeError: Engine core initialization failed. See root cause above."])
    assert found is not None
    assert found.kind is kind
    assert found.line == line.rstrip(".")


def test_an_engine_core_killed_under_load_has_died() -> None:
    found = diagnose((LOGS / "killed-under-load.log").read_text().splitlines(), was_healthy=True)
    assert found is not None
    assert found.kind is FailureKind.DIED
    assert "EngineDeadError" in found.line


def test_a_death_under_load_is_not_explained_by_words_of_the_start() -> None:
    lines = ["ValueError: this adapter is not supported", "EngineCore encountered a fatal error"]
    at_start, serving = diagnose(lines), diagnose(lines, was_healthy=True)
    assert at_start is not None
    assert serving is not None
    assert (at_start.kind, serving.kind) == (FailureKind.UNSUPPORTED, FailureKind.DIED)


def test_a_quiet_log_has_no_cause() -> None:
    lines = ["(APIServer pid=1) INFO 11-25 19:00:00 [a.py:1] FP8 is not supported here, using bf16", "Loading: 100%"]
    assert diagnose(lines) is None
    assert diagnose([]) is None


def test_every_row_says_what_to_do() -> None:
    assert all(row.advice and not row.advice.endswith(".") for row in TABLE)
