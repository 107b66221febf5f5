"""Which exceptions are the user's to mend, and their sentence.

Does not import the folders that raise them: it compares dotted class names.
"""

from __future__ import annotations

USER_ERRORS = frozenset(
    {
        "engine.backend.EngineError",
        "engine.config.ConfigError",
        "engine.simulator.errors.SimulatorError",
        "optimizer.errors.OptimizerError",
        "reports.errors.ReportError",
        "search_spaces.errors.SearchSpaceError",
        "workloads.errors.WorkloadError",
    }
)


def sentence(error: Exception) -> str | None:
    """What to print for a user error, on one line; None when the exception is a bug."""
    if any(f"{kind.__module__}.{kind.__qualname__}" in USER_ERRORS for kind in type(error).__mro__):
        return str(error)
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}. Choose another place or change its permissions"
    return None
