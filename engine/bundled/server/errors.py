"""What goes wrong with a request, in OpenAI's error form.

Does not know which endpoint raises it.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class ApiError(Exception):
    """A request that gets no answer; `str()` is the sentence the client reads."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """`Retry-After` where waiting helps."""
        return {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}


class EngineStoppedError(ApiError):
    """The engine thread is gone, with all its requests."""

    def __init__(self) -> None:
        super().__init__("the engine has stopped after an internal error; the server's log says why", status=500)


class ShuttingDownError(ApiError):
    """The process was told to stop."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; send the request again later", status=503, retry_after_s=5)


class ClientGoneError(Exception):
    """Nobody reads the answer any more."""


def error_object(error: ApiError) -> dict[str, dict[str, str | int | None]]:
    """The JSON body of an error."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


def as_api_error(error: Exception) -> ApiError:
    """The core's RequestError speaks to the client as it is."""
    return error if isinstance(error, ApiError) else ApiError(str(error))


async def refusal_response(_request: Request, error: Exception) -> Response:
    """Starlette's handler for `ApiError` and the core's `RequestError`."""
    refusal = as_api_error(error)
    return JSONResponse(error_object(refusal), status_code=refusal.status, headers=refusal.headers)


async def not_found_response(request: Request, _error: Exception) -> Response:
    """Starlette's handler for an unknown path."""
    found = ApiError(f"there is no {request.url.path} here; the API is under /v1", status=404, code="not_found")
    return JSONResponse(error_object(found), status_code=404)


async def wrong_method_response(request: Request, error: Exception) -> Response:
    """Starlette's handler for a known path with another method."""
    wrong = ApiError(f"{request.url.path} does not answer {request.method}", status=405, code="method_not_allowed")
    return JSONResponse(error_object(wrong), status_code=405, headers=getattr(error, "headers", None))


async def internal_error_response(_request: Request, _error: Exception) -> Response:
    """Starlette's handler for our own bugs; the traceback goes to the log."""
    return JSONResponse(error_object(ApiError("an internal error; the server's log says more", status=500)), 500)
