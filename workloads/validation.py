"""The invariants of a recorded workload; a broken one names file, row and column.

Does not know files: it is given a table in our schema.
"""

from __future__ import annotations

import graphlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workloads.checks import parse_check
from workloads.errors import WorkloadError, row_place
from workloads.metadata import PrefixHashing, WorkloadMetadata
from workloads.schema import JSON_COLUMNS, STATUSES

_NOT_NEGATIVE = ("think_s", "ttft_s", "e2el_s", "turn", "output_tokens", "cached_tokens", "max_tokens", "input_tokens")
_TOKEN_IDS = ("prompt_token_ids", "response_token_ids")

Mask = npt.NDArray[np.bool_]


def validate_table(table: pa.Table, metadata: WorkloadMetadata, *, where: str | None) -> None:
    """Check every invariant, cheapest first.

    Raises:
        WorkloadError: the first one that does not hold.
    """
    _Checker(table, where).run(metadata)


def validate_values(table: pa.Table, *, where: str | None, first_row: int) -> None:
    """Check what one row tells by itself: numbers that are possible, words that are known.

    Args:
        first_row: the file's row number of the table's first row.

    Raises:
        WorkloadError: the first one that does not hold.
    """
    _Checker(table, where, first_row).check_values()


def validate_rows(table: pa.Table, metadata: WorkloadMetadata, *, where: str | None, first_row: int) -> None:
    """Check all that one row tells by itself: its values, hashes that fit its length, JSON, checks.

    Args:
        first_row: the file's row number of the table's first row.

    Raises:
        WorkloadError: the first one that does not hold.
    """
    _Checker(table, where, first_row).check_rows(metadata)


def broken_rows(table: pa.Table, metadata: WorkloadMetadata) -> Mask:
    """The rows that `validate_rows` would refuse, bool of shape (rows,).

    Raises:
        WorkloadError: hashes without a block size, which is no row's fault.
    """
    checker = _Checker(table, None)
    checker.broken = np.zeros(len(table), dtype=bool)
    checker.check_rows(metadata)
    return checker.broken


