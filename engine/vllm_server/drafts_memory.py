"""What a vLLM's drafter remembers of earlier answers, and the call that makes it forget.

Suffix decoding drafts from what was answered before, and vLLM (0.32.0) has no call of its own that empties that memory:
`inside_vllm/fopt_forget_drafts.py` gives its workers one. Does not know who started the server.
"""

from __future__ import annotations

import json
from enum import Enum, auto
from pathlib import Path

from engine.http_calls import CALL_ERRORS, HttpCalls, reason_of

INSIDE = Path(__file__).with_name("inside_vllm")
FORGETS = "fopt_forget_drafts.ForgetDrafts"
_CALL = json.dumps({"method": "fopt_forget_drafts", "timeout": 30}).encode()
_TIMEOUT_S = 30.0
STAYS = (
    "suffix decoding drafts from answers that it gave before, and here nothing empties that memory between replays: "
    "traffic that is sent twice is drafted from its own answers, which flatters it"
)


class DraftsMemory(Enum):
    """No such memory, one that we can empty, one that we cannot."""

    NONE = auto()
    CAN_BE_EMPTIED = auto()
    STAYS = auto()


def forget_drafts(calls: HttpCalls) -> str | None:
    """Have a server whose memory can be emptied forget; why it did not, or None. No request may be running."""
    try:
        told = json.loads(calls.call("POST", "/collective_rpc", timeout_s=_TIMEOUT_S, body=_CALL))["results"]
    except (*CALL_ERRORS, ValueError, LookupError, TypeError) as error:
        told = [reason_of(error)]
    return None if "forgotten" in told else "; ".join(map(str, told))


def told_memory(calls: HttpCalls) -> DraftsMemory | None:
    """By a running vLLM's own config, which it shows with VLLM_SERVER_DEV_MODE=1; None where it does not say."""
    try:
        answer = calls.try_call("GET", "/server_info?config_format=json", timeout_s=_TIMEOUT_S)
        config = json.loads(answer or b"null")["vllm_config"]
        method = (config["speculative_config"] or {}).get("method")
        extension = config["parallel_config"]["worker_extension_cls"]
    except (*CALL_ERRORS, ValueError, LookupError, TypeError, AttributeError):
        return None
    if method != "suffix":
        return DraftsMemory.NONE
    return DraftsMemory.CAN_BE_EMPTIED if extension == FORGETS else DraftsMemory.STAYS
