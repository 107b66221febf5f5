"""Opens what people give us: plain or gzip files, by lines or whole, in bounded memory; names what is no text or table.

Does not know formats.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from workloads.errors import WorkloadError, line_place
from workloads.importers.repairs import NO_REPAIRS, Repairs

MAX_LINE_BYTES = 64 << 20  # of a line, or of one object in an array: bounds memory
MAX_DOCUMENT_BYTES = 256 << 20  # of one JSON object that is the whole file

_PARQUET, _GZIP = b"PAR1", b"\x1f\x8b"
_WIDE = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_UNMARKED = ("UTF-16-BE", "UTF-16-LE")  # by which half of each pair of bytes is zero
_HEAD_BYTES = 4096
_LOOKED_AT_BYTES = 1 << 20  # to guess the number of lines
_SKIPPED_BYTES = 1 << 20  # of a line that is too long, at a time


def check_source(path: Path, repairs: Repairs = NO_REPAIRS) -> None:
    """Whether the file's beginning can be of any format.

    Raises:
        WorkloadError: no file, an empty one, damaged gzip, UTF-16, or neither text nor parquet.
    """
    if path.is_dir():
        raise WorkloadError(f"{path} is a folder", fix="Give a trace or log file, or a folder that holds some")
    if not path.is_file():
        raise WorkloadError(f"no file {path}", fix="Give the path of a trace or log file")
    head = _packed_head(path, _HEAD_BYTES)
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise WorkloadError(f"{path} is empty", fix="Give a trace or log with requests in it")
    if head.startswith(_PARQUET):
        if is_gzip(path):
            raise WorkloadError(f"{path} is parquet inside gzip", fix="Unpack it first: gunzip")
        return
    if encoding := _wide_encoding(head):
        fix = "Convert it first: iconv -f UTF-16 -t UTF-8"
        error = WorkloadError(f"{path} is {encoding[:6]} text, not UTF-8", fix=fix)
        repairs.take("wide_text", error)
        return
    if b"\0" in head:
        fix = "Give JSON, JSON Lines, CSV or parquet, plain or in gzip"
        raise WorkloadError(f"{path} is binary: neither text nor parquet", fix=fix)


def _wide_encoding(head: bytes) -> str | None:
    """By its byte-order mark, or by every other byte of the beginning being zero."""
    marked = next((name for mark, name in _WIDE.items() if head.startswith(mark)), None)
    halves = head[0:128:2], head[1:128:2]
    zeros = [half.count(0) == len(half) for half in halves]
    return marked or (_UNMARKED[zeros.index(True)] if len(head) >= 4 and any(zeros) else None)


def is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def open_source(path: Path, repairs: Repairs = NO_REPAIRS) -> IO[bytes]:
    """The file's bytes, unpacked where it is gzip, as UTF-8 where it is text.

    Damaged gzip or UTF-16 raises WorkloadError where it is read; repaired, the file ends there.
    """
    wide = _wide_encoding(_packed_head(path, _HEAD_BYTES))
    if not is_gzip(path) and wide is None:
        return path.open("rb")
    source: IO[bytes] = io.BufferedReader(_Unpacked(path, repairs), 1 << 20) if is_gzip(path) else path.open("rb")
    return source if wide is None else io.BufferedReader(_Narrowed(path, source, wide), 1 << 20)


class _Unpacked(io.RawIOBase):
    """A gzip file whose damage is told in one sentence."""

    def __init__(self, path: Path, repairs: Repairs) -> None:
        self._path, self._repairs = path, repairs
        self._file = gzip.open(path, "rb")  # noqa: SIM115 closed with this
        self._is_cut = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._is_cut:
            return 0
        try:
            data = self._file.read1(len(buffer))  # at most one block: nothing before the damage is lost
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            fix = "Check that it was copied whole (gzip -t), or unpack what there is and import that"
            told = WorkloadError(f"{self._path} is damaged or truncated gzip: {error}", fix=fix)
            self._repairs.take("gzip_cut", told)
            self._is_cut = True
            return 0
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Narrowed(io.RawIOBase):
    """Text of two or four bytes a character as UTF-8."""

    def __init__(self, path: Path, source: IO[bytes], encoding: str) -> None:
        self._path, self._source = path, source
        self._decode = codecs.getincrementaldecoder(encoding)().decode
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._left:
            data = self._source.read(len(buffer))
            if not data:
                return 0  # half a character at the end is left out
            try:
                self._left = self._decode(data).encode()
            except UnicodeError as error:
                fix = "Check that it was copied whole, or convert it to UTF-8"
                raise WorkloadError(f"{self._path} is damaged UTF-16 or UTF-32 text: {error}", fix=fix) from None
        taken, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        self._source.close()
        super().close()


def head_bytes(path: Path, num_bytes: int) -> bytes:
    """The first bytes, unpacked and as UTF-8; where gzip is damaged within, those before that.

    Raises:
        WorkloadError: gzip damaged from its beginning.
    """
    with open_source(path) as file:
        return _first_bytes(file, num_bytes)


def _packed_head(path: Path, num_bytes: int) -> bytes:
    """The first bytes, unpacked, as they are encoded."""
    if not is_gzip(path):
        with path.open("rb") as file:
            return file.read(num_bytes)
    with _Unpacked(path, NO_REPAIRS) as raw:
        return _first_bytes(raw, num_bytes)


def _first_bytes(file: IO[bytes] | io.RawIOBase, num_bytes: int) -> bytes:
    found = bytearray()
    while len(found) < num_bytes:
        try:
            part = (file.read1 if isinstance(file, io.BufferedReader) else file.read)(num_bytes - len(found))
        except WorkloadError:
            if found:
                break
            raise
        if not part:
            break
        found += part
    return bytes(found)


def byte_lines(path: Path, repairs: Repairs = NO_REPAIRS) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line with its end).

    Raises:
        WorkloadError: a line longer than `MAX_LINE_BYTES`, or damaged gzip.
    """
    num_cut = repairs.counts["gzip_cut"]
    with open_source(path, repairs) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
            if len(line) > MAX_LINE_BYTES:
                what, fix = f"a line of more than {_size(MAX_LINE_BYTES)}", "Give one request a line: JSON Lines or CSV"
                repairs.take("line_too_long", WorkloadError(what, place=line_place(path, number), fix=fix))
                _skip_line(file, line)
            elif not line.endswith(b"\n") and repairs.counts["gzip_cut"] > num_cut:
                fix = "Check that the file was copied whole"
                repairs.take("line_cut", WorkloadError("a line ends amid", place=line_place(path, number), fix=fix))
            else:
                yield number, line


