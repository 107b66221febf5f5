"""One more try on a port that was taken, with nothing of the first left."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.backend import EngineError, FailureKind
from engine.free_port_launch import on_a_port, url_of

HOST = "127.0.0.1"


class Starter:
    """Fails with each of the kinds in turn, then starts; remembers what happened."""

    def __init__(self, *faults: FailureKind) -> None:
        self.faults = list(faults)
        self.events: list[str] = []
        self.ports: list[int] = []

    def __call__(self, stack: ExitStack, port: int) -> str:
        self.ports.append(port)
        name = f"server {len(self.ports)}"
        self.events.append(f"open {name}")
        stack.callback(lambda: self.events.append(f"close {name}"))
        if self.faults:
            raise EngineError("no", kind=self.faults.pop(0))
        return name


def launched(starter: Starter, port: int | None = None) -> str:
    with on_a_port(starter, host=HOST, port=port, log_path=Path("engine.log")) as server:
        starter.events.append("serving")
        return server


def test_a_launch_that_works_is_closed_at_the_end() -> None:
    starter = Starter()
    assert launched(starter) == "server 1"
    assert starter.events == ["open server 1", "serving", "close server 1"]


def test_a_port_taken_meanwhile_is_tried_once_more_after_the_first_try_is_closed() -> None:
    starter = Starter(FailureKind.PORT)
    assert launched(starter) == "server 2"
    assert starter.events == ["open server 1", "close server 1", "open server 2", "serving", "close server 2"]


def test_twice_is_no_bad_luck_any_more() -> None:
    starter = Starter(FailureKind.PORT, FailureKind.PORT)
    with pytest.raises(EngineError) as caught:
        launched(starter)
    assert caught.value.kind is FailureKind.PORT
    assert starter.events == ["open server 1", "close server 1", "open server 2", "close server 2"]


def test_another_failure_is_not_tried_again() -> None:
    starter = Starter(FailureKind.OUT_OF_MEMORY)
    with pytest.raises(EngineError) as caught:
        launched(starter)
    assert caught.value.kind is FailureKind.OUT_OF_MEMORY
    assert starter.events == ["open server 1", "close server 1"]


def test_a_port_that_was_asked_for_is_the_only_one_tried() -> None:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port = listener.getsockname()[1]
    starter = Starter(FailureKind.PORT)
    with pytest.raises(EngineError):
        launched(starter, port)
    assert starter.ports == [port]


def test_a_port_in_use_is_said_before_anything_starts() -> None:
    starter = Starter()
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(EngineError, match=rf"port {port} on {HOST} is in use") as caught:
            launched(starter, port)
    assert caught.value.kind is FailureKind.PORT
    assert starter.events == []


def test_what_fails_while_it_serves_is_neither_tried_again_nor_left() -> None:
    starter = Starter()
    with (
        pytest.raises(EngineError),
        on_a_port(starter, host=HOST, port=None, log_path=Path("engine.log")),
    ):
        raise EngineError("port", kind=FailureKind.PORT)
    assert starter.events == ["open server 1", "close server 1"]


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert url_of("::1", 80) == "http://[::1]:80"
    assert url_of(HOST, 80) == "http://127.0.0.1:80"
