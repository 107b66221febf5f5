"""`SiliconOracle`: step times from the kernel measurements that the package `aiconfigurator-core` ships.

Does not know schedulers. The package answers for one shape of step at a time, in tens of microseconds; here its answers
are tabulated once per (model, system, parallel split, formats), split into the three parts that it adds up: everything
but attention by tokens, attention of prompts by their length, attention of decoding by sequences and context.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from engine.simulator.errors import SimulatorError
from engine.simulator.oracle import Provenance, Source
from engine.simulator.traffic import Floats

_PACKAGE = "aiconfigurator-core"
_MS = 1e-3
_LENGTH_STEP = 64  # tokens between knots of prompt attention


@dataclass(frozen=True, kw_only=True)
class SiliconTarget:
    """What is asked about.

    Args:
        model: a folder with a config.json, or a name in `known_models()`.
        system: one of `known_systems()`.
        gemm_quant_mode: the package's name of the matrices' format (`fp8`, `nvfp4`, ...); None: the checkpoint's.
        kv_cache_quant_mode: the same for the KV cache.
    """

    model: str
    system: str
    tensor_parallel_size: int = 1
    gemm_quant_mode: str | None = None
    kv_cache_quant_mode: str | None = None


class SiliconOracle:
    """Tables up to a step's largest batch and context.

    Raises:
        SimulatorError: the package is missing, or has no data for the target: the nearest that it has is named.
    """

    def __init__(self, target: SiliconTarget, *, max_tokens: int, max_seqs: int, max_context: int) -> None:
        handle = _compile(target)
        self._shared_s = _table(lambda tokens: handle.mixed_step_breakdown(tokens, 0, tokens, 2)[1], max_tokens)
        self._lengths_s = _length_table(handle, max_context)
        self._contexts, self._decode_s = _decode_table(handle, max_seqs, max_context)
        self._max_tokens, self._max_seqs = max_tokens, max_seqs
        self.provenance = _provenance(handle, target)

    def step_s(
        self,
        prefill_seqs: int,
        prefill_tokens: int,
        prefill_context: int,
        decode_seqs: int,
        decode_context: float,
        draft_tokens: float,
    ) -> float:
        """Seconds; a chunk's attention is that of the prompt so far less that of its context."""
        tokens = int(prefill_tokens + decode_seqs + draft_tokens + 0.5)
        seconds = self._shared_s[min(tokens, self._max_tokens)]
        if tokens > self._max_tokens:
            seconds *= tokens / self._max_tokens
        if prefill_tokens:
            after, before = (prefill_context + prefill_tokens) / prefill_seqs, prefill_context / prefill_seqs
            seconds += prefill_seqs * (self._prompt_s(after) - self._prompt_s(before))
        if decode_seqs:
            seconds += self._attention_s(decode_seqs, decode_context / decode_seqs)
        return seconds

    def _prompt_s(self, length: float) -> float:
        place = min(int(length / _LENGTH_STEP), len(self._lengths_s) - 2)
        low, high = self._lengths_s[place], self._lengths_s[place + 1]
        return low + (high - low) * (length / _LENGTH_STEP - place)

    def _attention_s(self, seqs: int, context: float) -> float:
        row, knots = self._decode_s[min(seqs, self._max_seqs)], self._contexts
        place = min(max(bisect_right(knots, context) - 1, 0), len(knots) - 2)
        share = (context - knots[place]) / (knots[place + 1] - knots[place])
        return row[place] + (row[place + 1] - row[place]) * share


@lru_cache(maxsize=1)
def known_systems() -> dict[str, str]:
    """Systems with vLLM data, and the version of vLLM that was measured."""
    database = _module("perf_database")
    found = {}
    for system, backends in sorted(database.get_supported_databases().items()):
        slots = database.get_version_slots(system, "vllm")
        if slots and "vllm" in backends:
            found[system] = str(slots["current"])
    return found


def known_models() -> list[str]:
    """Models whose config.json the package ships.

    Raises:
        SimulatorError: the package is missing.
    """
    files = _model_configs().glob("*_config.json")
    return sorted(file.name.removesuffix("_config.json").replace("--", "/") for file in files)


def known_model_file(model: str) -> Path:
    """The config.json of one of `known_models()`."""
    return _model_configs() / f"{model.replace('/', '--')}_config.json"


def _model_configs() -> Path:
    try:
        distribution = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise _missing_package() from None
    return Path(str(distribution.locate_file("aiconfigurator_core/model_configs")))


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"aiconfigurator_core.sdk.{name}")
    except ImportError:
        raise _missing_package() from None


