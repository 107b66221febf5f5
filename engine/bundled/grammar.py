"""`Grammar`: which tokens may come next so that the answer is JSON of a schema, by llguidance.

Does not know drawing or requests.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import llguidance.numpy
import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer

from engine.bundled.errors import RequestError

# A space, or a line break and its indentation: a model that is forced to go on may not fill its answer with blanks.
_OPTIONS: Any = {"whitespace_flexible": True, "whitespace_pattern": r"( |\n {0,40})?"}


class Grammar:
    """One answer's place in its grammar. After a complete answer only the end may come, where the model has one."""

    def __init__(self, tokenizer: LLTokenizer, schema: str, vocab_size: int, eos_token_ids: Seq[int]) -> None:
        self._matcher = LLMatcher(tokenizer, _rules(schema))
        self._bits = llguidance.numpy.allocate_token_bitmask(1, tokenizer.vocab_size)
        self._vocab_size = vocab_size
        self._eos_token_ids = list(eos_token_ids)

    def allowed(self) -> npt.NDArray[np.bool_] | None:
        """Whether each token of the vocabulary may come next, [V]; None when all may."""
        if self._matcher.is_stopped():
            return self._ends()
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bits, 0)
        bits = np.unpackbits(self._bits[0].view(np.uint8), bitorder="little")[: self._vocab_size].astype(bool)
        return np.pad(bits, (0, self._vocab_size - len(bits)))

    def _ends(self) -> npt.NDArray[np.bool_] | None:
        if not self._eos_token_ids:
            return None
        ends = np.zeros(self._vocab_size, bool)
        ends[self._eos_token_ids] = True
        return ends

    def consume(self, token_ids: Seq[int]) -> None:
        """Go on by the tokens that were drawn."""
        for token_id in token_ids:
            if self._matcher.is_stopped():
                return
            self._matcher.consume_token(token_id)


class GrammarCompiler:
    """Grammars over one tokenizer, which is read at first use."""

    def __init__(self, folder: Path, *, vocab_size: int, eos_token_ids: Seq[int]) -> None:
        self._folder = folder
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._tokenizer: LLTokenizer | None = None

    def compile(self, schema: str) -> Grammar:
        """A grammar at its start.

        Raises:
            RequestError: the schema or this tokenizer cannot be used.
        """
        check_schema(schema)
        if self._tokenizer is None:
            self._tokenizer = self._read_tokenizer()
        return Grammar(self._tokenizer, schema, self._vocab_size, self._eos_token_ids)

    def _read_tokenizer(self) -> LLTokenizer:
        try:
            text = (self._folder / "tokenizer.json").read_text(encoding="utf-8")
            return LLTokenizer(text, eos_token=next(iter(self._eos_token_ids), None))
        except (OSError, ValueError, RuntimeError) as error:
            raise RequestError(f"answers of a schema need the model's tokenizer.json: {error}") from None


def check_schema(schema: str) -> None:
    """Raises RequestError when answers cannot be held to this JSON schema."""
    try:
        problem = LLMatcher.validate_grammar(_rules(schema))
    except ValueError as error:
        problem = str(error)
    if problem:
        raise RequestError(f"response_format: the JSON schema cannot be followed: {problem.strip().splitlines()[0]}")


def _rules(schema: str) -> str:
    rules: str = LLMatcher.grammar_from_json_schema(schema, defaults=_OPTIONS)
    return rules
