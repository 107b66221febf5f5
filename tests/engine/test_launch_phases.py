"""What a log's last words say about a start: lines as real servers write them."""

from pathlib import Path

import pytest

from engine.launch_phases import launch_phase, note_for_reader

VLLM = [
    (
        "(APIServer pid=1) INFO 11-25 22:44:19 [model.py:733] Resolved architecture: LlamaForCausalLM",
        "starting the engine",
    ),
    (
        "(Worker pid=3) INFO 11-25 22:44:31 [cpu_model_runner.py:68] Starting to load model /models/target...",
        "loading weights",
    ),
    ("Loading safetensors checkpoint shards:  45% Completed | 9/20 [00:04<00:05, 2.1it/s]", "loading weights 45%"),
    ("(Worker pid=3) INFO 11-25 22:44:32 [cpu_model_runner.py:75] Loading drafter model...", "loading the draft"),
    (
        "(Worker pid=3) INFO 11-25 22:44:40 [backends.py:650] Dynamo bytecode transform time: 4.21 s",
        "compiling",
    ),
    (
        "(EngineCore pid=2) INFO 11-25 22:44:32 [kv_cache_utils.py:2327] GPU KV cache size: 87,360 tokens",
        "laying out the KV cache",
    ),
    ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  60%|██████    | 40/67", "capturing graphs 60%"),
    (
        "(APIServer pid=1) INFO 11-25 22:44:33 [entry.py:140] Starting vLLM server on http://127.0.0.1:50233",
        "waiting for health",
    ),
]


@pytest.mark.parametrize(("line", "phase"), VLLM)
def test_each_phase_of_vllm_is_known(line: str, phase: str) -> None:
    assert launch_phase([line, "", "something else"]) == phase


def test_the_last_phase_counts() -> None:
    assert launch_phase([line for line, _ in VLLM]) == "waiting for health"


def test_nothing_known_is_nothing_said() -> None:
    assert launch_phase([]) is None
    assert launch_phase(["W1125 Triton not available", "hello"]) is None


@pytest.mark.parametrize(
    "line",
    [
        "(APIServer pid=1) WARNING 11-25 22:44:19 [vllm.py:1703] Enforce eager set, disabling torch.compile took",
        "(APIServer pid=1) INFO 11-25 22:44:19 [compiling.py:317] Enabled custom fusions: norm_quant, act_quant",
    ],
)
def test_what_is_off_and_names_of_files_are_no_phase(line: str) -> None:
    assert launch_phase([line]) is None


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("llama_model_loader: llama_model_load from file model.gguf", "loading weights"),
        ("load_tensors: offloading 32 repeating layers to GPU", "loading weights"),
        ("main: server is listening on http://127.0.0.1:8080", "waiting for health"),
        ("[2026-11-25 10:00:00] Load weight begin. avail mem=78.50 GB", "loading weights"),
        ("[2026-11-25 10:00:09] KV Cache is allocated. #tokens: 400000", "laying out the KV cache"),
        ("[2026-11-25 10:00:20] The server is fired up and ready to roll!", "waiting for health"),
    ],
)
def test_other_servers_say_much_the_same(line: str, phase: str) -> None:
    assert launch_phase([line]) == phase


def test_what_we_say_ourselves_is_taken_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "trials" / "engine.log"
    note_for_reader(log, "quantized checkpoint: GPTQ")
    note_for_reader(log, "quantized checkpoint: writing")
    assert launch_phase(log.read_text().splitlines()) == "quantized checkpoint: writing"
