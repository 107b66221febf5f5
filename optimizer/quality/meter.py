"""`QualityMeter`: how far a quantization's next-token distributions are from the unquantized model's on its answers.

Does not choose what to measure, and does not score checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.backend import Backend, EngineError, FailureKind
from engine.config import EngineConfig, Quantization
from optimizer.client import Report, silent
from optimizer.errors import OptimizerError
from optimizer.launching import Launcher
from optimizer.model_vocabulary import vocab_size
from optimizer.quality.divergence import ResponseDivergence
from optimizer.quality.evaluate import reference_config
from optimizer.quality.examiner import Examiner
from optimizer.quality.intervals import mean_interval
from optimizer.quality.looks import FORCED_RESPONSE_TOKENS, Look
from optimizer.quality.queries import PromptWriter
from optimizer.quality.reference import Reference
from optimizer.quality.sample import choose_sample
from workloads.estimate import Estimate
from workloads.workload import Workload

_HANG_S = 120.0
_MAX_REQUESTS = 10_000


class QualityMeter:
    """Measures quantizations of `base` one after another, each on the same requests and tokens.

    A `Backend` that reconfigures its server (`WarmBackend`) loads the model once for all of them.

    Args:
        num_tokens: of answers that are compared, about; prompts come on top.
        directory: for the engine's logs.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        base: EngineConfig,
        workload: Workload,
        num_tokens: int,
        directory: Path,
        seed: int = 0,
        report: Report = silent,
    ) -> None:
        self._launcher, self._directory, self._report = Launcher(backend), directory, report
        self._base, self._backend = reference_config(base), backend
        self._prompts = PromptWriter(workload, vocab_size=vocab_size(base))
        requests = choose_sample(workload, _MAX_REQUESTS, seed=seed).requests
        mean = sum(request.output_tokens or 64 for request in requests) / len(requests)
        enough = max(1, round(2 * num_tokens / mean))  # answers may be half as long as the recorded ones
        self._requests = [replace(request, checks=()) for request in requests[:enough]]  # tokens decide, no checks
        self._scale = num_tokens / FORCED_RESPONSE_TOKENS
        self._reference = self._answer()

    @property
    def num_tokens(self) -> int:
        """Tokens of answers that every measurement compares."""
        return sum(len(answer.response_ids) for answer in self._reference.answers if answer.top is not None)

    def divergences(self, quantization: Quantization) -> tuple[ResponseDivergence, ...]:
        """One of each answer.

        Raises:
            EngineError: the engine cannot run it.
        """
        config = self._base.model_copy(update={"quantization": quantization})
        if refusals := self._backend.check(config):
            raise EngineError(refusals[0].reason, kind=refusals[0].kind)
        with self._examiner(config) as examiner:
            everything = Look(num_scored=0, num_forced=len(self._reference.answers))
            return examiner.compare(self._reference, {}, done=Look(0, 0), look=everything).divergences

    def kl(self, quantization: Quantization) -> Estimate:
        """Mean KL(unquantized || quantized) in nats a token; the interval is by request.

        Raises:
            EngineError: the engine cannot run it.
        """
        return mean_kl(self.divergences(quantization))

    def _answer(self) -> Reference:
        with self._examiner(self._base) as examiner:
            reference = examiner.make_reference(self._requests, extension=self._scale)
        forced = tuple(answer for answer in reference.answers if answer.top is not None)
        if not forced:
            raise EngineError("the engine does not score prompts (prompt_logprobs)", kind=FailureKind.UNSUPPORTED)
        return Reference(answers=forced)

    @contextmanager
    def _examiner(self, config: EngineConfig) -> Iterator[Examiner]:
        with self._launcher.launch(config, log_path=self._directory / "engine.log", report=self._report) as server:
            yield Examiner(server, self._prompts, hang_s=_HANG_S, report=self._report)


def mean_kl(divergences: tuple[ResponseDivergence, ...]) -> Estimate:
    """Σ KL / Σ tokens in nats a token.

    Raises:
        OptimizerError: nothing was compared.
    """
    if not divergences:
        raise OptimizerError("no answers were compared. Give a workload whose requests have answers")
    kl = np.array([each.kl_nats for each in divergences])
    return mean_interval(kl, np.array([each.num_tokens for each in divergences], dtype=np.float64))
