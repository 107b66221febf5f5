"""The engine families by name.

Does not know their options: a caller that has some builds the member itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.backend import Backend
from engine.bundled_backend import BundledBackend
from engine.command_backend import CommandBackend
from engine.endpoint_backend import EndpointBackend
from engine.vllm_server.backend import VllmBackend

BACKENDS: Mapping[str, Callable[[], Backend]] = {
    "bundled": BundledBackend,
    "command": CommandBackend,
    "endpoint": EndpointBackend,
    "vllm": VllmBackend,
}
