"""What a table of requests holds and which replays it can drive.

Does not know how a replay is done.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from workloads.metadata import Capability, Content


def derive_content(table: pa.Table) -> Content:
    """The richest form of prompt that any row has."""
    if _any(table, "messages") or _any(table, "prompt"):
        return "text"
    if _any(table, "prompt_token_ids"):
        return "token_ids"
    return "hashes" if _any(table, "prefix_hashes") else "lengths"


def derive_capabilities(table: pa.Table) -> tuple[Capability, ...]:
    """The replays that the columns support (formats.md, replay contracts a, b, c and d)."""
    if not len(table):
        return ()
    sendable = is_sendable(table)
    found: list[Capability] = []
    if sendable and _all(table, "arrival_s"):
        found.append("open_loop")
    if sendable and _num_parents(table):
        found.append("closed_loop")
    if _every_row(table, "prefix_hashes", *_PROMPTS):
        found.append("prefix")
    if any(_any(table, name) for name in ("response", "response_token_ids", "checks")):
        found.append("quality")
    return tuple(found)


def is_sendable(table: pa.Table) -> bool:
    """Whether every row has a prompt, or the length of one, and an output length."""
    return _all(table, "output_tokens") and _every_row(table, "input_tokens", *_PROMPTS)


_PROMPTS = ("messages", "prompt", "prompt_token_ids")


def _any(table: pa.Table, name: str) -> bool:
    return bool(table.column(name).null_count < len(table))


def _all(table: pa.Table, name: str) -> bool:
    return bool(table.column(name).null_count == 0)


def _every_row(table: pa.Table, *names: str) -> bool:
    """Whether every row has at least one of the columns."""
    given = [table.column(name).is_valid() for name in names]
    either = given[0]
    for other in given[1:]:
        either = pc.or_(either, other)
    return bool(pc.all(either).as_py())


def _num_parents(table: pa.Table) -> int:
    return int(pc.sum(pc.list_value_length(table.column("parent_ids"))).as_py() or 0)
