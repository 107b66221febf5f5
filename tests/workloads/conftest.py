"""Fixtures of the workload tests."""

from collections.abc import Iterator

import pytest
from mock_server import MockServer


@pytest.fixture
def server() -> Iterator[MockServer]:
    """A healthy mock OpenAI server."""
    mock = MockServer()
    mock.start()
    yield mock
    mock.stop()
