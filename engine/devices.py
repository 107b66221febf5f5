"""The GPUs that engines of this machine may use, and which of them an engine that we launched has taken.

Does not know what an engine does with them. A device is a number or an id, as CUDA_VISIBLE_DEVICES has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.backend import EngineError, FailureKind, Refusal

VARIABLE = "CUDA_VISIBLE_DEVICES"
NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")


def visible_devices() -> tuple[str, ...] | None:
    """What the user's CUDA_VISIBLE_DEVICES names, else every NVIDIA GPU; None where nobody can tell."""
    if (named := os.environ.get(VARIABLE)) is not None:
        return _as_cuda_reads(named)
    return tuple(str(number) for number, _ in enumerate(NVIDIA_GPUS.iterdir())) if NVIDIA_GPUS.is_dir() else None


def _as_cuda_reads(named: str) -> tuple[str, ...]:
    """CUDA ignores what comes after the first entry that is no device."""
    devices: list[str] = []
    for entry in (part.strip() for part in named.split(",")):
        if not entry or entry.startswith("-"):
            break
        devices.append(entry)
    return tuple(devices)


class DevicePool:
    """Gives engines the first devices that no other engine of this pool has. `devices` None: nobody can tell."""

    def __init__(self, devices: Sequence[int | str] | None) -> None:
        self.devices = None if devices is None else tuple(map(str, devices))
        self._taken: set[str] = set()

    @property
    def free(self) -> tuple[str, ...] | None:
        if self.devices is None:
            return None
        return tuple(device for device in self.devices if device not in self._taken)

    def refusals(self, num_devices: int) -> list[Refusal]:
        """Why so many cannot be had; OUT_OF_MEMORY where they can once other engines have ended."""
        if self.devices is None or self.free is None or num_devices <= len(self.free):
            return []
        needs = f"the config needs {_counted(num_devices)}"
        if num_devices > len(self.devices):
            named = f" ({', '.join(self.devices)})" if self.devices else ""
            reason = f"{needs}, {len(self.devices) or 'none'} may be used here{named}. Lower the parallel split, or "
            return [Refusal(reason=f"{reason}spread it over machines with distributed_executor_backend ray")]
        reason = f"{needs}, {len(self.free)} of {len(self.devices)} are free beside the engines that run"
        return [Refusal(reason=reason, kind=FailureKind.OUT_OF_MEMORY)]

    @contextmanager
    def take(self, num_devices: int) -> Iterator[tuple[str, ...] | None]:
        """The first free ones, back in the pool at the end; None where nobody can tell which there are.

        Raises:
            EngineError: there are not so many free ones.
        """
        if refusals := self.refusals(num_devices):
            raise EngineError(refusals[0].reason, kind=refusals[0].kind)
        if self.free is None:
            yield None
            return
        mine = self.free[:num_devices]
        self._taken.update(mine)
        try:
            yield mine
        finally:
            self._taken.difference_update(mine)


def _counted(number: int) -> str:
    return f"{number} device{'' if number == 1 else 's'}"
