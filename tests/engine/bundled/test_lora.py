"""LoRA adapters: every answer of a mixed batch is what the merged checkpoint says."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from random_adapters import save_adapter, save_merged
from safetensors.torch import load_file, save_file

from engine.bundled.errors import CheckpointError, RequestError, UnsupportedError
from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.bundled.lora.adapter_config import checked_adapter, load_adapter_config
from engine.bundled.model_config import load_model_config
from engine.bundled_backend import BundledBackend
from engine.config import EngineConfig

GREEDY = SamplingParams(max_tokens=16, temperature=0.0)
MakeEngine = Callable[..., LLMEngine]
Said = dict[str | None, list[list[int]]]


@pytest.fixture(scope="module")
def adapters(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three that differ in what they change, and how."""
    root = tmp_path_factory.mktemp("adapters")
    made = {
        "all": save_adapter(root / "all", llama, seed=1),
        "queries": save_adapter(
            root / "queries", llama, seed=2, target_modules=["q_proj", "v_proj"], use_rslora=True, size=0.6
        ),
        "uneven": save_adapter(
            root / "uneven", llama, seed=3, target_modules="all-linear", layers_to_transform=[0, 2],
            rank_pattern={"down_proj": 8}, alpha_pattern={r"layers\.0\.mlp\.up_proj": 16},
        ),
    }  # fmt: skip
    return {name: str(folder) for name, folder in made.items()}


@pytest.fixture(scope="module")
def merged(
    make_engine: MakeEngine,
    llama: Path,
    adapters: dict[str, str],
    prompts: list[list[int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Said:
    """What the base and each merged checkpoint say, one model at a time."""
    root = tmp_path_factory.mktemp("merged")
    folders = {None: llama} | {n: save_merged(root / n, llama, Path(folder)) for n, folder in adapters.items()}
    return {name: make_engine(model=str(folder)).generate(prompts, GREEDY) for name, folder in folders.items()}


def mixed(engine: LLMEngine, prompts: list[list[int]], adapters: list[str | None]) -> Said:
    """All prompts for all adapters at once, added in turn."""
    for number, prompt in enumerate(prompts):
        for adapter in adapters:
            engine.add_request(f"{adapter}-{number}", prompt, GREEDY, adapter=adapter)
    said: dict[str, list[int]] = {f"{a}-{n}": [] for a in adapters for n in range(len(prompts))}
    while engine.has_unfinished():
        for output in engine.step():
            said[output.request_id] += output.token_ids
    return {adapter: [said[f"{adapter}-{n}"] for n in range(len(prompts))] for adapter in adapters}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"enforce_eager": True},
        {"num_threads": 2},
        {"max_num_batched_tokens": 16, "max_num_seqs": 3},
        {"enable_prefix_caching": False, "max_loras": 1},
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}},
        {"speculative_config": {"method": "suffix", "num_speculative_tokens": "auto"}},
        {"speculative_config": {"method": "draft_model", "num_speculative_tokens": 3}},
        {"speculative_config": {"method": "medusa", "num_speculative_tokens": 3}},
        {"speculative_config": {"method": "eagle", "num_speculative_tokens": 3}},
        {"speculative_config": {"method": "medusa", "num_speculative_tokens": 3, "tree_nodes": 9}},
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}, "enforce_eager": True},
        {"tensor_parallel_size": 2, "dtype": "float32"},
        {"tensor_parallel_size": 2, "speculative_config": {"method": "medusa", "num_speculative_tokens": 3}},
    ],
    ids=str,
)
def test_a_mixed_batch_says_what_each_merged_checkpoint_says(
    make_engine: MakeEngine,
    adapters: dict[str, str],
    merged: Said,
    prompts: list[list[int]],
    llama_draft: Path,
    medusa_heads: Path,
    eagle_head: Path,
    fields: dict[str, Any],
) -> None:
    speculation = dict(fields.get("speculative_config", {}))
    folders = {"draft_model": llama_draft, "medusa": medusa_heads, "eagle": eagle_head}
    if speculation.get("method") in folders:
        speculation["model"] = str(folders[speculation["method"]])
    own = fields | ({"speculative_config": speculation} if speculation else {})
    assert len({str(answers) for answers in merged.values()}) == 4, "the adapters say different things"
    with closing(make_engine(**({"lora_modules": adapters, "max_loras": 3} | own))) as engine:
        assert mixed(engine, prompts, [None, *adapters]) == merged
        engine.block_manager.check_integrity([])
        assert mixed(engine, prompts, [*adapters, None]) == merged  # over shared prefixes


@pytest.mark.parametrize("enforce_eager", [False, True])
def test_adapters_lie_over_quantized_weights(
    make_engine: MakeEngine, adapters: dict[str, str], prompts: list[list[int]], enforce_eager: bool
) -> None:
    config = {"quantization": {"weights": "int8"}, "enforce_eager": enforce_eager}
    plain = make_engine(**config).generate(prompts, GREEDY)
    said = mixed(make_engine(**config, lora_modules=adapters, max_loras=3), prompts, [None, *adapters])
    assert said[None] == plain
    assert len({str(answers) for answers in said.values()}) == 4


