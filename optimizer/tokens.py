"""Tokens of the two small grammars users write: SLOs and objectives, with errors that point at the column.

Does not know either grammar.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from optimizer.errors import OptimizerError

Kind = Literal["number", "name", "sign", "end"]
_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[^\W\d][\w.]*)"
    r"|(?P<sign><=|>=|[<>:;*+%])"
)


@dataclass(frozen=True, kw_only=True)
class Token:
    """A piece of text and the 0-based column it starts at; the last one is an empty `end`."""

    kind: Kind
    text: str
    column: int


class TokenStream:
    """The tokens of one text, taken from the left."""

    def __init__(self, text: str, *, what: str) -> None:
        """`what` the text is, for errors: "SLO", "objective"."""
        self.text = text
        self._what = what
        self._tokens = self._tokenize()
        self._position = 0

    @property
    def next(self) -> Token:
        return self._tokens[self._position]

    @property
    def at_end(self) -> bool:
        return self.next.kind == "end"

    def take(self) -> Token:
        """The next token; the end is never passed."""
        token = self.next
        self._position = min(self._position + 1, len(self._tokens) - 1)
        return token

    def take_sign(self, *signs: str) -> Token | None:
        """The next token if it is one of these signs."""
        return self.take() if self.next.kind == "sign" and self.next.text in signs else None

    def expect(self, accepts: Callable[[Token], bool], wanted: str) -> Token:
        """The next token, or an error that says what was wanted."""
        if accepts(self.next):
            return self.take()
        found = repr(self.next.text) if self.next.text else "the end"
        raise self.error(f"expected {wanted}, found {found}", self.next.column)

    def error(self, message: str, column: int) -> OptimizerError:
        """The sentence, the text, and a caret under the column."""
        shown = self.text.replace("\n", " ").replace("\t", " ")
        sentence = f"{self._what} {shown!r}, column {column + 1}: {message}"
        return OptimizerError(f"{sentence}\n  {shown}\n  {' ' * column}^")

    def _tokenize(self) -> list[Token]:
        tokens, column = [], 0
        while column < len(self.text):
            if self.text[column].isspace():
                column += 1
                continue
            match = _TOKEN.match(self.text, column)
            if match is None:
                raise self.error(f"{self.text[column]!r} means nothing here", column)
            kind: Kind = "number" if match["number"] else "name" if match["name"] else "sign"
            tokens.append(Token(kind=kind, text=match[0], column=column))
            column = match.end()
        return [*tokens, Token(kind="end", text="", column=len(self.text))]
