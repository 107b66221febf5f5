"""The ASGI application: which path does what, and who may ask.

Does not know sockets, signals or how the engine came to be.
"""

from __future__ import annotations

import asyncio
import hmac
import time

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.bundled.errors import RequestError
from engine.bundled.server.chat import ChatCompletions
from engine.bundled.server.completions import Completions
from engine.bundled.server.errors import (
    ApiError,
    EngineStoppedError,
    ShuttingDownError,
    error_object,
    internal_error_response,
    not_found_response,
    refusal_response,
    wrong_method_response,
)
from engine.bundled.server.reconfiguration import Reconfiguration
from engine.bundled.server.request_metrics import CONTENT_TYPE
from engine.bundled.server.served_model import ServedModel
from engine.bundled.server.tokenization import Tokenization
from engine.bundled.step_log import to_parquet

DEFAULT_MAX_BODY_BYTES = 64 * 2**20


def make_app(
    model: ServedModel,
    *,
    api_key: str | None = None,
    reconfiguration: Reconfiguration | None = None,
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
) -> ASGIApp:
    """Everything one engine process serves."""
    status, tokenization = _Status(model), Tokenization(model)
    routes = [
        Route("/v1/completions", Completions(model), methods=["POST"]),
        Route("/v1/chat/completions", ChatCompletions(model), methods=["POST"]),
        Route("/v1/models", status.models),
        Route("/health", status.health),
        Route("/metrics", status.metrics),
        Route("/steps", status.steps),
        Route("/reset_prefix_cache", status.reset_prefix_cache, methods=["POST"]),
        Route("/tokenize", tokenization.tokenize, methods=["POST"]),
        Route("/detokenize", tokenization.detokenize, methods=["POST"]),
    ]
    if reconfiguration is not None:
        routes.append(Route("/reconfigure", reconfiguration.handle, methods=["POST"]))
    return Starlette(
        routes=routes,
        middleware=[
            *([Middleware(_KeyCheck, api_key=api_key)] if api_key else []),
            Middleware(_BodyLimit, max_bytes=max_body_bytes),
        ],
        exception_handlers={
            ApiError: refusal_response,
            RequestError: refusal_response,
            404: not_found_response,
            405: wrong_method_response,
            Exception: internal_error_response,
        },
    )


class _Status:
    """What is served and how it fares."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.created = int(time.time())

    async def health(self, _request: Request) -> Response:
        if self.model.thread.failure is not None:
            raise EngineStoppedError
        if self.model.thread.is_draining:
            raise ShuttingDownError
        return Response()

    async def models(self, _request: Request) -> Response:
        base = self.model.name
        cards = [self._card(base, root=base, parent=None)]
        cards += [self._card(name, root=folder, parent=base) for name, folder in self.model.adapters.items()]
        return JSONResponse({"object": "list", "data": cards})

    def _card(self, name: str, *, root: str, parent: str | None) -> dict[str, str | int | None]:
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "fopt",
            "root": root,
            "parent": parent,
            "max_model_len": self.model.max_model_len,
        }

    async def metrics(self, _request: Request) -> Response:
        counters = await self.model.thread.call(lambda engine: engine.counters())
        return Response(self.model.metrics.text(counters), headers={"content-type": CONTENT_TYPE})

    async def steps(self, _request: Request) -> Response:
        """The latest steps' telemetry as a parquet file."""
        records = await self.model.thread.call(lambda engine: engine.step_log.records())
        content = await asyncio.to_thread(to_parquet, records)
        return Response(content, headers={"content-type": "application/vnd.apache.parquet"})

    async def reset_prefix_cache(self, _request: Request) -> Response:
        if not await self.model.thread.call(lambda engine: engine.reset_prefix_cache()):
            raise ApiError("the prefix cache is in use: reset it when no request runs", status=409)
        return Response()


class _KeyCheck:
    """Lets only `Authorization: Bearer <key>` through, but for /health."""

    def __init__(self, app: ASGIApp, *, api_key: str) -> None:
        self._app = app
        self._expected = b"Bearer " + api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            sent = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(sent, self._expected):
                refusal = ApiError("the API key is missing or wrong", status=401, code="invalid_api_key")
                await JSONResponse(error_object(refusal), status_code=401)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _BodyLimit:
    """Ends a request whose body is larger than the server takes, before it fills the memory."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        num_bytes = 0

        async def receive_within_limit() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_bytes:
                size = f"{self._max_bytes / 2**20:g} MiB"
                raise ApiError(f"the body is larger than {size}. Send less at a time", status=413)
            return message

        await self._app(scope, receive_within_limit, send)