def _skip_line(file: IO[bytes], line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(_SKIPPED_BYTES)


def expected_lines(path: Path) -> int | None:
    """About how many lines the file has, from the length of the first ones; None where that cannot be said."""
    if path.suffix == ".parquet" or is_gzip(path):
        return None
    with path.open("rb") as file:
        head = file.read(_LOOKED_AT_BYTES)
    num_lines = head.count(b"\n")
    return round(path.stat().st_size * num_lines / len(head)) if num_lines > 1 else None


def text_lines(path: Path, repairs: Repairs = NO_REPAIRS) -> Iterator[str]:
    """Lines of UTF-8, a byte-order mark left out, for `csv`.

    Raises:
        WorkloadError: not UTF-8, and as `byte_lines`.
    """
    for number, line in byte_lines(path, repairs):
        try:
            text = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode("utf-8")
        except UnicodeDecodeError as error:
            what, fix = f"not UTF-8: {error.reason}", "Convert the file to UTF-8"
            repairs.take("line_unreadable", WorkloadError(what, place=line_place(path, number), fix=fix))
        else:
            yield text


def whole_document(path: Path) -> bytes:
    """All bytes of a file that is one object.

    Raises:
        WorkloadError: larger than `MAX_DOCUMENT_BYTES`, or damaged gzip.
    """
    with open_source(path) as file:
        found = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(found) > MAX_DOCUMENT_BYTES:
        what = f"{path} is one JSON object of more than {_size(MAX_DOCUMENT_BYTES)}"
        raise WorkloadError(what, fix="Give one object a line, or an array of them: those are read piece by piece")
    return found


def _size(num_bytes: int) -> str:
    return f"{num_bytes >> 20} MiB" if num_bytes >= 1 << 20 else f"{num_bytes} bytes"
