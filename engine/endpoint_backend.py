"""`EndpointBackend`: a server that somebody else runs. It is measured, never started, changed or stopped.

Does not know which engine it is: `engine_args` hold its address, the model's name there and where its key is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from engine.backend import EngineError, FailureKind, Refusal
from engine.config import EngineConfig
from engine.foreign_server import ForeignServer
from engine.http_calls import CALL_ERRORS, HttpCalls, reason_of

URL, MODEL_NAME, API_KEY_ENV = "url", "model_name", "api_key_env"
_TIMEOUT_S = 10.0
_CARRIED = ("model", "engine", "hardware.", "engine_args.")
_OTHERS = "the server was running already: what else it did is in these numbers, and its settings are not known here"


class _Endpoint(NamedTuple):
    base_url: str  # without /v1
    api_key: str | None
    model_name: str


class EndpointBackend:
    """Connects to `engine_args.url`."""

    name = "endpoint"

    def check(self, config: EngineConfig) -> list[Refusal]:
        if config.engine != self.name:
            return [Refusal(reason=f"the config is for engine {config.engine}. Set engine: endpoint")]
        default = EngineConfig(model=config.model, engine="endpoint")
        changed = [name for name in config.differences(default) if not name.startswith(_CARRIED)]
        changed += [f"engine_args.{name}" for name in config.engine_args if name not in (URL, MODEL_NAME, API_KEY_ENV)]
        if changed:
            return [Refusal(reason=f"{changed[0]}: a running server cannot be changed from outside. Leave it out")]
        try:
            _find(config)
        except EngineError as error:
            return [Refusal(reason=str(error), kind=error.kind)]
        return []

    @contextlib.contextmanager
    def launch(self, config: EngineConfig, *, log_path: Path, port: int | None = None) -> Iterator[ForeignServer]:
        """Connect; leaving the context leaves the server as it is."""
        if port is not None:
            raise EngineError("a running server has its port. Leave the port out", kind=FailureKind.PORT)
        begin = time.monotonic()
        found = _find(config)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log_path.write_text(f"measured {found.model_name} at {found.base_url}; its log is where it was started\n")
        yield ForeignServer(
            base_url=found.base_url,
            model_name=found.model_name,
            log_path=log_path,
            liveness=lambda: _check_answers(found, log_path),
            api_key=found.api_key,
            launch_s=time.monotonic() - begin,
            notes=(_OTHERS,),
        )


def endpoint_model(config: EngineConfig) -> str:
    """What the server at `engine_args.url` calls its model.

    Raises:
        EngineError: it does not answer, or does not have the model that the config names.
    """
    return _find(config).model_name


def _find(config: EngineConfig) -> _Endpoint:
    url = str(config.engine_args.get(URL) or "")
    base_url = _base_url(url)
    api_key = _api_key(config.engine_args.get(API_KEY_ENV))
    try:
        names = HttpCalls(base_url, api_key=api_key).model_names(timeout_s=_TIMEOUT_S)
    except (*CALL_ERRORS, ValueError) as error:
        message = (
            f"{base_url}/v1/models does not answer: {reason_of(error)}. Is the server running? Does it need a key?"
        )
        raise EngineError(message, kind=FailureKind.REFUSED) from None
    return _Endpoint(base_url, api_key, _chosen_name(config.engine_args.get(MODEL_NAME), names, base_url))


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _refused(f"{url!r} is no address of a server. Give it as http://host:port")
    if parts.username or parts.password:
        raise _refused(
            "the address holds a name or a password, which would be written down. Give a key by --api-key-env"
        )
    return url.rstrip("/").removesuffix("/v1")


def _api_key(variable: object) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(str(variable))
    if not key:
        raise _refused(f"the environment variable {variable} is empty. Set it to the server's API key")
    return key


def _chosen_name(wanted: object, names: list[str], base_url: str) -> str:
    listed = ", ".join(names) or "none"
    if wanted is None:
        if len(names) != 1:
            raise _refused(f"{base_url} lists {len(names)} models ({listed}). Name one with --model-name")
        return names[0]
    if str(wanted) not in names:
        raise _refused(f"{base_url} has no model {wanted!r}; it lists: {listed}. Correct --model-name")
    return str(wanted)


def _refused(message: str) -> EngineError:
    return EngineError(message, kind=FailureKind.REFUSED)


def _check_answers(found: _Endpoint, log_path: Path) -> None:
    try:
        HttpCalls(found.base_url, api_key=found.api_key).model_names(timeout_s=_TIMEOUT_S)
    except (*CALL_ERRORS, ValueError) as error:
        kind = FailureKind.HANG if isinstance(error, TimeoutError) else FailureKind.DIED
        message = f"the server at {found.base_url} does not answer any more: {reason_of(error)}. Look at its own log"
        raise EngineError(message, kind=kind, log_path=log_path) from None
