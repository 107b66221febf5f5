"""Shared fixtures: a made-up finished study, every odd case of one, and golden files."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import study_cases

from optimizer.results import StudyResult

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def study() -> StudyResult:
    return study_cases.study()


@pytest.fixture(params=sorted(study_cases.CASES))
def any_study(request: pytest.FixtureRequest) -> StudyResult:
    case: StudyResult = study_cases.CASES[request.param]()
    return case


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def is_golden() -> Callable[[str, str], None]:
    """Asserts that a text is the golden file's; UPDATE_GOLDEN=1 writes it instead."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert text == path.read_text(), f"{path.name} changed. Look at the difference, then UPDATE_GOLDEN=1 pytest"

    return compare
