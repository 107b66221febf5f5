"""Adapters over HTTP: a chat completion names one, and `/reconfigure` brings, keeps and takes them."""

import importlib.util
import json
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType

import pytest
from backend_contract import post

from engine.bundled_backend import BundledBackend
from engine.config import EngineConfig
from engine.process_server import ProcessServer


def random_adapters() -> ModuleType:
    """The engine's own tests' helper."""
    path = Path(__file__).parent / "bundled" / "random_adapters.py"
    spec = importlib.util.spec_from_file_location("random_adapters", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def said(server: ProcessServer, model: str) -> str:
    messages = [{"role": "user", "content": "the quick brown fox"}]
    body = {"model": model, "messages": messages, "max_tokens": 16, "temperature": 0, "ignore_eos": True}
    text: str = post(server, "/v1/chat/completions", body)["choices"][0]["message"]["content"]
    return text


def test_a_chat_naming_an_adapter_is_answered_by_it_whatever_the_engine_is_reconfigured_to(
    tiny_model: Path, tmp_path: Path
) -> None:
    made = random_adapters()
    folders = {name: made.save_adapter(tmp_path / name, tiny_model, seed=seed) for name, seed in (("a", 1), ("b", 2))}
    plain = EngineConfig(model=str(tiny_model), num_threads=1)
    with BundledBackend().launch(
        plain.model_copy(update={"model": str(made.save_merged(tmp_path / "merged", tiny_model, folders["a"]))}),
        log_path=tmp_path / "merged.log",
    ) as server:
        merged = said(server, "merged")
    ngram = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1}
    only_a, both = {"a": str(folders["a"])}, {name: str(folder) for name, folder in folders.items()}
    changes: list[dict[str, object]] = [
        {"lora_modules": only_a},
        {"lora_modules": {"b": both["b"], "a": both["a"]}, "max_loras": 2},
        {"lora_modules": both, "speculative_config": ngram},
        {"lora_modules": only_a, "enforce_eager": True},
    ]
    with BundledBackend(reconfigurable=True).launch(plain, log_path=tmp_path / "warm.log") as server:
        base = said(server, tiny_model.name)
        assert base != merged
        for change in changes:
            assert server.reconfigure(EngineConfig.model_validate(plain.model_dump(mode="json") | change))
            assert said(server, "a") == merged
            assert said(server, tiny_model.name) == base
        body = {"model": plain.model, "lora_modules": {"a": both["b"]}}
        twice = json.dumps(body).replace('"a"', f'"a": "{both["a"]}", "a"').encode()
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(urllib.request.Request(f"{server.base_url}/reconfigure", twice), timeout=60)
        assert "the key 'a' is given twice" in refusal.value.read().decode()
        assert said(server, "a") == merged, "nothing has changed"
        assert server.reconfigure(plain)
        assert said(server, tiny_model.name) == base
        with pytest.raises(urllib.error.HTTPError, match="404"):
            said(server, "a")
