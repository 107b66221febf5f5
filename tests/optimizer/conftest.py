"""A fake engine for every optimizer test that needs one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fakes.fake_server import FakeServer
from fakes.serving import UNPINNED, Serve

from optimizer.client import Client


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts fake servers that end with the test."""
    with ExitStack() as stack:
        yield lambda behaviour: stack.enter_context(FakeServer(behaviour, log_path=tmp_path / "fake.log"))


@pytest.fixture
def client_of() -> Callable[..., Client]:
    """A client; tests of a hang make it impatient."""
    return lambda server, hang_s=20.0: Client(server=server, placement=UNPINNED, hang_s=hang_s)


@pytest.fixture
def never_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """No replay is void: on a busy machine the load generator is late against a fake that answers in milliseconds."""
    monkeypatch.setattr("workloads.replay.outcome.void_reason", lambda *_: None)
