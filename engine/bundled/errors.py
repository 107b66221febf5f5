"""What can go wrong in the bundled engine, as the sentences people read.

BundledEngineError
├── CheckpointError     the model folder cannot be read
├── CapacityError       memory cannot hold one sequence
└── UnsupportedError    a config asks for what this engine does not do
RequestError            one request is wrong; the engine goes on
"""

from __future__ import annotations


class BundledEngineError(Exception):
    """The engine cannot start; `str()` is the sentence the user reads."""


class CheckpointError(BundledEngineError):
    """The model folder is missing, incomplete or of a family this engine does not speak."""


class CapacityError(BundledEngineError):
    """The KV cache cannot hold even one sequence of `max_model_len`."""


class UnsupportedError(BundledEngineError):
    """The config asks for something this engine does not do."""


class RequestError(ValueError):
    """A request that cannot be served as asked; the message is for the client."""
