"""`Examiner`: puts the quality questions to one server, as the reference or as a candidate beside it.

Does not know what the answers are worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from engine.backend import EngineError, FailureKind, Server
from optimizer.client import Report
from optimizer.errors import OptimizerError
from optimizer.quality.client import Answer, OnDone, RequestRefusedError, ask_all, score_all
from optimizer.quality.divergence import ResponseDivergence, TopLogprobs, compare
from optimizer.quality.looks import Look, num_forced
from optimizer.quality.queries import PromptWriter
from optimizer.quality.reference import Reference, ReferenceAnswer
from optimizer.quality.score import Compared
from optimizer.quality.tasks import score_answer
from workloads.request import Request


class _Answered(NamedTuple):
    request: Request
    answer: Answer


class Examiner:
    """One server under examination; progress goes to `report`."""

    def __init__(self, server: Server, prompts: PromptWriter, *, hang_s: float, report: Report) -> None:
        self._server, self._prompts, self._hang_s, self._report = server, prompts, hang_s, report

    def make_reference(self, requests: Sequence[Request], *, extension: float) -> Reference:
        """The server's own answers to all requests, the first ones with its distributions.

        Args:
            extension: how many times the forced tokens of a first look may be needed where no checks decide.

        Raises:
            OptimizerError: it answers none of them.
            EngineError: the engine died or hung.
        """
        replies = self._ask(requests, "quality reference")
        answered = [
            _Answered(request, reply)
            for request, reply in zip(requests, replies, strict=True)
            if isinstance(reply, Answer)
        ]
        if not answered:
            raise OptimizerError(f"the reference engine answers no quality request: {_first_refusal(replies)}")
        scores = [score_answer(request, answer.text) for request, answer in answered]
        scale = 1.0 if any(scores) else extension
        lengths = [(len(answer.prompt_ids), len(answer.response_ids)) for _, answer in answered]
        forced = [answer for _, answer in answered[: num_forced(lengths, scale=scale)]]
        tops = self._distributions(forced) if all(answer.prompt_ids for answer in forced) else []
        padded = [*tops, *[None] * (len(answered) - len(tops))]
        answers = [
            ReferenceAnswer(
                request_id=request.request_id,
                prompt_ids=answer.prompt_ids,
                response_ids=answer.response_ids,
                adapter=answer.adapter,
                score=score,
                top=top,
            )
            for (request, answer), score, top in zip(answered, scores, padded, strict=True)
        ]
        return Reference(answers=tuple(answers), num_refused=len(requests) - len(answered))

    def _distributions(self, forced: Sequence[Answer]) -> list[TopLogprobs]:
        """None where the server does not score prompts: its checks are compared then, and no tokens."""
        try:
            return score_all(
                self._server, forced, hang_s=self._hang_s, on_done=self._progress("quality reference", forced)
            )
        except EngineError as error:
            if error.kind is not FailureKind.UNSUPPORTED:
                raise
            return []

    def compare(self, reference: Reference, requests: Mapping[str, Request], *, done: Look, look: Look) -> Compared:
        """What `look` adds to `done`.

        Raises:
            EngineError: the engine died, hung, or refused what the reference answered.
        """
        forced = [answer for answer in reference.answers if answer.top is not None][done.num_forced : look.num_forced]
        scored = [answer for answer in reference.answers if answer.score is not None][done.num_scored : look.num_scored]
        return Compared(
            divergences=self._divergences(forced), scores=self._scores([requests[a.request_id] for a in scored])
        )

    def _divergences(self, forced: Sequence[ReferenceAnswer]) -> tuple[ResponseDivergence, ...]:
        fed = [Answer(prompt_ids=a.prompt_ids, response_ids=a.response_ids, text="", adapter=a.adapter) for a in forced]
        tops = score_all(self._server, fed, hang_s=self._hang_s, on_done=self._progress("quality divergence", fed))
        return tuple(compare(a.top, top) for a, top in zip(forced, tops, strict=True) if a.top is not None)

    def _scores(self, requests: Sequence[Request]) -> tuple[float, ...]:
        replies = self._ask(requests, "quality checks")
        if any(isinstance(reply, RequestRefusedError) for reply in replies):
            what = f"the engine refuses a request that the reference answered: {_first_refusal(replies)}"
            raise EngineError(what, kind=FailureKind.UNSUPPORTED, log_path=self._server.log_path)
        pairs = zip(requests, replies, strict=True)
        return tuple(score_answer(request, reply.text) or 0.0 for request, reply in pairs if isinstance(reply, Answer))

    def _ask(self, requests: Sequence[Request], phase: str) -> list[Answer | RequestRefusedError]:
        queries = [self._prompts.query(request) for request in requests]
        return ask_all(self._server, queries, hang_s=self._hang_s, on_done=self._progress(phase, queries))

    def _progress(self, phase: str, questions: Sequence[object]) -> OnDone:
        return lambda num_done: self._report(f"{phase} {num_done}/{len(questions)}")


def _first_refusal(replies: Sequence[Answer | RequestRefusedError]) -> str:
    return next((str(reply) for reply in replies if isinstance(reply, RequestRefusedError)), "there are none")
