"""`Address`: where a server is, and the heads of the HTTP requests that go there.

Does not know what is asked or answered.
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import SplitResult, quote, urlsplit

from workloads.errors import WorkloadError
from workloads.replay.connection import Connection


class Address:
    """A base URL taken apart; redirects, proxies and credentials in URLs are not followed.

    Raises:
        WorkloadError: not an http(s) address, or a key that cannot be a header.
    """

    def __init__(self, base_url: str, *, api_key: str | None = None) -> None:
        parts, port = _split(base_url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = port or (443 if self._tls else 80)
        self._path = quote(parts.path.rstrip("/").removesuffix("/v1"), safe="/%:@!$&'()*+,;=~")
        self._found: tuple[str, int] | None = None  # the address that the name led to
        name = f"[{self._host}]" if ":" in self._host else self._host
        host = name if port is None else f"{name}:{port}"
        self._fields = f"Host: {host}\r\nUser-Agent: fopt\r\nAccept-Encoding: identity\r\n{_authorization(api_key)}"

    def post_head(self, path: str) -> bytes:
        """A POST of JSON for a stream, up to its content's length."""
        fields = "Content-Type: application/json\r\nAccept: text/event-stream\r\nContent-Length: "
        return f"POST {self._path}{path} HTTP/1.1\r\n{self._fields}{fields}".encode()

    def get_request(self, path: str) -> bytes:
        """A whole GET."""
        return f"GET {self._path}{path} HTTP/1.1\r\n{self._fields}\r\n".encode()

    async def connect(self) -> Connection:
        """A new connection; the name is looked up for the first one only.

        Raises:
            ConnectionError: nobody answers there.
        """
        host, port = self._found or (self._host, self._port)
        try:
            transport, connection = await asyncio.get_running_loop().create_connection(
                Connection, host, port, ssl=self._tls, server_hostname=self._host if self._tls else None
            )
        except OSError as error:
            self._found = None
            why = error.strerror or str(error) or type(error).__name__
            raise ConnectionError(f"cannot connect to {self._host}:{self._port}: {why}") from error
        self._found = transport.get_extra_info("peername")[:2]
        return connection


def _split(base_url: str) -> tuple[SplitResult, int | None]:
    fix = "Give the server's base URL, as http://host:port"
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError as error:
        raise WorkloadError("that is not a URL", fix=fix) from error
    if parts.username or parts.password or parts.query:
        raise WorkloadError("the base URL holds credentials or a query", fix=f"{fix}; keys are given apart")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WorkloadError(f"{base_url!r} is not an http:// or https:// address", fix=fix)
    return parts, port


def _authorization(api_key: str | None) -> str:
    if api_key is None:
        return ""
    if not (api_key.isascii() and api_key.isprintable()):
        raise WorkloadError("the API key holds characters that no key has", fix="Look for line breaks around it")
    return f"Authorization: Bearer {api_key}\r\n"
