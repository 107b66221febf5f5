"""Token counts of recorded text, by a model's own tokenizer and chat template.

Does not know models or engines: it reads `tokenizer.json` and the chat template beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from jinja2 import Template


class TokenCounter:
    """Counts tokens the way the model of a Hugging Face folder would.

    Raises:
        WorkloadError: no tokenizer.json there, or one that cannot be read.
    """

    def __init__(self, folder: Path | str) -> None:
        from tokenizers import Tokenizer

        self.folder = Path(folder)
        path = self.folder / "tokenizer.json"
        if not path.is_file():
            raise WorkloadError(f"no tokenizer.json in {folder}", fix="Give the folder of a Hugging Face tokenizer")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise WorkloadError(f"cannot read {path}: {error}", fix="Give a fast tokenizer's folder") from None
        self._config = _json_file(self.folder / "tokenizer_config.json")
        self._template = self._find_template()

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids; `special` adds what the tokenizer puts around a raw prompt."""
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def count(self, text: str) -> int:
        """Tokens of plain text, nothing added."""
        return len(self.ids(text))

    def chat_text(self, messages: list[dict[str, Any]], tools: list[Any] | None = None) -> str:
        """The prompt the chat template makes; without a template, role and content a line each."""
        if self._template is None:
            return "".join(f"{message.get('role')}: {text_of(message)}\n" for message in messages)
        try:
            return str(self._template.render(messages=messages, tools=tools, **self._template_words()))
        except Exception as error:  # templates raise whatever they like
            fix = "Give a tokenizer whose template takes these messages"
            raise WorkloadError(f"the chat template in {self.folder} failed: {error}", fix=fix) from None

    def _template_words(self) -> dict[str, Any]:
        tokens = {name: self._config.get(name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
        words = {name: t.get("content", "") if isinstance(t, dict) else t or "" for name, t in tokens.items()}
        return {"add_generation_prompt": True, **words}

    def _find_template(self) -> Template | None:
        beside = self.folder / "chat_template.jinja"
        text = beside.read_text() if beside.is_file() else self._config.get("chat_template")
        if not isinstance(text, str):
            return None
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _raise
        return environment.from_string(text)


def text_of(message: dict[str, Any]) -> str:
    """A message's content as text: a string, the text parts of a list, or nothing."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _raise(message: str) -> None:
    raise ValueError(message)


def _json_file(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
