"""Reads a JSON array item by item, so that an array of any length takes the memory of one item.

Does not know what the items mean.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from workloads.errors import WorkloadError, line_place
from workloads.importers import source_file
from workloads.importers.repairs import NO_REPAIRS, Repairs
from workloads.importers.source_file import open_source

_CHUNK_BYTES = 1 << 20
_FIX = "Correct the file, or give its format with --format"
_SPACE = " \t\r\n"


def array_items(path: Path, repairs: Repairs = NO_REPAIRS) -> Iterator[tuple[int, Any]]:
    """(number from 1, item) of a file that is one array.

    Raises:
        WorkloadError: not JSON, not UTF-8, an item that is too large, or more after the array's end.
    """
    with open_source(path, repairs) as file:
        text = _Text(path, file)
        number = 1
        text.skip("[", number)
        try:
            while not text.ends_with("]", number):
                if number > 1:
                    text.skip(",", number)
                yield number, text.item(number)
                number += 1
        except _CutError as error:
            repairs.take("array_cut", error)
            return
        text.end(number)


class _CutError(WorkloadError):
    """The text ends within the array."""


class _Text:
    """The text that is not yet taken; more of it is read when an item does not end in it."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._json = json.JSONDecoder()
        self._text, self._at, self._is_end = "", 0, False

    def _is_cut(self, error: Exception) -> bool:
        """Whether what was not understood is the end of the text."""
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.pos >= len(self._text.rstrip(_SPACE)) or error.msg.startswith("Unterminated string")

    def skip(self, mark: str, number: int) -> None:
        if self._next(number) != mark:
            raise self._bad(f"expected {mark!r}", number)
        self._at += 1

    def ends_with(self, mark: str, number: int) -> bool:
        if self._next(number) != mark:
            return False
        self._at += 1
        return True

    def end(self, number: int) -> None:
        """Nothing but space may follow."""
        if self._next(number, may_end=True):
            raise self._bad("more after the array's end", number)

    def item(self, number: int) -> Any:
        self._next(number)
        wanted = _CHUNK_BYTES
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
                # a number may go on in the next chunk: 1 in 12, 0 in 0.5
                is_whole = self._is_end or self._text[end : end + 1] in (",", "]", *_SPACE)
                if is_whole and end - self._at <= source_file.MAX_LINE_BYTES:
                    self._at = end
                    return value
            except (ValueError, RecursionError) as error:
                if self._is_end or isinstance(error, RecursionError):
                    raise self._bad(str(error), number, is_cut=self._is_cut(error)) from None
            if len(self._text) - self._at > source_file.MAX_LINE_BYTES:
                raise self._bad(f"an item of more than {source_file.MAX_LINE_BYTES} bytes, or no JSON", number)
            self._more(wanted, number)
            wanted *= 2  # so that an item is not parsed from its beginning too often

    def _next(self, number: int, *, may_end: bool = False) -> str:
        """The next character that is no space, not taken; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._is_end:
                if may_end:
                    return ""
                raise self._bad("the array does not end", number, is_cut=True)
            self._more(_CHUNK_BYTES, number)

    def _more(self, num_bytes: int, number: int) -> None:
        data = self._file.read(num_bytes)
        self._is_end = not data
        try:
            self._text, self._at = self._text[self._at :] + self._decode(data, final=self._is_end), 0
        except UnicodeDecodeError as error:
            raise self._bad(f"not UTF-8: {error.reason}", number) from None

    def _bad(self, what: str, number: int, *, is_cut: bool = False) -> WorkloadError:
        kind = _CutError if is_cut else WorkloadError
        return kind(f"not JSON: {what}", place=line_place(self._path, number), fix=_FIX)
