"""The bundled engine as a process: the contract, its own refusals, its failures and its end."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import openai
import psutil
import pyarrow.parquet as pq
import pytest
from backend_contract import BackendContract, post, stream
from test_process import wait_gone
from tiny_checkpoint import write_tiny_checkpoint

from engine.backend import Backend, EngineError, FailureKind
from engine.bundled_backend import BundledBackend
from engine.config import EngineConfig, SpeculativeConfig
from engine.process_server import ProcessServer
from engine.registry import BACKENDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def backend() -> Backend:
    return BundledBackend(launch_timeout_s=280)


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> EngineConfig:
    return EngineConfig(model=str(tiny_model), num_threads=1)


class TestBundledBackend(BackendContract):
    def test_the_official_client_completes_and_chats(self, server: ProcessServer) -> None:
        with openai.OpenAI(base_url=server.base_url + "/v1", api_key="none", timeout=60) as client:
            name = server.model_name
            assert [model.id for model in client.models.list()] == [name]
            done = client.completions.create(model=name, prompt="the quick", max_tokens=5, logprobs=2, temperature=0)
            assert done.usage is not None
            assert done.usage.prompt_tokens == 2
            parts = list(client.completions.create(model=name, prompt="the", max_tokens=5, stream=True, temperature=0))
            assert parts[-1].choices[0].finish_reason in ("stop", "length")
            messages = [{"role": "user", "content": "hi"}]
            chat = client.chat.completions.create(model=name, messages=messages, max_tokens=5, logprobs=True)
            assert chat.choices[0].message.role == "assistant"
            options = {"include_usage": True}
            chunks = list(
                client.chat.completions.create(
                    model=name, messages=messages, max_tokens=5, stream=True, stream_options=options
                )
            )
            assert chunks[0].choices[0].delta.role == "assistant"
            assert chunks[-1].usage is not None
            with pytest.raises(openai.BadRequestError, match="presence_penalty is not supported"):
                client.completions.create(model=name, prompt="a", presence_penalty=1)
            with pytest.raises(openai.NotFoundError):
                client.completions.create(model="other", prompt="a")

    def test_steps_are_told_as_parquet(self, server: ProcessServer) -> None:
        post(server, "/v1/completions", {"prompt": [5, 6], "max_tokens": 3, "ignore_eos": True})
        content = server.steps()
        assert content is not None
        assert pq.read_table(io.BytesIO(content)).num_rows >= 3

    def test_a_seed_draws_the_same_again(self, server: ProcessServer) -> None:
        body = {"prompt": [5, 6], "max_tokens": 16, "seed": 3, "ignore_eos": True, "return_token_ids": True}
        first, second = (post(server, "/v1/completions", body)["choices"][0]["token_ids"] for _ in range(2))
        assert first == second


def test_a_speculating_engine_sends_many_tokens_in_an_event_and_counts_them(
    tiny_model: Path, config: EngineConfig, backend: Backend, tmp_path: Path
) -> None:
    """The model drafts for itself, so that nearly every draft is accepted."""
    speculation = SpeculativeConfig(method="draft_model", num_speculative_tokens=3, model=str(tiny_model))
    speculating = config.model_copy(update={"speculative_config": speculation})
    assert backend.check(speculating) == []
    body = {"prompt": [5, 6, 7], "max_tokens": 24, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    with backend.launch(speculating, log_path=tmp_path / "engine.log") as server:
        lengths = [len(event["choices"][0]["token_ids"]) for event in stream(server, "/v1/completions", body)]
        statistics = server.statistics()
    assert sum(lengths) == 24
    assert max(lengths) == 4
    assert statistics.acceptance_length is not None
    assert statistics.acceptance_length > 2
    assert len(statistics.accepted_tokens_per_position) == 3


def answer_of(server: ProcessServer) -> list[int]:
    body = {"prompt": [5, 6, 7] * 8, "max_tokens": 24, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    token_ids: list[int] = post(server, "/v1/completions", body)["choices"][0]["token_ids"]
    return token_ids


def test_a_reconfigured_engine_serves_as_one_launched_with_that_config(config: EngineConfig, tmp_path: Path) -> None:
    ngram = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1}
    changes: list[dict[str, object]] = [
        {"quantization": {"weights": "int4_g32"}},
        {"quantization": {"weights": "int8", "activations": "int8", "kv_cache": "fp8"}, "dtype": "bfloat16"},
        {"speculative_config": ngram},
        {"max_model_len": 64, "max_num_seqs": 4, "enable_prefix_caching": False},
        {},
    ]
    configs = [EngineConfig.model_validate(config.model_dump(mode="json") | change) for change in changes]
    backend = BundledBackend(reconfigurable=True)
    with backend.launch(config, log_path=tmp_path / "warm.log") as server:
        plain = answer_of(server)
        warm = []
        for wanted in configs:
            assert server.reconfigure(wanted)
            warm.append(answer_of(server))
            assert server.statistics().generation_tokens == 24, "counters start again"
        with urllib.request.urlopen(server.base_url + "/v1/models", timeout=10) as answer:
            assert json.loads(answer.read())["data"][0]["max_model_len"] == 512
    assert warm[-1] == warm[-2] == warm[2] == plain
    assert warm[0] != plain
    for wanted, found in zip(configs[:2], warm, strict=False):
        with BundledBackend().launch(wanted, log_path=tmp_path / "cold.log") as server:
            assert answer_of(server) == found
            assert not server.reconfigure(config), "off unless started with it"


def test_what_cannot_be_reconfigured_leaves_the_engine_as_it_was(config: EngineConfig, tmp_path: Path) -> None:
    with BundledBackend(reconfigurable=True).launch(config, log_path=tmp_path / "engine.log") as server:
        before = answer_of(server)
        for change in (
            {"model": str(tmp_path)},
            {"kv_cache_memory_bytes": 1000},
            {"speculative_config": {"method": "eagle", "num_speculative_tokens": 2, "model": str(tmp_path)}},
        ):
            assert not server.reconfigure(EngineConfig.model_validate(config.model_dump(mode="json") | change))
            assert answer_of(server) == before


def test_an_adapter_cannot_take_the_models_name(config: EngineConfig, tmp_path: Path) -> None:
    named = config.model_copy(update={"lora_modules": {Path(config.model).name: str(tmp_path)}})
    with BundledBackend(reconfigurable=True).launch(config, log_path=tmp_path / "engine.log") as server:
        body = named.model_dump_json().encode()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(server.base_url + "/reconfigure", body, method="POST"))
        assert refused.value.code == 400
        assert "has the served model's name" in refused.value.read().decode()


def refusals(tiny_model: Path, **fields: object) -> list[tuple[FailureKind, str]]:
    config = EngineConfig.model_validate({"model": str(tiny_model), **fields})
    return [(refusal.kind, refusal.reason) for refusal in BundledBackend().check(config)]


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"engine": "vllm"}, FailureKind.REFUSED, "the config is for engine vllm"),
        ({"tensor_parallel_size": 3}, FailureKind.UNSUPPORTED, "tensor_parallel_size 3 does not divide the model"),
        ({"quantization": {"communication": "int8"}}, FailureKind.UNSUPPORTED, "without tensor_parallel_size above 1"),
        ({"pipeline_parallel_size": 2}, FailureKind.UNSUPPORTED, "has no pipeline_parallel_size 2"),
        (
            {"disaggregation": {"prefill_instances": 1, "decode_instances": 1}},
            FailureKind.UNSUPPORTED,
            "has no disaggregation: prefill and decode run in one process. Leave it out",
        ),
        ({"lora_modules": {"tiny": "b"}}, FailureKind.UNSUPPORTED, "the adapter 'tiny' has the model's name"),
        ({"lora_modules": {"a": "b"}}, FailureKind.BAD_CHECKPOINT, "the adapter a: adapter folder b does not exist"),
        ({"quantization": {"weights": "nvfp4"}}, FailureKind.UNSUPPORTED, "has no quantization.weights nvfp4"),
        ({"quantization": {"activations": "int8"}}, FailureKind.UNSUPPORTED, "Set quantization.weights to int8 too"),
        (
            {"quantization": {"overrides": {"model.layers.0.mlp.downproj": "int8"}}},
            FailureKind.UNSUPPORTED,
            "The nearest is model.layers.0.mlp.down_proj",
        ),
        (
            {"quantization": {"overrides": {"*.o_proj": "int4_g128"}}},
            FailureKind.UNSUPPORTED,
            "weights int4_g128: groups of 128 do not divide this model's matrix widths (64)",
        ),
        ({"num_threads": 4096}, FailureKind.REFUSED, "num_threads 4096 is more than"),
        ({"max_model_len": 513}, FailureKind.REFUSED, "more than the checkpoint's 512 positions"),
        (
            {"enable_chunked_prefill": False, "max_num_batched_tokens": 128},
            FailureKind.REFUSED,
            "cannot hold a prompt of max_model_len 512",
        ),
        ({"quantization": {"weights": "int4_g128"}}, FailureKind.UNSUPPORTED, "groups of 128 do not divide"),
        ({"kv_cache_memory_bytes": 1000}, FailureKind.OUT_OF_MEMORY, "one sequence of max_model_len needs"),
        ({"kv_cache_memory_bytes": 10**15}, FailureKind.OUT_OF_MEMORY, "GiB is available"),
    ],
)
def test_a_config_that_cannot_run_is_refused_with_the_reason(
    tiny_model: Path, fields: dict[str, object], kind: FailureKind, words: str
) -> None:
    [(found, reason)] = refusals(tiny_model, **fields)
    assert found is kind
    assert words in reason


def test_medusa_heads_must_exist_fit_the_model_and_be_as_many_as_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "heads"

    def speculating(number: int) -> list[tuple[FailureKind, str]]:
        speculation = {"method": "medusa", "num_speculative_tokens": number, "model": str(folder)}
        return refusals(tiny_model, speculative_config=speculation)

    [(kind, reason)] = speculating(2)
    assert kind is FailureKind.BAD_CHECKPOINT
    assert reason.startswith("the heads: heads folder")
    shape = json.loads((tiny_model / "config.json").read_text())
    config = {"model_type": "medusa", "num_heads": 2, "hidden_size": 64, "vocab_size": shape["vocab_size"]}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    assert "no *.safetensors" in speculating(2)[0][1]
    (folder / "model.safetensors").touch()
    assert speculating(2) == []
    assert speculating(3)[0][1].endswith(f"{folder} has 2")
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    assert "belong to the model they were trained on" in speculating(2)[0][1]


def test_a_draft_must_exist_and_share_vocabulary_and_length(tiny_model: Path, tmp_path: Path) -> None:
    def speculating(folder: Path) -> list[tuple[FailureKind, str]]:
        speculation = {"method": "draft_model", "num_speculative_tokens": 2, "model": str(folder)}
        return refusals(tiny_model, speculative_config=speculation)

    [(kind, reason)] = speculating(tmp_path / "none")
    assert kind is FailureKind.BAD_CHECKPOINT
    assert reason.startswith("the draft: ")
    short = write_tiny_checkpoint(tmp_path / "short", max_positions=256)
    [(_, reason)] = speculating(short)
    assert "the draft has 256 positions" in reason
    other = write_tiny_checkpoint(tmp_path / "other")
    text = (other / "config.json").read_text()
    (other / "config.json").write_text(text.replace('"vocab_size": ', '"vocab_size": 1'))
    [(_, reason)] = speculating(other)
    assert "A draft must share the model's tokenizer" in reason


def test_a_folder_without_weights_or_tokenizer_is_a_bad_checkpoint(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "bare")
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer.json").unlink()
    found = refusals(folder)
    assert [kind for kind, _ in found] == [FailureKind.BAD_CHECKPOINT] * 2
    assert "no *.safetensors" in found[0][1]


def test_importing_the_backend_does_not_import_torch() -> None:
    program = "import sys, engine.registry; sys.exit(bool({'torch', 'uvicorn', 'starlette'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
    assert BACKENDS["bundled"]().name == "bundled"


def test_a_port_in_use_is_said_before_launching(tiny_model: Path, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        launch = BundledBackend().launch(EngineConfig(model=str(tiny_model)), log_path=tmp_path / "log", port=port)
        with pytest.raises(EngineError, match=rf"port {port} on 127.0.0.1 is in use") as caught, launch:
            pass
    assert caught.value.kind is FailureKind.PORT


def test_a_failed_start_keeps_the_engines_own_reason(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "broken")
    (folder / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    launch = BundledBackend().launch(EngineConfig(model=str(folder)), log_path=tmp_path / "engine.log")
    with pytest.raises(EngineError, match="architecture GPT2LMHeadModel is not supported") as caught, launch:
        pass
    assert caught.value.kind is FailureKind.BAD_CHECKPOINT
    assert "fopt: error: " in (tmp_path / "engine.log").read_text()


def test_an_engine_with_a_key_and_cpus_answers_its_own_backend(tiny_model: Path, tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    backend = BundledBackend(cpus=frozenset({cpu}), api_key="secret")
    with backend.launch(EngineConfig(model=str(tiny_model)), log_path=tmp_path / "engine.log") as server:
        assert psutil.Process(server.pid).cpu_affinity() == [cpu]
        assert server.statistics().prompt_tokens == 0
        assert "secret" not in " ".join(psutil.Process(server.pid).cmdline())
        os.kill(server.pid, signal.SIGTERM)
        assert server._child.process.wait(60) == 0


def test_no_engine_outlives_a_killed_parent(tiny_model: Path, tmp_path: Path) -> None:
    """Launched from a worker thread that ends at once: the engine belongs to the process, not to the thread."""
    program = (
        "import contextlib, threading, time\n"
        "from pathlib import Path\n"
        "from engine.bundled_backend import BundledBackend\n"
        "from engine.config import EngineConfig\n"
        "stack = contextlib.ExitStack()\n"
        f"launch = BundledBackend().launch(EngineConfig(model={str(tiny_model)!r}), log_path=Path('engine.log'))\n"
        "servers = []\n"
        "thread = threading.Thread(target=lambda: servers.append(stack.enter_context(launch)))\n"
        "thread.start()\n"
        "thread.join()\n"
        "time.sleep(0.3)\n"
        "servers[0].check_alive()\n"
        "print(servers[0].pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        engine = int(parent.stdout.readline())
        parent.kill()
    wait_gone(engine)
