"""What a server understands beyond plain OpenAI: token ids in the stream, pinned lengths; and what it serves.

Does not know workloads beyond one request to try.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final, NamedTuple

from workloads.prompts import PromptBuilder
from workloads.replay.client import Flight, StreamingClient
from workloads.request import Request

_REFUSED: Final = (400, 422)
PROBE_TIMEOUT_S: Final = 60.0


class ServedModels(NamedTuple):
    """What /v1/models says; `max_model_len` is None where the server does not tell."""

    names: tuple[str, ...]
    max_model_len: int | None


async def served_models(client: StreamingClient, model: str) -> ServedModels:
    """Names the server answers to, and the context length of `model`."""
    body = await client.get_json("/v1/models")
    cards = body.get("data", []) if isinstance(body, dict) else []
    cards = [card for card in cards if isinstance(card, dict)]
    names = tuple(str(card.get("id")) for card in cards)
    lengths = {str(card.get("id")): card.get("max_model_len") for card in cards}
    length = lengths.get(model)
    return ServedModels(names, length if isinstance(length, int) else None)


async def learn_dialect(
    client: StreamingClient, builder: PromptBuilder, like: Request, *, timeout_s: float = PROBE_TIMEOUT_S
) -> list[str]:
    """Ask for one token, in the form of a recorded request, and switch off in `builder` what the server refuses.

    Returns:
        What is lost by it, in words.
    """
    probe = _probe(like)
    for return_token_ids, can_pin in ((True, True), (False, True), (True, False), (False, False)):
        trial = replace(builder, return_token_ids=return_token_ids, can_pin=can_pin, changes=builder.changes.copy())
        flight = Flight(-1, time.monotonic(), keep_text=False)
        await client.send(flight, trial.build(probe), timeout_s=timeout_s)
        if flight.http_status not in _REFUSED:
            builder.return_token_ids, builder.can_pin = return_token_ids, can_pin
            return [] if return_token_ids and can_pin else _losses(return_token_ids, can_pin)
    return []


def _probe(like: Request) -> Request:
    """A prompt too short to fill a block of anyone's prefix cache, sent the way the workload's prompts are."""
    if like.messages is not None:
        return Request(request_id="probe", messages='[{"role":"user","content":"Hi"}]', output_tokens=1, max_tokens=1)
    if like.prompt is not None:
        return Request(request_id="probe", prompt="Hi", output_tokens=1, max_tokens=1)
    ids = like.prompt_token_ids[:1] if like.prompt_token_ids is not None else None
    return Request(request_id="probe", prompt_token_ids=ids, input_tokens=1, output_tokens=1, max_tokens=1)


def _losses(return_token_ids: bool, can_pin: bool) -> list[str]:
    losses = []
    if not return_token_ids:
        losses.append("the server refuses return_token_ids: tokens are counted from chunks and usage")
    if not can_pin:
        losses.append("the server refuses min_tokens and ignore_eos: output lengths are bounded but not pinned")
    return losses
