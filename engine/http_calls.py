"""`HttpCalls`: short calls to one server, never through a proxy.

Does not know what the answers mean.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request

CALL_ERRORS = (OSError, http.client.HTTPException)  # what a call may raise
_ABSENT = (403, 404, 405, 501)  # no such path here, or not for us


class HttpCalls:
    """`base_url` is without `/v1`; the key goes into every call and nowhere else."""

    def __init__(self, base_url: str, *, api_key: str | None = None) -> None:
        self._base_url = base_url
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method: str, path: str, *, timeout_s: float, body: bytes | None = None) -> bytes:
        """The answer's body; one of `CALL_ERRORS` when there is none, or its status is no success."""
        request = urllib.request.Request(self._base_url + path, method=method, headers=self._headers, data=body)
        with self._opener.open(request, timeout=timeout_s) as answer:
            content: bytes = answer.read()
            return content

    def try_call(self, method: str, path: str, *, timeout_s: float) -> bytes | None:
        """As `call`; None where the server has no such path."""
        try:
            return self.call(method, path, timeout_s=timeout_s)
        except urllib.error.HTTPError as error:
            if error.code in _ABSENT:
                return None
            raise

    def model_names(self, *, timeout_s: float) -> list[str]:
        """What /v1/models lists; one of `CALL_ERRORS`, or ValueError when that is no list of models."""
        answer = self.call("GET", "/v1/models", timeout_s=timeout_s)
        try:
            body = json.loads(answer)
        except ValueError:
            raise ValueError(f"it answers with {_kind_of(answer)}, not with the JSON of an OpenAI server") from None
        cards = body.get("data") if isinstance(body, dict) else None
        if not isinstance(cards, list):
            raise ValueError("/v1/models lists no models")
        return [str(card["id"]) for card in cards if isinstance(card, dict) and "id" in card]


def reason_of(error: Exception) -> str:
    """An error of a call in words, on one line; a page for people is not quoted."""
    if isinstance(error, urllib.error.HTTPError):
        said = error.read(500)
        if _is_page(said):
            return f"{error.code} {error.reason}, with {_kind_of(said)}"
        return f"{error.code} {' '.join(said.decode(errors='replace').split())}".strip()
    reason = getattr(error, "reason", None)
    return str(reason or error) or type(error).__name__


def _kind_of(answer: bytes) -> str:
    return "a web page" if _is_page(answer) else "something else" if answer.strip() else "nothing"


def _is_page(answer: bytes) -> bool:
    return answer.lstrip()[:20].lower().startswith((b"<!doctype html", b"<html"))
