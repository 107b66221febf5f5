"""Requests that a scheduler could never serve, however long they wait.

Does not know what else is running.
"""

from __future__ import annotations

from engine.simulator.errors import SimulatorError
from engine.simulator.settings import SchedulerSettings
from engine.simulator.traffic import Traffic


def refuse_what_never_fits(traffic: Traffic, settings: SchedulerSettings) -> None:
    """Raises SimulatorError: a request that no empty cache could hold, or no step where chunked prefill is off."""
    if not len(traffic):
        return
    longest = int((traffic.input_tokens + traffic.output_tokens).max())
    if longest + settings.block_size + settings.num_draft_tokens > settings.capacity_tokens:
        raise SimulatorError(
            f"a request of {longest} tokens does not fit the KV cache of {settings.capacity_tokens} tokens. Give the "
            "cache more memory, or drop the request"
        )
    prompt = int(traffic.input_tokens.max())
    if not settings.enable_chunked_prefill and prompt > settings.max_num_batched_tokens:
        raise SimulatorError(
            f"a prompt of {prompt} tokens does not fit max_num_batched_tokens {settings.max_num_batched_tokens} while "
            "chunked prefill is off. Raise it or switch chunked prefill on"
        )
