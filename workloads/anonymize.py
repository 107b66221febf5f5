"""`fopt anonymize`'s work: a workload without its contents that drives timing replays with its prefix sharing.

Text and token ids become counts and chained block hashes under a secret salt; names become salted hashes. Does not make
requests unlinkable: who knows when a request was sent, or how long it was, can still find it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa

from workloads.columns import requests_from_table, table_from_requests
from workloads.errors import WorkloadError
from workloads.metadata import Adapter, PrefixHashing, Source, WorkloadMetadata
from workloads.parquet import WorkloadFile
from workloads.prefix_sharing import BLOCK_TOKENS, PrefixMeter
from workloads.request import Request
from workloads.tokenizer import TokenCounter, text_of
from workloads.workload import Workload

LEAST_SALT_BYTES = 16

CONTENTS = (
    *("prompt", "messages", "tools", "prompt_token_ids", "response", "response_token_ids", "stop"),
    *("response_format", "extra_body", "checks", "seed", "extra"),
)
NAMES = ("request_id", "session_id", "parent_ids", "model", "adapter", "tenant", "slo_class")


@dataclass(frozen=True, kw_only=True)
class Anonymized:
    """The result; `gone` counts the requests that lost each column; hit ratios are ideal, None without content."""

    workload: Workload
    gone: dict[str, int]
    prefix_hit_ratio_before: float | None
    prefix_hit_ratio: float | None
    notes: tuple[str, ...]


def anonymize_file(
    file: WorkloadFile,
    salt: bytes,
    *,
    tokenizer: TokenCounter | None = None,
    saw: Callable[[int], None] = lambda _: None,
) -> Anonymized:
    """Read by row groups, and keep counts, times and hashes.

    Args:
        salt: the secret; who has it can test guesses of what the prompts were. Two workloads under one salt share their
            prefixes.
        tokenizer: cuts text into blocks of tokens; without it they are pieces of text of about that many tokens.
        saw: told the number of rows each time some are done.

    Raises:
        WorkloadError: a salt too short to be secret, text without token counts and tokenizer, a damaged file.
    """
    if len(salt) < LEAST_SALT_BYTES:
        raise WorkloadError(f"the salt has {len(salt)} bytes", fix=f"Give {LEAST_SALT_BYTES} random bytes or more")
    masker = _Masker(file.metadata, salt, tokenizer, _characters_a_token(file) if tokenizer is None else None)
    before, after = PrefixMeter(file.metadata.prefix, tokenizer), PrefixMeter(masker.hashing)
    gone: Counter[str] = Counter()
    tables = [table_from_requests(())]
    for table in file.tables():
        gone.update({name: len(table) - table.column(name).null_count for name in CONTENTS})
        masked = table_from_requests([masker.mask(request) for request in requests_from_table(table)])
        before.feed(table)
        after.feed(masked)
        tables.append(masked)
        saw(len(table))
    gone += Counter()  # without zeros
    metadata = masker.metadata(_told(gone))
    workload = _able(Workload(pa.concat_tables(tables).unify_dictionaries(), metadata), file.metadata)
    return Anonymized(
        workload=workload,
        gone=dict(gone),
        prefix_hit_ratio_before=_ratio(before),
        prefix_hit_ratio=_ratio(after),
        notes=tuple(masker.notes()),
    )


def _ratio(meter: PrefixMeter) -> float | None:
    found = meter.result()
    return None if found is None else found.ideal_hit_ratio


def _told(gone: Counter[str]) -> tuple[str, ...]:
    columns = ", ".join(f"{name} of {count}" for name, count in gone.items()) or "none"
    return (f"anonymized: names and start time replaced or removed; contents removed: {columns}",)


def _able(workload: Workload, before: WorkloadMetadata) -> Workload:
    """It can drive no more than before, but prefixes where they were only in text."""
    able = (*(before.capabilities or ()), *(("prefix",) if workload.metadata.prefix else ()))
    kept = tuple(capability for capability in workload.capabilities if capability in able)
    return Workload(workload.table, workload.metadata.model_copy(update={"capabilities": kept}))


class _Totals(NamedTuple):
    characters: int
    tokens: int


def _characters_a_token(file: WorkloadFile) -> float | None:
    """Of all the text together; None when there is none."""
    totals = [
        _totals(table) for table in file.tables(("input_tokens", "prompt", "messages", "tools", "prompt_token_ids"))
    ]
    tokens = sum(total.tokens for total in totals)
    return sum(total.characters for total in totals) / tokens if tokens else None


def _totals(table: pa.Table) -> _Totals:
    if all(table.column(name).null_count == len(table) for name in ("prompt", "messages")):
        return _Totals(0, 0)
    lengths = [(len(text), r.input_tokens or 0) for r in requests_from_table(table) if (text := _text(r)) is not None]
    return _Totals(sum(characters for characters, _ in lengths), sum(tokens for _, tokens in lengths))


def _text(request: Request) -> str | None:
    """What the prompt says, tools first as templates have them; None for a prompt that is not text."""
    if request.prompt_token_ids is not None:
        return None
    if request.messages is None:
        return request.prompt
    said = "".join(f"{m.get('role')}: {text_of(m)}{m.get('tool_calls') or ''}\n" for m in request.chat_messages())
    return (request.tools or "") + said


class _Masker:
    """Masks the requests of one workload under one salt."""

    def __init__(
        self, metadata: WorkloadMetadata, salt: bytes, tokenizer: TokenCounter | None, characters: float | None
    ) -> None:
        self._metadata, self._tokenizer = metadata, tokenizer
        self._key = hashlib.sha512(salt).digest()
        self.hashing = metadata.prefix or PrefixHashing(block_size=BLOCK_TOKENS, scope="global", tail_hashed=False)
        self._piece = max(1, round((characters or 4.0) * self.hashing.block_size))
        self._num_hashed = self._num_by_pieces = self._num_fitted = 0

    def mask(self, request: Request) -> Request:
        blocks = self._blocks(request)
        self._num_hashed += blocks is not None
        inputs = request.input_tokens if request.input_tokens is not None else self._num_tokens(request)
        empty: dict[str, Any] = dict.fromkeys(CONTENTS) | {"checks": ()}
        return replace(
            request,
            **empty,
            request_id=self._name("request", request.request_id),
            session_id=self._optional("session", request.session_id),
            parent_ids=tuple(self._name("request", parent) for parent in request.parent_ids),
            model=self._optional("model", request.model),
            adapter=self._optional("adapter", request.adapter),
            tenant=self._optional("tenant", request.tenant),
            slo_class=self._optional("class", request.slo_class),
            input_tokens=inputs,
            output_tokens=self._outputs(request),
            prefix_hashes=self._chained(request, blocks, inputs) if blocks is not None else None,
        )

    def _num_tokens(self, request: Request) -> int | None:
        """Of a prompt whose count was not recorded."""
        if (ids := self._ids(request)) is not None:
            return len(ids) or None
        if _text(request) is None:
            return None
        fix = "Give --tokenizer, the folder of the model's tokenizer"
        raise WorkloadError(f"request {request.request_id!r} has text but no input_tokens", fix=fix)

    def _outputs(self, request: Request) -> int | None:
        if request.output_tokens is not None:
            return request.output_tokens
        if request.response_token_ids is not None:
            return len(request.response_token_ids)
        counts = self._tokenizer is not None and request.response is not None
        return self._tokenizer.count(request.response or "") if counts and self._tokenizer is not None else None

    def _ids(self, request: Request) -> Sequence[int] | None:
        if request.prompt_token_ids is not None or self._tokenizer is None:
            return request.prompt_token_ids
        if request.messages is not None:
            tools = None if request.tools is None else list(json.loads(request.tools))
            return self._tokenizer.ids(self._tokenizer.chat_text(request.chat_messages(), tools))
        return None if request.prompt is None else self._tokenizer.ids(request.prompt, special=True)

    def _blocks(self, request: Request) -> list[bytes] | None:
        """What is hashed, a block each; None for lengths alone."""
        if request.prefix_hashes is not None:
            return [str(value).encode() for value in request.prefix_hashes]
        size = self.hashing.block_size
        if (ids := self._ids(request)) is not None:
            return [str(tuple(ids[i : i + size])).encode() for i in range(0, len(ids) - size + 1, size)]
        if (text := _text(request)) is None:
            return None
        self._num_by_pieces += 1
        whole = range(0, len(text) - self._piece + 1, self._piece)
        return [text[i : i + self._piece].encode("utf-8", "surrogatepass") for i in whole]

    def _chained(self, request: Request, blocks: list[bytes], num_tokens: int | None) -> tuple[int, ...]:
        """A hash a block, each over all before it; as many as the tokens have blocks."""
        scope = request.session_id or "" if self.hashing.scope == "session" else ""
        if request.prefix_hashes is None and num_tokens is not None:
            blocks = self._fitted(request, blocks, num_tokens)
        found, last = [], self._digest("scope", scope.encode())
        for block in blocks:
            last = self._digest("block", last + block)
            found.append(int.from_bytes(last[:8], "little", signed=True))
        return tuple(found)

    def _fitted(self, request: Request, blocks: list[bytes], num_tokens: int) -> list[bytes]:
        """Blocks that the recorded length has not are cut; those it has and the text has not are the request's own."""
        size = self.hashing.block_size
        wanted = -(-num_tokens // size) if self.hashing.tail_hashed else num_tokens // size
        self._num_fitted += len(blocks) != wanted
        own = [f"own {request.request_id} {i}".encode() for i in range(len(blocks), wanted)]
        return [*blocks[:wanted], *own]

    def _optional(self, kind: str, name: str | None) -> str | None:
        return None if name is None else self._name(kind, name)

    def _name(self, kind: str, name: str) -> str:
        return f"{kind}-{self._digest(kind, name.encode('utf-8', 'surrogatepass')).hex()[:20]}"

    def _digest(self, kind: str, value: bytes) -> bytes:
        return hashlib.blake2b(value, digest_size=16, key=self._key, person=kind.encode()).digest()

    def metadata(self, losses: tuple[str, ...]) -> WorkloadMetadata:
        """The file's metadata without names, places and the date."""
        old = self._metadata
        adapters = tuple(Adapter(name=self._name("adapter", a.name), rank=a.rank) for a in old.adapters)
        return WorkloadMetadata(
            name="anonymized",
            source=Source(format=old.source.format, license=old.source.license, citation=old.source.citation),
            time_resolution_s=old.time_resolution_s,
            vocab_size=old.vocab_size or (self._tokenizer.vocab_size if self._tokenizer else None),
            prefix=self.hashing if self._num_hashed else old.prefix,
            adapters=adapters,
            slo_classes={self._name("class", name): slo for name, slo in old.slo_classes.items()},
            losses=losses,
            synthetic_parts=old.synthetic_parts,
            converter=old.converter,
        )

    def notes(self) -> Iterator[str]:
        """How near the hashes are, in words."""
        if self._num_by_pieces:
            yield (
                f"prefixes of {self._num_by_pieces} requests are by pieces of {self._piece} characters, about "
                f"{self.hashing.block_size} tokens: give --tokenizer to have them exact"
            )
        if self._num_fitted:
            yield f"{self._num_fitted} prompts have another number of blocks than their recorded input_tokens: fitted"
