"""Logs of OpenAI request/response pairs: JSON Lines of `{ts?, request, response, latency_ms?, ttft_ms?}`.

Does not know how bodies are laid out (`openai_shapes.py`) or turns linked (`conversation_links.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.importers.cells import Cells, iso_time
from workloads.importers.conversation_links import LoggedTurn, parents_by_containment, parents_by_order, roots
from workloads.importers.importer import Imported, source_of
from workloads.importers.json_lines import first_object, json_lines
from workloads.importers.openai_shapes import Message, Reply, body_fields, parse_reply, sent_messages
from workloads.importers.otel_spans import hashed
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.metadata import WorkloadMetadata
from workloads.request import Request, json_text
from workloads.tokenizer import TokenCounter

_SESSION_KEYS = ("session", "session_id", "conversation_id")


@dataclass(frozen=True)
class OpenAIPairsImporter:
    """Sessions come from metadata.session, user, previous_response_id, or from messages that continue others."""

    name: str = "openai-pairs"

    def recognises(self, path: Path) -> bool:
        first = first_object(path)
        return first is not None and isinstance(first.get("request"), dict) and "response" in first

    def read(self, path: Path, *, tokenizer: TokenCounter | None = None, repairs: Repairs = NO_REPAIRS) -> Imported:
        rows = (Cells(path, line, value, repairs) for line, value in json_lines(path, repairs))
        log = _PairLog(_in_order(list(repairs.made(rows, _pair))), tokenizer, path, repairs)
        metadata = WorkloadMetadata(
            name=path.stem,
            source=source_of(path, self.name),
            start_time=log.start_time,
            time_resolution_s=log.time_resolution_s,
            tokenizer=str(tokenizer.folder) if tokenizer else None,
            vocab_size=tokenizer.vocab_size if tokenizer else None,
        )
        return Imported(requests=log.requests(), metadata=metadata, losses=log.losses)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """One line, taken apart."""

    line: int
    request: Mapping[str, Any]
    response: Mapping[str, Any] | None
    reply: Reply
    stamp_s: float | None
    created_s: float | None
    e2el_s: float | None
    ttft_s: float | None
    has_headers: bool


def _pair(cells: Cells) -> _Pair:
    request, response = cells.row.get("request"), cells.row.get("response")
    if not isinstance(request, dict):
        raise cells.misfit("request", 'Give every line {"request": {...}, "response": {...}}')
    if response is not None and not isinstance(response, dict):
        raise cells.misfit("response", "Give the response body as an object, or null")
    created = (response or {}).get("created", (response or {}).get("created_at"))
    latency, first = cells.spare_number("latency_ms"), cells.spare_number("ttft_ms")
    return _Pair(
        line=cells.line,
        request=request,
        response=response,
        reply=parse_reply(response),
        stamp_s=cells.stamp("ts"),
        created_s=float(created) if isinstance(created, int | float) else None,
        e2el_s=None if latency is None else latency / 1000,
        ttft_s=None if first is None else first / 1000,
        has_headers="headers" in cells.row,
    )


def _in_order(pairs: list[_Pair]) -> list[_Pair]:
    """By time where every line has one, else as logged."""
    times = [_time(pair, use_created=not _all_stamped(pairs)) for pair in pairs]
    if any(time is None for time in times):
        return pairs
    return [pairs[i] for i in sorted(range(len(pairs)), key=lambda i: times[i] or 0.0)]


def _all_stamped(pairs: Sequence[_Pair]) -> bool:
    return all(pair.stamp_s is not None for pair in pairs)


def _time(pair: _Pair, *, use_created: bool) -> float | None:
    return pair.created_s if use_created else pair.stamp_s


class _PairLog:
    """All pairs of a log, linked into sessions."""

    def __init__(self, pairs: Sequence[_Pair], tokenizer: TokenCounter | None, path: Path, repairs: Repairs) -> None:
        self._pairs, self._path, self._repairs = pairs, path, repairs
        self._tokenizer = tokenizer
        stamped = _all_stamped(pairs)
        times = [_time(pair, use_created=not stamped) for pair in pairs]
        self._has_clock = bool(pairs) and all(time is not None for time in times)
        self._times = times if self._has_clock else [None] * len(pairs)
        self.time_resolution_s = (None if stamped else 1.0) if self._has_clock else None
        self.losses: list[str] = []
        self._ids = _unique_ids(pairs, self.losses)
        self._messages = self._self_contained()
        self._link()

    @property
    def start_time(self) -> str | None:
        return iso_time(self._times[0] if self._has_clock else None)

    def _self_contained(self) -> list[list[Message] | None]:
        """Each request's messages; those that name a previous response get that conversation put in front."""
        found: list[list[Message] | None] = []
        by_id: dict[str, int] = {}
        self._previous: list[int | None] = []
        for index, pair in enumerate(self._pairs):
            messages = sent_messages(pair.request)
            previous = by_id.get(str(pair.request.get("previous_response_id")))
            self._previous.append(previous)
            if previous is not None and messages is not None:
                reply = self._pairs[previous].reply.message
                messages = [*(found[previous] or ()), *([reply] if reply else ()), *messages]
            found.append(messages)
            if pair.response and isinstance(pair.response.get("id"), str):
                by_id[pair.response["id"]] = index
        return found

    def _link(self) -> None:
        named = [_session(pair.request) for pair in self._pairs]
        users = [hashed(pair.request.get("user")) for pair in self._pairs]
        turns = [self._turn(i, named[i] or users[i]) for i in range(len(self._pairs))]
        linked = parents_by_containment(turns)
        linked = [p if p is not None else c for p, c in zip(self._previous, linked, strict=True)]
        ordered = parents_by_order([self._turn(i, named[i]) for i in range(len(self._pairs))], linked)
        self._parents = ordered
        self._sessions = self._session_names(named, users)
        self._turns = self._turn_numbers()

    def _turn(self, index: int, session: str | None) -> LoggedTurn:
        pair, start = self._pairs[index], self._times[index]
        end = start + pair.e2el_s if start is not None and pair.e2el_s is not None else None
        messages = self._messages[index] or ()
        return LoggedTurn(messages=messages, reply=pair.reply.message, session=session, start_s=start, end_s=end)

    def _session_names(self, named: Sequence[str | None], users: Sequence[str | None]) -> list[str | None]:
        """The name of a chain's first turn holds for all of it; an unnamed chain is called after its first request."""
        first = roots(self._parents)
        in_chains = {root for index, root in enumerate(first) if index != root}
        chain_names = {root: self._ids[root] for root in in_chains}
        return [named[root] or users[root] or chain_names.get(root) for root in first]

    def _turn_numbers(self) -> list[int | None]:
        seen: Counter[str] = Counter()
        numbers: list[int | None] = []
        for session in self._sessions:
            numbers.append(seen[session] if session is not None else None)
            seen.update([session] if session is not None else [])
        return numbers

    def requests(self) -> Iterator[Request]:
        num_uncounted = 0
        for index, pair in enumerate(self._pairs):
            with self._repairs.row(self._path, pair.line):
                request = self._request(index)
                num_uncounted += request.status == "ok" and None in (request.input_tokens, request.output_tokens)
                yield request
        self._state_losses(num_uncounted)

    def _request(self, index: int) -> Request:
        pair, messages = self._pairs[index], self._messages[index]
        usage, parent = pair.reply.usage, self._parents[index]
        prompt = pair.request.get("prompt")
        ids = tuple(prompt) if isinstance(prompt, list) and all(isinstance(i, int) for i in prompt) else None
        return Request(
            request_id=self._ids[index],
            arrival_s=self._arrival(index),
            session_id=self._sessions[index],
            turn=self._turns[index],
            parent_ids=() if parent is None else (self._ids[parent],),
            think_s=self._think(index),
            tenant=hashed(pair.request.get("user")),
            slo_class=(pair.response or {}).get("service_tier") or pair.request.get("service_tier"),
            input_tokens=usage.input_tokens or self._count_input(messages, prompt, pair.request),
            output_tokens=self._output_tokens(pair),
            cached_tokens=usage.cached_tokens,
            messages=json_text(messages) if messages else None,
            prompt=prompt if isinstance(prompt, str) else None,
            prompt_token_ids=ids,
            response=pair.reply.text,
            status="ok" if pair.reply.text is not None else "error",
            finish_reason=pair.reply.finish_reason,
            ttft_s=pair.ttft_s,
            e2el_s=pair.e2el_s,
            extra=_extra(pair),
            **body_fields(pair.request),
        )

    def _arrival(self, index: int) -> float | None:
        time, first = self._times[index], self._times[0]
        return None if time is None or first is None else time - first

    def _think(self, index: int) -> float | None:
        """Start minus the parent's end, when both are known."""
        parent, start = self._parents[index], self._times[index]
        if parent is None or start is None:
            return None
        begun, took = self._times[parent], self._pairs[parent].e2el_s
        return None if begun is None or took is None else max(0.0, start - begun - took)

    def _count_input(self, messages: list[Message] | None, prompt: object, body: Mapping[str, Any]) -> int | None:
        if self._tokenizer is None:
            return None
        if messages:
            return self._tokenizer.count(self._tokenizer.chat_text(messages, body.get("tools"))) or None
        return len(self._tokenizer.ids(prompt, special=True)) or None if isinstance(prompt, str) else None

    def _output_tokens(self, pair: _Pair) -> int | None:
        if pair.reply.usage.output_tokens is not None or self._tokenizer is None or pair.reply.text is None:
            return pair.reply.usage.output_tokens
        return self._tokenizer.count(pair.reply.text)

    def _state_losses(self, num_uncounted: int) -> None:
        if not self._has_clock:
            self.losses.append("not every pair has a time: arrivals are unknown")
        elif self.time_resolution_s:
            self.losses.append("arrivals are the responses' `created`, in whole seconds")
        if num_uncounted:
            self.losses.append(f"{num_uncounted} requests have no usage: import with --tokenizer DIR to count tokens")
        if any(pair.has_headers for pair in self._pairs):
            self.losses.append("HTTP headers were left out: they may hold keys")


def _unique_ids(pairs: Sequence[_Pair], losses: list[str]) -> list[str]:
    ids: list[str] = []
    seen: set[str] = set()
    for pair in pairs:
        given = (pair.response or {}).get("id")
        name = given if isinstance(given, str) and given else f"line-{pair.line}"
        ids.append(name if name not in seen else f"{name}#{pair.line}")
        seen.add(ids[-1])
    num_repeated = sum("#" in name for name in ids)
    if num_repeated:
        losses.append(f"{num_repeated} response ids occur again: the line number was added")
    return ids


def _session(body: Mapping[str, Any]) -> str | None:
    metadata = body.get("metadata")
    if not isinstance(metadata, dict):
        return None
    return next((str(metadata[key]) for key in _SESSION_KEYS if metadata.get(key)), None)


def _extra(pair: _Pair) -> str | None:
    extra: dict[str, Any] = {}
    if pair.reply.usage.reasoning_tokens:
        extra["reasoning_tokens"] = pair.reply.usage.reasoning_tokens
    if pair.reply.num_choices > 1 and pair.response is not None:
        extra["choices"] = pair.response["choices"]
    if pair.response is not None and pair.response.get("error"):
        extra["error"] = pair.response["error"]
    return json_text(extra) if extra else None
