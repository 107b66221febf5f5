"""Compiles `decoder.cpp` for this CPU once, keeps it in the user's cache and loads it. It does not know models."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path

import torch

_SOURCE, _HEADER = (Path(__file__).with_name(name) for name in ("decoder.cpp", "lanes.h"))
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-fno-math-errno")
_NEEDED = {"avx2", "fma", "f16c"}  # AVX-512 is used where it is
_COMPILE_TIMEOUT_S = 120


class UnavailableError(Exception):
    """Why there is no compiled decoder here."""


@functools.cache
def load_library(dtype: torch.dtype) -> ctypes.CDLL:
    """The library, compiled when this machine has not done so before.

    Raises:
        UnavailableError: another CPU or number format, no compiler, or a cache folder that cannot be written.
    """
    flags = _cpu_flags()
    if dtype not in (torch.float32, torch.bfloat16):
        raise UnavailableError(f"no compiled decoder for {dtype}")
    if not flags >= _NEEDED:
        raise UnavailableError(f"the CPU lacks {', '.join(sorted(_NEEDED - flags))}")
    return _load(_compiled(" ".join(sorted(flags))))


def _cpu_flags() -> frozenset[str]:
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(found[1].split()) if found else frozenset()


@functools.cache
def _compiled(cpu: str) -> Path:
    compiler = os.environ.get("CXX", "g++")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fireoptimizer"
    try:
        version = _run([compiler, "--version"])
        key = hashlib.sha256(
            "\n".join((_SOURCE.read_text(), _HEADER.read_text(), version, cpu, *_FLAGS)).encode()
        ).hexdigest()[:16]
        path = folder / f"decoder-{key}.so"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _compile(compiler, path)
        return path
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(f"decoder.cpp cannot be compiled: {_said(error)}") from None


def _compile(compiler: str, path: Path) -> None:
    """Two steps, so that the library brings no OpenMP runtime of its own: it shares torch's threads."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        compiled, linked = Path(folder) / "decoder.o", Path(folder) / path.name
        _run([compiler, *_FLAGS, "-fopenmp", "-c", str(_SOURCE), "-o", str(compiled)])
        _run([compiler, "-shared", str(compiled), "-o", str(linked)])
        linked.replace(path)


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S).stdout


def _said(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return next((line for line in error.stderr.splitlines() if "error" in line), f"exit status {error.returncode}")
    return str(error)


@functools.cache
def _load(path: Path) -> ctypes.CDLL:
    maps = Path("/proc/self/maps").read_text()
    runtime = re.search(r"(/\S*libgomp\S*)", maps)  # torch's own, loaded with it
    try:
        ctypes.CDLL(runtime[1] if runtime else "libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(f"{path.name} cannot be loaded: {error}") from None
    library.fused_new.restype = library.fused_new_heads.restype = ctypes.c_void_p
    return library
