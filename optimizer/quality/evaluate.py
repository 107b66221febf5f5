"""`QualityEvaluator`: the quality of each quality class, evaluated once and kept on disk.

Does not launch engines: it is handed a server that runs the config.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from engine.backend import Server
from engine.config import EngineConfig, Quantization
from optimizer.atomic_file import write_text
from optimizer.client import Report, silent
from optimizer.errors import OptimizerError
from optimizer.model_vocabulary import vocab_size
from optimizer.placement import Placement
from optimizer.quality.examiner import Examiner
from optimizer.quality.looks import Look, decides, is_futile, plan_looks
from optimizer.quality.queries import PromptWriter
from optimizer.quality.reference import Reference, load_reference, save_reference
from optimizer.quality.sample import QualitySample, choose_sample
from optimizer.quality.score import Compared, quality_score, reference_score
from optimizer.results import QualityScore
from workloads.request import Request
from workloads.workload import Workload

DEFAULT_FLOOR = 0.99


def reference_config(default: EngineConfig) -> EngineConfig:
    """The default config, unquantized and without speculation: what quality is relative to.

    Of a server that a command starts: what `launch.quality` names at the values it gives.
    """
    arguments = {**default.engine_args, **(default.launch.quality if default.launch else {})}
    plain = {"quantization": Quantization(), "speculative_config": None, "engine_args": arguments}
    return default.model_copy(update=plain)


class QualityEvaluator:
    """Scores quality classes against one reference on one set of requests.

    A floor is decided in looks (see `plan_looks`), of which two may accept: `num_requests` requests, and when the
    interval then straddles the floor `num_requests_max`. Each look's 95% interval errs at its low end with 2.5%, so a
    class under the floor is accepted with at most 5% (union bound over the two).

    Args:
        directory: `<study>/quality`; holds the reference and one JSON file a class, which a resumed study reuses.
        workload: where the requests are drawn from; all of them may be used.
        floor: decides how many requests are enough; None: the first look is the last.
    """

    def __init__(
        self,
        *,
        directory: Path,
        workload: Workload,
        reference_class: str,
        num_requests: int,
        num_requests_max: int,
        floor: float | None = DEFAULT_FLOOR,
        placement: Placement,
        seed: int = 0,
        hang_s: float = 60.0,
    ) -> None:
        self.reference_class = reference_class
        self._directory, self._workload, self._seed = directory, workload, seed
        self._num_requests, self._num_requests_max = num_requests, max(num_requests, num_requests_max)
        self._floor, self._placement, self._hang_s = floor, placement, hang_s
        self._reference = load_reference(self._reference_path)

    @property
    def has_reference(self) -> bool:
        """Whether the reference's responses are known, from this run or an earlier one."""
        return self._reference is not None

    def known(self, quality_class: str) -> QualityScore | None:
        """The score of a class evaluated before, else None."""
        path = self._class_path(quality_class)
        return QualityScore.model_validate_json(path.read_text()) if path.exists() else None

    def score(self, server: Server, config: EngineConfig, *, report: Report = silent) -> QualityScore:
        """The class's score; the reference class makes the reference's responses and is 1.0 by definition.

        Raises:
            OptimizerError: another class before the reference (see `Evaluator.prepare`).
            EngineError: the engine died, hung or refused what the reference answered.
        """
        quality_class = config.quality_class()
        score = self.known(quality_class)
        if score is None:
            with self._placement.client_pinned():
                prompts = PromptWriter(
                    self._workload, vocab_size=vocab_size(config), adapters=config.lora_modules.keys()
                )
                examiner = Examiner(server, prompts, hang_s=self._hang_s, report=report)
                score = self._evaluate(examiner, quality_class)
            write_text(self._class_path(quality_class), score.model_dump_json(indent=2))
        return score

    def _evaluate(self, examiner: Examiner, quality_class: str) -> QualityScore:
        if quality_class == self.reference_class:
            self._reference = examiner.make_reference(self._sample.requests, extension=self._extension)
            save_reference(self._reference_path, self._reference)
            return reference_score(quality_class, self._reference, requests=self._requests, notes=self._sample.notes)
        if self._reference is None:
            raise OptimizerError(
                f"quality class {quality_class} came before the reference. Measure the reference first"
            )
        return self._look_until_decided(examiner, quality_class, self._reference)

    def _look_until_decided(self, examiner: Examiner, quality_class: str, reference: Reference) -> QualityScore:
        looks = plan_looks(reference, first=self._num_requests, last=self._num_requests_max, floor=self._floor)
        done, compared = Look(0, 0), Compared(divergences=(), scores=())
        for look in looks:
            compared = compared.and_more(examiner.compare(reference, self._requests, done=done, look=look))
            done, notes = look, self._sample.notes
            score = quality_score(quality_class, reference, compared, requests=self._requests, notes=notes)
            if self._floor is None or decides(look, score.quality, self._floor):
                return score
            if is_futile(look, score.quality, self._floor):
                break
        num_requests = done.num_scored or done.num_forced
        more = f"{num_requests} requests do not decide the floor of {self._floor:g}: more requests are needed"
        return score.model_copy(update={"note": f"{score.note}. {more}"})

    @property
    def _extension(self) -> float:
        return self._num_requests_max / self._num_requests

    @cached_property
    def _sample(self) -> QualitySample:
        return choose_sample(self._workload, self._num_requests_max, seed=self._seed)

    @cached_property
    def _requests(self) -> dict[str, Request]:
        return {request.request_id: request for request in self._sample.requests}

    @property
    def _reference_path(self) -> Path:
        return self._directory / "reference.npz"

    def _class_path(self, quality_class: str) -> Path:
        return self._directory / f"{quality_class.replace('/', '_')}.json"
