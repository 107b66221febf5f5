"""`Tokenizer`: text to token ids and back, incrementally too, and the checkpoint's chat template.

Does not know models. Reads `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import tokenizers
from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.bundled.errors import CheckpointError, RequestError
from engine.bundled.model_config import read_json

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """The tokenizer of a Hugging Face folder."""

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.exists():
            raise CheckpointError(f"{folder} has no tokenizer.json. Save a fast tokenizer beside the weights")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{path} is not a readable tokenizer: {error}") from None
        config_path = folder / "tokenizer_config.json"
        self._config = read_json(config_path) if config_path.exists() else {}
        template_path = folder / "chat_template.jinja"
        self._template_text = template_path.read_text(encoding="utf-8") if template_path.exists() else None

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; the model's vocabulary may be padded beyond it."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids; a rendered chat template already holds its special tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def detokenizer(self, *, skip_special_tokens: bool = True) -> IncrementalDetokenizer:
        """A fresh reader of one growing output."""
        return IncrementalDetokenizer(self, skip_special_tokens=skip_special_tokens)

    def token_text(self, token_id: int) -> str:
        """One token as text, for log-probabilities; half a character shows as the replacement character."""
        return self._tokenizer.decode([token_id], skip_special_tokens=False)

    def token_id(self, token: str) -> int | None:
        """The id of a token given as it stands in the vocabulary."""
        return self._tokenizer.token_to_id(token)

    @property
    def has_chat_template(self) -> bool:
        return self._template_text is not None or bool(self._config.get("chat_template"))

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The conversation as the text the model was trained on.

        Raises:
            RequestError: the model has no template, or the template refuses these messages.
        """
        if not self.has_chat_template:
            raise RequestError("this model has no chat template. Use /v1/completions")
        special = {name: self._special_token(name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
        try:
            return self._chat_template.render(
                messages=messages, tools=tools, add_generation_prompt=add_generation_prompt, **special, **variables
            )
        except (TemplateError, TypeError, ValueError, AttributeError, KeyError) as error:
            raise RequestError(f"the chat template refuses these messages: {error}") from None

    @cached_property
    def _chat_template(self) -> Template:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
        try:
            return environment.from_string(self._template_source())
        except TemplateError as error:
            raise CheckpointError(f"the checkpoint's chat template cannot be parsed: {error}") from None

    def _template_source(self) -> str:
        if self._template_text is not None:
            return self._template_text
        found = self._config["chat_template"]
        if isinstance(found, str):
            return found
        named = {entry["name"]: entry["template"] for entry in found}
        source: str = named.get("default") or next(iter(named.values()))
        return source

    def _special_token(self, name: str) -> str:
        value = self._config.get(name) or ""
        text: str = value["content"] if isinstance(value, dict) else value
        return text


class IncrementalDetokenizer:
    """Text of a growing token sequence, holding back bytes that are not yet a whole character.

    A token's text may depend on its left neighbours, so each piece is the difference of two decodings that
    share a prefix, and the prefix moves on whenever the text is complete.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._token_ids: list[int] = []
        self._prefix = 0  # tokens before this no longer influence the text
        self._read = 0  # tokens before this were handed out

    def append(self, token_id: int) -> str:
        """The text this token completes; empty while a character is incomplete."""
        self._token_ids.append(token_id)
        before, text = self._texts()
        if len(text) <= len(before) or text.endswith(_REPLACEMENT):
            return ""
        self._prefix, self._read = self._read, len(self._token_ids)
        return text[len(before) :]

    def finish(self) -> str:
        """What is left at the end, incomplete characters included."""
        before, text = self._texts()
        self._prefix = self._read = len(self._token_ids)
        return text[len(before) :]

    def _texts(self) -> tuple[str, str]:
        decode = self._tokenizer.decode
        before = decode(self._token_ids[self._prefix : self._read], skip_special_tokens=self._skip)
        return before, decode(self._token_ids[self._prefix :], skip_special_tokens=self._skip)


def _to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    """As Hugging Face renders it: no HTML escaping."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)