class _Checker:
    """The table under check, the file its errors name, and where in the file the table begins."""

    def __init__(self, table: pa.Table, where: str | None, first_row: int = 0) -> None:
        self.table = table
        self.where = where
        self.first_row = first_row
        self.broken: Mask | None = None  # where rows are collected rather than the first one told

    def run(self, metadata: WorkloadMetadata) -> None:
        self._ids_are_unique()
        self._parents_fit()
        self.check_rows(metadata)

    def check_rows(self, metadata: WorkloadMetadata) -> None:
        self.check_values()
        self._prefix_hashes_fit(metadata.prefix)
        self._json_parses()
        self._checks_parse()

    def check_values(self) -> None:
        self._numbers_are_possible()
        self._words_are_known()

    def fail(self, row: int, column: str, what: str, fix: str) -> WorkloadError:
        return WorkloadError(what, place=row_place(self.where, self.first_row + row, column), fix=fix)

    def _reject(self, bad: Mask, column: str, what: str, fix: str, *, told: bool = True) -> None:
        if self.broken is not None:
            self.broken |= bad
        elif bad.any():
            row = int(np.argmax(bad))
            value = f": {self.table.column(column)[row].as_py()!r:.60}" if told else ""
            raise self.fail(row, column, f"{what}{value}", fix)

    def _numbers(self, column: str) -> npt.NDArray[np.float64]:
        """float64 with 0 for null."""
        values = self.table.column(column).cast(pa.float64()).fill_null(0.0).to_numpy()
        return np.asarray(values, dtype=np.float64)

    def _ids_are_unique(self) -> None:
        ids = self.table.column("request_id")
        self._reject(_mask(ids.is_null()), "request_id", "a request has no id", "Give every request a unique id")
        codes = ids.combine_chunks().dictionary_encode()
        if isinstance(codes, pa.ChunkedArray):
            codes = codes.combine_chunks()
        if len(codes.dictionary) == len(ids):
            return
        repeated = np.ones(len(ids), dtype=bool)
        repeated[np.unique(codes.indices.to_numpy(), return_index=True)[1]] = False
        self._reject(repeated, "request_id", "a request id occurs twice", "Make the request ids unique")

    def _numbers_are_possible(self) -> None:
        arrivals = self._numbers("arrival_s")
        bad = ~np.isfinite(arrivals) | (arrivals < 0)
        self._reject(bad, "arrival_s", "an arrival is not a time >= 0", "Arrivals are seconds since the first request")
        for name in _NOT_NEGATIVE:
            if self.table.column(name).null_count < len(self.table):
                values = self._numbers(name)
                bad = ~np.isfinite(values) | (values < 0)
                self._reject(bad, name, f"{name} is not a number >= 0", "Correct it, or leave it null when unknown")
        self._inputs_are_positive()

    def _inputs_are_positive(self) -> None:
        given = _mask(self.table.column("input_tokens").is_valid())
        failed = _mask(pc.not_equal(self.table.column("status").cast(pa.string()), "ok").fill_null(False))
        bad = given & ~failed & (self._numbers("input_tokens") <= 0)
        fix = "Leave it null when unknown, or set status to error"
        self._reject(bad, "input_tokens", "a request that succeeded has no input tokens", fix)

    def _words_are_known(self) -> None:
        status = self.table.column("status").cast(pa.string())
        bad = _mask(pc.invert(pc.is_in(status, pa.array([*STATUSES, None], pa.string()))))
        self._reject(bad, "status", "unknown status", f"Use one of {', '.join(STATUSES)}")
        for name in _TOKEN_IDS:
            lists = self.table.column(name)
            if lists.null_count < len(lists):
                ids = pc.list_flatten(lists)
                bad_ids = _mask(pc.less(ids, 0).fill_null(True))
                self._reject(
                    self._rows_of(lists, bad_ids), name, "a token id is negative or null", "Token ids are >= 0"
                )

    def _rows_of(self, lists: pa.ChunkedArray, elements: Mask) -> Mask:
        rows = np.asarray(pc.list_parent_indices(lists.combine_chunks()).to_numpy(zero_copy_only=False))
        mask = np.zeros(len(self.table), dtype=bool)
        mask[rows[elements]] = True
        return mask

    def _parents_fit(self) -> None:
        lists = self.table.column("parent_ids")
        if lists.null_count == len(lists):
            return
        children = np.asarray(pc.list_parent_indices(lists.combine_chunks()).to_numpy(zero_copy_only=False))
        found = pc.index_in(pc.list_flatten(lists), value_set=self.table.column("request_id").combine_chunks())
        parents = np.asarray(found.fill_null(-1).to_numpy(), dtype=np.int64)
        self._reject(
            self._rows_of(lists, parents < 0), "parent_ids", "a parent is not in the workload", "Keep sessions whole"
        )
        sessions = self.table.column("session_id")
        same = pc.equal(sessions.take(pa.array(children)), sessions.take(pa.array(parents))).fill_null(False)
        fix = "Give a request and its parents one session_id"
        self._reject(self._rows_of(lists, ~_mask(same)), "parent_ids", "a parent is in another session", fix)
        if not bool((parents < children).all()):  # in row order every parent comes first: no cycle possible
            self._parents_are_acyclic(children, parents)

    def _parents_are_acyclic(self, children: npt.NDArray[Any], parents: npt.NDArray[Any]) -> None:
        graph: dict[int, list[int]] = {}
        for child, parent in zip(children.tolist(), parents.tolist(), strict=True):
            graph.setdefault(child, []).append(parent)
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            row = int(error.args[1][0])
            name = self.table.column("request_id")[row].as_py()
            what = f"request {name!r} waits for itself through its parents"
            raise self.fail(row, "parent_ids", what, "Remove the cycle") from None

    def _prefix_hashes_fit(self, prefix: PrefixHashing | None) -> None:
        column = self.table.column("prefix_hashes")
        given = _mask(column.is_valid())
        if not given.any():
            return
        if prefix is None:
            fix = "Set metadata.prefix to the block size the hashes were made with"
            raise self.fail(int(np.argmax(given)), "prefix_hashes", "prefix hashes without a block size", fix)
        counts = np.asarray(pc.list_value_length(column).fill_null(0).to_numpy(), dtype=np.int64)
        tokens = self._numbers("input_tokens").astype(np.int64)
        full, blocks = tokens // prefix.block_size, -(-tokens // prefix.block_size)
        least = blocks if prefix.tail_hashed else full
        most = full if prefix.tail_hashed is False else blocks
        known = given & _mask(self.table.column("input_tokens").is_valid())
        bad = known & ((counts < least) | (counts > most))
        if self.broken is not None:
            self.broken |= bad
        elif bad.any():
            row = int(np.argmax(bad))
            what = f"{counts[row]} prefix hashes do not fit {tokens[row]} input tokens in blocks of {prefix.block_size}"
            raise self.fail(row, "prefix_hashes", what, "Check metadata.prefix.block_size and tail_hashed")

    def _json_parses(self) -> None:
        for name in JSON_COLUMNS:
            column = self.table.column(name)
            if column.null_count == len(column):
                continue
            for text in column.unique().to_pylist():  # in order of their first rows
                if text is not None and (wrong := _wrong_json(name, text)) is not None:
                    found = _mask(pc.equal(column, pa.scalar(text, column.type)).fill_null(False))
                    self._reject(found, name, *wrong, told=False)

    def _checks_parse(self) -> None:
        column = self.table.column("checks")
        seen: set[tuple[str, str]] = set()
        for row, checks in enumerate(column if column.null_count < len(column) else ()):
            for check in checks.as_py() or ():
                self._one_check(row, check, seen)

    def _one_check(self, row: int, check: dict[str, Any], seen: set[tuple[str, str]]) -> None:
        kind, spec, weight = check["kind"], check["spec"], check["weight"]
        if kind is None or spec is None or weight is None or not (np.isfinite(weight) and weight > 0):
            fix = "Give every check a kind, a spec and a weight > 0"
            raise self.fail(row, "checks", f"a check is incomplete: {check!r:.80}", fix)
        if (kind, spec) in seen:
            return
        seen.add((kind, spec))
        try:
            parse_check(kind, spec)
        except WorkloadError as error:
            raise self.fail(row, "checks", error.what, error.fix) from None


def _wrong_json(name: str, text: str) -> tuple[str, str] | None:
    """What is wrong with a cell of a JSON column, and what to do; None: nothing."""
    try:
        value = json.loads(text)
    except ValueError as error:
        return f"not JSON: {error}", "Store JSON text in this column"
    if name == "messages" and not _is_messages(value):
        fix = 'Store OpenAI-form messages: [{"role": "user", "content": "..."}]'
        return "messages are not a list of objects with a role", fix
    if name in ("extra_body", "response_format", "extra") and not isinstance(value, dict):
        return f"{name} is not a JSON object", "Store a JSON object in this column"
    return None


def _is_messages(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(m, dict) and "role" in m for m in value)


def _mask(array: pa.ChunkedArray | pa.Array) -> Mask:
    values = array.to_numpy() if isinstance(array, pa.ChunkedArray) else array.to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=bool)
