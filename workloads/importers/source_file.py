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

MAX_LINE_BYTES = 64 << 20  # of a line, or of one object in an array: bounds memory
MAX_DOCUMENT_BYTES = 256 << 20  # of one JSON object that is the whole file

_PARQUET, _GZIP = b"PAR1", b"\x1f\x8b"
_WIDE = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_HEAD_BYTES = 4096
_LOOKED_AT_BYTES = 1 << 20  # to guess the number of lines


def check_source(path: Path) -> None:
    """Whether the file's beginning can be of any format.

    Raises:
        WorkloadError: no file, an empty one, damaged gzip, UTF-16, or neither text nor parquet.
    """
    if path.is_dir():
        raise WorkloadError(f"{path} is a folder", fix="Give a trace or log file, or a folder that holds some")
    if not path.is_file():
        raise WorkloadError(f"no file {path}", fix="Give the path of a trace or log file")
    head = head_bytes(path, _HEAD_BYTES)
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise WorkloadError(f"{path} is empty", fix="Give a trace or log with requests in it")
    if head.startswith(_PARQUET):
        if is_gzip(path):
            raise WorkloadError(f"{path} is parquet inside gzip", fix="Unpack it first: gunzip")
        return
    if encoding := _wide_encoding(head):
        fix = "Convert it first: iconv -f UTF-16 -t UTF-8"
        raise WorkloadError(f"{path} is {encoding} text, not UTF-8", fix=fix)
    if b"\0" in head:
        fix = "Give JSON, JSON Lines, CSV or parquet, plain or in gzip"
        raise WorkloadError(f"{path} is binary: neither text nor parquet", fix=fix)


def _wide_encoding(head: bytes) -> str | None:
    """By its byte-order mark, or by every other byte of the beginning being zero."""
    marked = next((name for mark, name in _WIDE.items() if head.startswith(mark)), None)
    halves = head[0:128:2], head[1:128:2]
    return marked or ("UTF-16" if len(head) >= 4 and any(half.count(0) == len(half) for half in halves) else None)


def is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def open_source(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked where it is gzip; a damaged one raises WorkloadError where it is read."""
    if not is_gzip(path):
        return path.open("rb")
    return io.BufferedReader(_Unpacked(path), 1 << 20)


class _Unpacked(io.RawIOBase):
    """A gzip file whose damage is told in one sentence."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = gzip.open(path, "rb")  # noqa: SIM115 closed with this

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            data = self._file.read(len(buffer))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            fix = "Check that it was copied whole (gzip -t), or unpack what there is and import that"
            raise WorkloadError(f"{self._path} is damaged or truncated gzip: {error}", fix=fix) from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def head_bytes(path: Path, num_bytes: int) -> bytes:
    """The first bytes, unpacked.

    Raises:
        WorkloadError: damaged gzip.
    """
    with open_source(path) as file:
        return file.read(num_bytes)


def byte_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line with its end).

    Raises:
        WorkloadError: a line longer than `MAX_LINE_BYTES`, or damaged gzip.
    """
    with open_source(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
            if len(line) > MAX_LINE_BYTES:
                fix = "Give one request a line: JSON Lines or CSV"
                raise WorkloadError(
                    f"a line of more than {_size(MAX_LINE_BYTES)}", place=line_place(path, number), fix=fix
                )
            yield number, line


def expected_lines(path: Path) -> int | None:
    """About how many lines the file has, from the length of the first ones; None where that cannot be said."""
    if path.suffix == ".parquet" or is_gzip(path):
        return None
    with path.open("rb") as file:
        head = file.read(_LOOKED_AT_BYTES)
    num_lines = head.count(b"\n")
    return round(path.stat().st_size * num_lines / len(head)) if num_lines > 1 else None


def text_lines(path: Path) -> Iterator[str]:
    """Lines of UTF-8, a byte-order mark left out, for `csv`.

    Raises:
        WorkloadError: not UTF-8, and as `byte_lines`.
    """
    for number, line in byte_lines(path):
        try:
            yield (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode("utf-8")
        except UnicodeDecodeError as error:
            fix = "Convert the file to UTF-8"
            raise WorkloadError(f"not UTF-8: {error.reason}", place=line_place(path, number), fix=fix) from None


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
