"""`POST /reconfigure`: another config without a restart, while no request runs.

Does not know what the engine makes anew; off unless the server was started with it, as whoever may ask can change what
everybody is served by.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.bundled.errors import BundledEngineError
from engine.bundled.server.errors import ApiError
from engine.bundled.server.served_model import ServedModel
from engine.bundled.server.start_failure import failure_kind
from engine.config import EngineConfig

if TYPE_CHECKING:
    from engine.bundled.llm_engine import LLMEngine

MakeEngine = Callable[[EngineConfig], "LLMEngine"]
FIXED_FIELDS = ("model", "engine", "tensor_parallel_size", "hardware")


class Reconfiguration:
    """The endpoint; `make_engine` builds from resident weights."""

    def __init__(self, model: ServedModel, config: EngineConfig, make_engine: MakeEngine) -> None:
        self._model = model
        self._config = config
        self._make_engine = make_engine

    async def handle(self, request: Request) -> Response:
        wanted = self._parse(await request.body())
        begin, before = time.perf_counter(), self._config
        try:
            engine = await self._model.thread.replace(
                lambda: self._make_engine(wanted), restore=lambda: self._make_engine(before)
            )
        except BundledEngineError as error:
            raise ApiError(str(error), code=failure_kind(error)) from None
        self._config = wanted
        self._model.max_model_len = engine.max_model_len
        self._model.scheduling_policy = wanted.scheduling_policy
        self._model.adapters = wanted.lora_modules
        return JSONResponse({"seconds": time.perf_counter() - begin})

    def _parse(self, body: bytes) -> EngineConfig:
        try:
            wanted = EngineConfig.model_validate_json(body)
            json.loads(body, object_pairs_hook=_unique)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the body"
            raise ApiError(f"{field}: {first['msg']}", param=field) from None
        for name in FIXED_FIELDS:
            if getattr(wanted, name) != getattr(self._config, name):
                raise ApiError(f"{name} cannot change without a restart. Start another server", param=name)
        if self._model.name in wanted.lora_modules:
            raise ApiError(f"the adapter {self._model.name!r} has the served model's name", param="lora_modules")
        return wanted


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, whose keys must differ: JSON's readers keep the last."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in values if names.count(name) > 1)
        raise ApiError(f"the key {twice!r} is given twice", param=twice)
    return values