def _missing_package() -> SimulatorError:
    return SimulatorError(
        f"silicon step times need the package {_PACKAGE}. Install fireoptimizer[silicon], or use the roofline"
    )


def _compile(target: SiliconTarget) -> Any:
    engine = _module("engine")
    systems = known_systems()
    if target.system not in systems:
        raise SimulatorError(f"no silicon data for system {target.system!r}. Choose one of {', '.join(systems)}")
    if not Path(target.model).is_dir() and target.model not in known_models():
        raise SimulatorError(
            f"no model folder and no known model is called {target.model!r}. Give a folder with a config.json, or one "
            f"of {', '.join(known_models())}"
        )
    with _quiet():
        try:
            handle = engine.EngineHandle.compile(
                target.model,
                target.system,
                backend="vllm",
                tp_size=target.tensor_parallel_size,
                gemm_quant_mode=target.gemm_quant_mode,
                kvcache_quant_mode=target.kv_cache_quant_mode,
            )
            handle.mixed_step_breakdown(64, 1, 64, 2)
        except Exception as error:  # the package raises its own, ValueError, RuntimeError, KeyError and AssertionError
            what = f"{target.model} on {target.tensor_parallel_size} x {target.system}"
            reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            raise SimulatorError(f"no silicon data for {what}: {reason}. Use the roofline for it") from error
    return handle


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The package warns about fallbacks of models that were not asked for."""
    logger = logging.getLogger("aiconfigurator_core")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _table(answer_ms: Any, largest: int) -> list[float]:
    """Seconds by 0..largest tokens: asked at knots, straight between them; tiles make jumps after powers of two.

    No batch takes longer than a larger one that was measured: engines pad batches, and what is slower is an outlier.
    """
    powers = [2**power for power in range(6, 18)]
    knots = set(range(1, 33)) | {int(32 * 1.06**step) for step in range(200)}
    knots |= set(chain(powers, (power + 1 for power in powers))) | {largest}
    places = sorted(knot for knot in knots if knot <= largest)
    measured = np.array([answer_ms(place) * _MS for place in places])
    values = np.minimum.accumulate(measured[::-1])[::-1]
    return [0.0, *np.interp(np.arange(1, largest + 1), places, values).tolist()]


def _length_table(handle: Any, max_context: int) -> list[float]:
    """Attention of one whole prompt, at multiples of `_LENGTH_STEP`; longer ones by the last two knots."""
    lengths = np.arange(0, max_context + 2 * _LENGTH_STEP, _LENGTH_STEP)
    knots = sorted({int(_LENGTH_STEP * 1.2**step) for step in range(80)} & set(range(max_context + 1)) | {max_context})
    values = [handle.mixed_step_breakdown(knot, 0, knot, 2)[2] * _MS for knot in knots]
    table: list[float] = np.interp(lengths, [0, *knots], [0.0, *values]).tolist()
    return table


def _decode_table(handle: Any, max_seqs: int, max_context: int) -> tuple[list[float], list[list[float]]]:
    """Attention of decoding, by 0..max_seqs sequences and at knots of context."""
    contexts = sorted({int(64 * 1.4**step) for step in range(40) if 64 * 1.4**step < max_context} | {max_context})
    asked = sorted(
        {n for n in chain(range(1, 9), (int(8 * 1.15**step) for step in range(60))) if n <= max_seqs} | {max_seqs}
    )
    answers: Floats = np.array(
        [[handle.mixed_step_breakdown(1, n, context, 2)[3] * _MS for context in contexts] for n in asked]
    )
    seqs = np.arange(max_seqs + 1)
    columns = [np.interp(seqs, asked, answers[:, place]) for place in range(len(contexts))]
    return [float(context) for context in contexts], np.array(columns).T.tolist()


def _provenance(handle: Any, target: SiliconTarget) -> Provenance:
    """Where the package's own figures are not measurements, it says so by operation."""
    parts = chain(*handle.mixed_step_breakdown_per_op(512, 32, 1024, 2))
    operations = [(str(name), float(ms), str(source)) for name, ms, _, source in parts]
    total = sum(ms for _, ms, _ in operations)
    estimated = sum(ms for _, ms, source in operations if source != "silicon")
    names = sorted({name for name, _, source in operations if source != "silicon"})
    version = known_systems()[target.system]
    gap = f"{estimated / total:.0%} of a mixed step's time is not measured but estimated by the package"
    return Provenance(
        source=Source.SILICON,
        detail=f"{_PACKAGE} {importlib.metadata.version(_PACKAGE)}, vLLM {version} on {target.system}",
        gaps=(f"{gap} ({', '.join(names)})",) if names else (),
    )