def test_no_step_holds_more_adapters_than_allowed(
    make_engine: MakeEngine, adapters: dict[str, str], prompts: list[list[int]]
) -> None:
    engine = make_engine(lora_modules=adapters, max_loras=2, max_num_seqs=6)
    for number, prompt in enumerate(prompts):
        for name in adapters:
            engine.add_request(f"{name}-{number}", prompt, GREEDY, adapter=name)
    most = 0
    while engine.has_unfinished():
        engine.step()
        most = max(most, len({s.adapter for s in engine.scheduler.running if s.adapter >= 0}))
    assert most == 2


def test_an_unknown_adapter_is_refused(make_engine: MakeEngine, adapters: dict[str, str]) -> None:
    engine = make_engine(lora_modules=adapters)
    with pytest.raises(RequestError, match=r"no adapter 'other'. Known: all, queries, uneven"):
        engine.add_request("r", [1], GREEDY, adapter="other")


def _drop(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop(min(tensors))
    save_file(tensors, folder / "adapter_model.safetensors")


def _add(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(tensors | {"base_model.model.lm_head.lora_A.weight": torch.ones(1)}, folder / "adapter_model.safetensors")


def _widen(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    name = min(tensors)
    save_file(tensors | {name: torch.ones(4, 7)}, folder / "adapter_model.safetensors")


def _change(**fields: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_drop, "is missing. Check that the adapter is complete"),
        (_add, "1 tensors have no place in this model, e.g. base_model.model.lm_head"),
        (_widen, "The adapter is another model's"),
        (_change(r=32), "rank 32 is more than max_lora_rank 16"),
        (_change(use_dora=True), "adapter_config.json: use_dora is not served"),
        (_change(modules_to_save=["lm_head"]), "adapter_config.json: modules_to_save is not served"),
        (_change(target_parameters=["w"]), "adapter_config.json: target_parameters is not served"),
        (_change(init_lora_weights="pissa_niter_4"), "init_lora_weights 'pissa_niter_4' changes the base model's"),
        (_change(bias="all"), "bias 'all' is not served"),
        (_change(peft_type="IA3"), "peft_type is IA3. Only LORA is served"),
        (_change(target_modules=["router"]), "adapter_config.json: target_modules names router, which is in no layer"),
        (_change(target_modules=["q_proj", "lm_head"]), "target_modules names lm_head. Served are q_proj"),
        (_change(target_modules=".*(q_proj|embed_tokens)"), "target_modules names model.embed_tokens. Served are"),
        (
            _change(layers_to_transform=[9]),
            "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj, which is in no",
        ),
        (_change(lora_alpha=None), "lacks r or lora_alpha"),
        (_change(lora_alpha="nan"), "are not a whole and a finite number"),
        (_change(r=4.5), "are not a whole and a finite number"),
        (_change(alora_invocation_tokens=[5]), "alora_invocation_tokens is not served"),
        (_change(target_modules="(q_proj"), "a value of the wrong kind"),
        (_change(target_modules=5), "a value of the wrong kind"),
        (_change(rank_pattern=["q_proj"]), "a value of the wrong kind"),
        (_change(layers_to_transform="all"), "a value of the wrong kind"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "holds no *.safetensors file"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x"), "is no safetensors file"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json"),
    ],
    ids=[
        "missing",
        "extra",
        "shape",
        "rank",
        "dora",
        "saved",
        "parameters",
        "pissa",
        "bias",
        "kind",
        "target",
        "head",
        "embeddings",
        "layer",
        "alpha",
        "nan",
        "half",
        "alora",
        "regex",
        "number",
        "list",
        "all",
        "none",
        "cut",
        "config",
    ],
)
def test_bad_folders_are_refused_before_and_at_the_launch(
    llama: Path, tmp_path: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    base = shutil.copytree(llama, tmp_path / "base")
    (base / "tokenizer.json").touch()
    folder = save_adapter(tmp_path / "adapter", llama, seed=5)
    spoil(folder)
    config = EngineConfig(model=str(base), lora_modules={"mine": str(folder)})
    with pytest.raises((CheckpointError, UnsupportedError)) as raised:
        checked_adapter(folder, load_model_config(llama), max_rank=16)
    assert sentence in str(raised.value)
    with pytest.raises((CheckpointError, UnsupportedError)):
        LLMEngine(config, device="cpu")
    assert any(sentence in refusal.reason for refusal in BundledBackend().check(config))


def test_patterns_are_read_as_peft_reads_them(llama: Path, adapters: dict[str, str]) -> None:
    config = load_adapter_config(Path(adapters["uneven"]), load_model_config(llama))
    assert config.rank_of("model.layers.2.mlp.down_proj") == 8
    assert config.scale_of("model.layers.2.mlp.down_proj") == 8 / 8
    assert config.scale_of("model.layers.0.mlp.up_proj") == 16 / 4
    assert config.scale_of("model.layers.2.mlp.up_proj") == 8 / 4
    stabilized = load_adapter_config(Path(adapters["queries"]), load_model_config(llama))
    assert stabilized.scale_of("model.layers.0.self_attn.q_proj") == 8 / 2
