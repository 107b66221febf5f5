"""Log-probabilities in the three JSON forms clients know: completion, chat and prompt.

Does not know how they were computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from engine.bundled.outputs import TokenLogprob

Json = dict[str, Any]
LOWEST = -9999.0  # JSON has no infinity; the value vLLM sends for it


class TokenTexts:
    """The text of single tokens, remembered: a vocabulary is small and logprobs name its tokens again and again."""

    def __init__(self, decode_one: Callable[[int], str]) -> None:
        self._decode_one = decode_one
        self._texts: dict[int, str] = {}

    def __getitem__(self, token_id: int) -> str:
        text = self._texts.get(token_id)
        if text is None:
            text = self._texts[token_id] = self._decode_one(token_id)
        return text


def completion_logprobs(
    token_ids: Sequence[int], logprobs: Sequence[TokenLogprob | None], texts: TokenTexts, *, text_offset: int
) -> Json:
    """OpenAI's legacy form: parallel lists, offsets counted from `text_offset` characters."""
    tokens = [texts[token_id] for token_id in token_ids]
    offsets = []
    for token in tokens:
        offsets.append(text_offset)
        text_offset += len(token)
    return {
        "text_offset": offsets,
        "token_logprobs": [None if entry is None else _finite(entry.logprob) for entry in logprobs],
        "tokens": tokens,
        "top_logprobs": [None if entry is None else _by_text(entry, texts) for entry in logprobs],
    }


def _by_text(entry: TokenLogprob, texts: TokenTexts) -> dict[str, float]:
    by_text = {texts[token_id]: _finite(logprob) for token_id, logprob in reversed(entry.top)}
    return {**dict(reversed(by_text.items())), texts[entry.token_id]: _finite(entry.logprob)}


def chat_logprobs(logprobs: Iterable[TokenLogprob], texts: TokenTexts) -> Json:
    """OpenAI's chat form: one object a token, alternatives inside."""
    return {"content": [_chat_entry(entry, texts) for entry in logprobs]}


def _chat_entry(entry: TokenLogprob, texts: TokenTexts) -> Json:
    top = [_chat_token(texts[token_id], logprob) for token_id, logprob in entry.top]
    return {**_chat_token(texts[entry.token_id], entry.logprob), "top_logprobs": top}


def _chat_token(text: str, logprob: float) -> Json:
    return {"token": text, "logprob": _finite(logprob), "bytes": list(text.encode())}


def prompt_logprobs(logprobs: Iterable[TokenLogprob | None], texts: TokenTexts) -> list[Json | None]:
    """vLLM's form: None for the first token, then {token id: {logprob, rank, decoded_token}}."""
    return [None if entry is None else _prompt_entry(entry, texts) for entry in logprobs]


def _prompt_entry(entry: TokenLogprob, texts: TokenTexts) -> Json:
    by_id: Json = {}
    for rank, (token_id, logprob) in enumerate(entry.top, start=1):
        by_id[str(token_id)] = {"logprob": _finite(logprob), "rank": rank, "decoded_token": texts[token_id]}
    own = {"logprob": _finite(entry.logprob), "rank": entry.rank, "decoded_token": texts[entry.token_id]}
    return {str(entry.token_id): own, **{key: value for key, value in by_id.items() if key != str(entry.token_id)}}


def _finite(logprob: float) -> float:
    return logprob if logprob > LOWEST else LOWEST
