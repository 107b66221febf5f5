"""Servers that somebody else runs: measured like any other, never stopped, and wrong addresses said in a sentence."""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from backend_contract import ServerContract

from engine.backend import EngineError, FailureKind, Server
from engine.bundled_backend import BundledBackend
from engine.config import Disaggregation, EngineConfig
from engine.endpoint_backend import EndpointBackend
from engine.process import ChildProcess, free_port

PLAIN = Path(__file__).resolve().parent / "plain_server.py"


def at(url: str, **arguments: str) -> EngineConfig:
    return EngineConfig.model_validate(
        {"model": "whatever", "engine": "endpoint", "engine_args": {"url": url, **arguments}}
    )


@pytest.fixture(scope="module")
def running(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log_path = tmp_path_factory.mktemp("running") / "engine.log"
    with BundledBackend(launch_timeout_s=280).launch(
        EngineConfig(model=str(tiny_model), num_threads=1), log_path=log_path
    ) as server:
        yield server


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A plain OpenAI server that wants a key."""
    monkeypatch.setenv("PLAIN_KEY", "secret")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with ChildProcess([sys.executable, str(PLAIN), str(port)], log_path=tmp_path / "plain.log") as child:
        child.wait_healthy(lambda: EndpointBackend().check(at(url, api_key_env="PLAIN_KEY")) == [], timeout_s=60)
        yield url


class TestEndpointBackend(ServerContract):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, running: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        config = at(running.base_url + "/v1/")
        log_path = tmp_path_factory.mktemp("endpoint") / "engine.log"
        assert EndpointBackend().check(config) == []
        with EndpointBackend().launch(config, log_path=log_path) as server:
            yield server
        running.check_alive()  # it was not ours to stop
        with urllib.request.urlopen(running.base_url + "/health", timeout=5) as answer:
            assert answer.status == 200

    def test_a_reader_is_told_that_it_ran_already(self, server: Server) -> None:
        assert "was running already" in server.notes[0]
        assert server.steps() is not None  # ours has them
        assert not server.reconfigure(at("http://x"))


def test_a_key_is_sent_and_never_written_down(plain: str, tmp_path: Path) -> None:
    config = at(plain, api_key_env="PLAIN_KEY", model_name="org/plain")
    log_path = tmp_path / "engine.log"
    with EndpointBackend().launch(config, log_path=log_path) as server:
        assert server.api_key == "secret"
        server.reset_prefix_cache()
        server.statistics()
        server.check_alive()
        assert len(server.notes) == 3
        assert "secret" not in log_path.read_text() + config.model_dump_json() + "".join(server.notes)


def refusal(config: EngineConfig) -> str:
    [found] = EndpointBackend().check(config)
    return found.reason


def test_a_wrong_key_a_wrong_model_and_a_variable_without_key_are_refused(
    plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "401" in refusal(at(plain))
    assert "it lists: org/plain" in refusal(at(plain, api_key_env="PLAIN_KEY", model_name="other"))
    monkeypatch.delenv("PLAIN_KEY")
    assert "PLAIN_KEY is empty" in refusal(at(plain, api_key_env="PLAIN_KEY"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "'' is no address of a server"),
        ("localhost:8000", "is no address of a server"),
        ("file:///etc/passwd", "is no address of a server"),
        ("http://user:pass@host", "holds a name or a password"),
    ],
)
def test_what_is_no_address_is_refused(url: str, words: str) -> None:
    assert words in refusal(at(url))


def test_a_server_that_is_not_there_is_refused_and_one_that_left_has_died(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    assert "Is the server running?" in refusal(at(url))
    with ChildProcess([sys.executable, str(PLAIN), str(port)], log_path=tmp_path / "plain.log") as child:
        child.wait_healthy(lambda: EndpointBackend().check(at(url)) == [], timeout_s=60)
        with EndpointBackend().launch(at(url), log_path=tmp_path / "engine.log") as server:
            child.process.kill()
            child.process.wait()
            with pytest.raises(EngineError, match="does not answer any more") as caught:
                server.check_alive()
            assert caught.value.kind is FailureKind.DIED
            with pytest.raises(EngineError):
                server.statistics()


def test_what_would_change_a_running_server_is_refused() -> None:
    config = at("http://127.0.0.1:1").model_copy(update={"max_num_seqs": 8})
    assert "cannot be changed from outside" in refusal(config)
    apart = Disaggregation(prefill_instances=1, decode_instances=1)
    told = refusal(at("http://127.0.0.1:1").model_copy(update={"disaggregation": apart}))
    assert "disaggregation.prefill_instances: a running server cannot be changed" in told
    assert "engine_args.x" in refusal(at("http://127.0.0.1:1", x="1"))
    launch = EndpointBackend().launch(at("http://127.0.0.1:1"), log_path=Path("unused"), port=1)
    with pytest.raises(EngineError, match="has its port"), launch:
        pass


def test_importing_it_does_not_import_torch() -> None:
    program = "import sys, engine.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
