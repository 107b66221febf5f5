"""What suffix decoding remembers of earlier answers is gone after a reset, or the reader is told that it is not."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from engine.backend import EngineError, FailureKind
from engine.command_backend import CommandBackend
from engine.config import EngineConfig
from engine.vllm_server.backend import VllmBackend, drafts_memory
from engine.vllm_server.drafts_memory import FORGETS, INSIDE, DraftsMemory
from engine.vllm_server.inside_vllm.fopt_forget_drafts import ForgetDrafts

FAKE = Path(__file__).with_name("fake_vllm.py")
SUFFIX = {"method": "suffix", "num_speculative_tokens": 8}
NGRAM = {"method": "ngram", "num_speculative_tokens": 4}


def config_of(model: Path | str, **fields: Any) -> EngineConfig:
    return EngineConfig.model_validate({"model": str(model), "engine": "vllm", **fields})


@pytest.mark.parametrize(
    ("fields", "memory"),
    [
        ({}, DraftsMemory.NONE),
        ({"speculative_config": NGRAM}, DraftsMemory.NONE),
        ({"speculative_config": SUFFIX}, DraftsMemory.CAN_BE_EMPTIED),
        ({"speculative_config": SUFFIX, "distributed_executor_backend": "mp"}, DraftsMemory.CAN_BE_EMPTIED),
        ({"speculative_config": SUFFIX, "distributed_executor_backend": "ray"}, DraftsMemory.STAYS),
        ({"speculative_config": SUFFIX, "engine_args": {"worker_extension_cls": "theirs.X"}}, DraftsMemory.STAYS),
    ],
)
def test_only_suffix_decoding_remembers_answers(fields: dict[str, Any], memory: DraftsMemory) -> None:
    assert drafts_memory(config_of("m", **fields)) is memory


def test_a_reset_empties_what_suffix_decoding_remembers(fake_python: Path, tiny_model: Path, tmp_path: Path) -> None:
    backend = VllmBackend(python=fake_python, cache=tmp_path, launch_timeout_s=60)
    log = tmp_path / "engine.log"
    with backend.launch(config_of(tiny_model, speculative_config=SUFFIX), log_path=log) as server:
        assert log.read_text().count("drafter first") == 1
        server.reset_prefix_cache()
        server.reset_prefix_cache()
        assert log.read_text().count("drafter config") == 2, "made anew from its worker's config each time"
        assert server.notes == ()
    assert "worker-extension-cls" not in yaml.safe_load((tmp_path / "engine.yaml").read_text()), "of this launch alone"


def test_a_vllm_that_cannot_forget_is_not_measured(
    fake_python: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "no_rpc")
    backend = VllmBackend(python=fake_python, cache=tmp_path, launch_timeout_s=60)
    config = config_of(tiny_model, speculative_config=SUFFIX)
    with (
        backend.launch(config, log_path=tmp_path / "engine.log") as server,
        pytest.raises(EngineError, match=r"cannot be made to forget .*404.* Leave suffix decoding out") as caught,
    ):
        server.reset_prefix_cache()
    assert caught.value.kind is FailureKind.UNSUPPORTED


def test_a_memory_that_stays_is_noted_and_nothing_is_called(
    fake_python: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "no_rpc")
    backend = VllmBackend(python=fake_python, cache=tmp_path, launch_timeout_s=60)
    config = config_of(tiny_model, speculative_config=SUFFIX, distributed_executor_backend="ray")
    with backend.launch(config, log_path=tmp_path / "engine.log") as server:
        server.reset_prefix_cache()
        assert "drafted from its own answers" in server.notes[0]


DEVELOPMENT = {"VLLM_SERVER_DEV_MODE": "1"}


@pytest.mark.parametrize(
    ("speculation", "environment", "flags", "words"),
    [
        (SUFFIX, {**DEVELOPMENT, "PYTHONPATH": str(INSIDE)}, ("--worker-extension-cls", FORGETS), []),
        (SUFFIX, DEVELOPMENT, (), ["To have it emptied start the server with --worker-extension-cls"]),
        (SUFFIX, {}, (), ["no call that empties its prefix cache", "does not say from what"]),
        (NGRAM, DEVELOPMENT, (), []),
        (None, {}, (), ["no call that empties its prefix cache"]),
    ],
    ids=["can forget", "cannot forget", "does not say", "no memory", "no drafts"],
)
def test_a_vllm_behind_a_command_forgets_where_it_can_else_a_note_says_so(
    speculation: dict[str, Any] | None,
    environment: dict[str, str],
    flags: tuple[str, ...],
    words: list[str],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    options = {"model": str(tiny_model), **({"speculative-config": speculation} if speculation else {})}
    (tmp_path / "vllm.yaml").write_text(yaml.safe_dump(options))
    served = ["--config", str(tmp_path / "vllm.yaml"), "--host", "{host}", "--port", "{port}"]
    command = [sys.executable, str(FAKE), "-c", "", "serve", *served, "--served-model-name", "{model_name}", *flags]
    launch = {"command": command, "environment": environment, "timeout_s": 60}
    config = EngineConfig.model_validate({"model": str(tiny_model), "engine": "command", "launch": launch})
    log = tmp_path / "engine.log"
    with CommandBackend().launch(config, log_path=log) as server:
        server.reset_prefix_cache()
        server.reset_prefix_cache()
        assert log.read_text().count("drafter config") == (2 if flags else 0)
        assert len(server.notes) == len(words), "each is said once"
        assert all(word in note for word, note in zip(words, server.notes, strict=True))


def test_serving_gets_neither_the_call_nor_its_folder(fake_python: Path, tiny_model: Path, tmp_path: Path) -> None:
    backend = VllmBackend(python=fake_python, cache=tmp_path)
    config = config_of(tiny_model, speculative_config=SUFFIX)
    command = backend.command(config, tmp_path / "vllm.yaml", host="127.0.0.1", port=8000)
    assert "--worker-extension-cls" not in command
    path = backend.variables(config, tmp_path, with_resets=False)["PYTHONPATH"]
    assert "inside_vllm" not in path
    assert "inside_vllm" in backend.variables(config, tmp_path)["PYTHONPATH"]


def test_a_rank_that_drafts_nothing_says_so() -> None:
    worker = ForgetDrafts()
    worker.model_runner = SimpleNamespace(vllm_config=None)
    assert worker.fopt_forget_drafts() == "none"


def test_the_call_lies_alone_in_its_folder() -> None:
    names = {path.stem for path in INSIDE.glob("*.py")} - {"__init__"}
    assert names == {FORGETS.split(".")[0]}
    assert not names & sys.stdlib_module_names, "nothing of vLLM's is hidden"
