"""`DecodeInstance`: a server whose prompts arrive computed.

As in vLLM, it computes a prompt's last token once more and draws the answer's first token from that, so that the client
gets its first token at the end of the first step here: after prefill, transfer and the wait for room. Engines that hand
over the token that the prefill instance drew (SGLang, TensorRT-LLM) are a decode step sooner.
What this instance preempts it computes anew, prompt and answer, but for what its own prefix cache still holds.
"""

from __future__ import annotations

from engine.simulator.oracle import StepTimeOracle
from engine.simulator.server import SimulatedServer
from engine.simulator.settings import SchedulerSettings
from engine.simulator.traffic import Traffic


class DecodeInstance(SimulatedServer):
    """Requests are submitted when their KV has arrived; blocks are taken at admission.

    KV that waits for admission is not counted: it lies in the host's memory. (vLLM keeps it in the prefill instance.)
    """

    def __init__(self, traffic: Traffic, settings: SchedulerSettings, oracle: StepTimeOracle) -> None:
        super().__init__(traffic, settings, oracle, interruptible=True)
        self._received = [tokens - 1 for tokens in self._inputs]
        self._model_step_s = oracle.step_s
        self._step_s = self._step_with_received
        self._num_received, self._received_context = 0, 0  # in the step that begins

    def _admit(self, budget: int, ready: list[int]) -> tuple[int, int] | None:
        request = self._waiting.first(self._tick)
        is_received = self._received[request] > 0
        admitted = super()._admit(budget, ready)
        if admitted is not None and is_received and admitted[1] == 1:
            self._num_received += 1
            self._received_context += admitted[0]
        return admitted

    def _preempt(self, request: int) -> None:
        self._received[request] = 0
        super()._preempt(request)

    def _step_with_received(
        self,
        prefill_seqs: int,
        prefill_tokens: int,
        prefill_context: int,
        decode_seqs: int,
        decode_context: float,
        draft_tokens: float,
    ) -> float:
        """A received prompt has one token to compute: to the device it is a decoding sequence."""
        num, context = self._num_received, self._received_context
        self._num_received = self._received_context = 0
        return self._model_step_s(
            prefill_seqs - num,
            prefill_tokens - num,
            prefill_context - context,
            decode_seqs + num,
            decode_context + context,
            draft_tokens,
        )
