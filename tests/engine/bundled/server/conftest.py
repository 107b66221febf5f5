"""Servers around the fake engine."""

from collections.abc import Iterator

import pytest
from fake_engine import FakeEngine
from served import Client, served


@pytest.fixture(scope="module")
def server() -> Iterator[Client]:
    """One for all tests of a module that do not break it."""
    with served(FakeEngine()) as client:
        yield client


@pytest.fixture(scope="module")
def speculating_server() -> Iterator[Client]:
    """Four tokens a step."""
    with served(FakeEngine(tokens_per_step=4)) as client:
        yield client
