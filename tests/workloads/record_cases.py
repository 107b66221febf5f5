"""Request records made by hand for the metric tests."""

from typing import Any

from workloads.records import RequestRecord


def record(request_id: str, start: float, *tokens: float, **changes: Any) -> RequestRecord:
    """An ok record intended and sent at `start` whose output tokens came at the given times."""
    fields: dict[str, Any] = {
        "intended_start_s": start,
        "sent_s": start,
        "first_token_s": tokens[0] if tokens else None,
        "token_times_s": tokens,
        "end_s": tokens[-1] if tokens else start,
        "input_tokens": 10,
        "output_tokens": len(tokens),
        "status": "ok",
    }
    return RequestRecord(request_id=request_id, **(fields | changes))
