"""An adapter changes the layers that PEFT would change, by as much: its answers are those of merged weights.

Modules, ranks and scales are those of the layers that peft 0.21 wraps on this model for the config (compared once).
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from random_adapters import save_merged, save_tensors

from engine.bundled.llm_engine import LLMEngine, SamplingParams

GREEDY = SamplingParams(max_tokens=12, temperature=0.0)
Parts = dict[str, tuple[int, float]]  # module to rank and scale


def _parts(*modules: str, rank: int = 4, scale: float = 2.0) -> Parts:
    return {f"model.layers.{module}": (rank, scale) for module in modules}


QUERIES = _parts("0.self_attn.q_proj", "1.self_attn.q_proj", "2.self_attn.q_proj")
QUERY_1 = _parts("1.self_attn.q_proj")
CASES: dict[str, tuple[dict[str, object], Parts]] = {
    "a layer": ({"layers_to_transform": [1]}, QUERY_1),
    "a number": ({"layers_to_transform": 1}, QUERY_1),
    "no layers": ({"layers_to_transform": []}, QUERIES),
    "layers beyond": ({"layers_to_transform": [1, 9]}, QUERY_1),
    "pattern": ({"layers_to_transform": 1, "layers_pattern": "layers"}, QUERY_1),
    "longer pattern": ({"layers_to_transform": [1], "layers_pattern": "model.layers"}, QUERY_1),
    "patterns": ({"layers_to_transform": [1], "layers_pattern": ["h", "layers"]}, QUERY_1),
    "pattern regex": ({"layers_to_transform": [1], "layers_pattern": "lay.*"}, QUERY_1),
    "full name": (
        {"target_modules": ["model.layers.1.self_attn.q_proj", "v_proj"], "layers_to_transform": [0]},
        QUERY_1 | _parts("0.self_attn.v_proj"),
    ),
    "part of a name": ({"target_modules": ["layers.2.mlp.down_proj"]}, _parts("2.mlp.down_proj")),
    "a name that is not there": ({"target_modules": ["q_proj", "c_attn", "layers.77.mlp.up_proj"]}, QUERIES),
    "regex": (
        {"target_modules": r".*\.1\..*(q|v)_proj"},
        _parts("1.self_attn.q_proj", "1.self_attn.v_proj"),
    ),
    "excluded": ({"exclude_modules": ["layers.0.self_attn.q_proj", "layers.2.self_attn.q_proj"]}, QUERY_1),
    "excluded by regex": ({"exclude_modules": r".*\.[02]\..*"}, QUERY_1),
    "head excluded": ({"target_modules": ".*(q_proj|lm_head)", "exclude_modules": ["lm_head"]}, QUERIES),
    "rank and alpha": (
        {
            "target_modules": ["q_proj", "mlp.up_proj"],
            "layers_to_transform": [0, 1],
            "rank_pattern": {"up_proj": 8, "down_proj": 128},
            "alpha_pattern": {r"layers\.0\.mlp\.up_proj": 16, "^model.layers.1.self_attn.q_proj": 2},
        },
        _parts("0.self_attn.q_proj")
        | _parts("1.self_attn.q_proj", scale=2 / 4)
        | _parts("0.mlp.up_proj", rank=8, scale=16 / 8)
        | _parts("1.mlp.up_proj", rank=8, scale=8 / 8),
    ),
    "rank stabilized": (
        {"layers_to_transform": [1], "use_rslora": True, "rank_pattern": {"q_proj": 9}},
        _parts("1.self_attn.q_proj", rank=9, scale=8 / 3),
    ),
    "other start": ({"init_lora_weights": "orthogonal"}, QUERIES),
}


@pytest.mark.parametrize(("fields", "parts"), CASES.values(), ids=CASES.keys())
def test_an_adapter_says_what_peft_would_merge(
    make_engine: Callable[..., LLMEngine],
    llama: Path,
    tmp_path: Path,
    prompts: list[list[int]],
    fields: dict[str, object],
    parts: Parts,
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]} | fields
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_tensors(folder, llama, {module: rank for module, (rank, _) in parts.items()}, seed=7, size=1.0)
    merged = save_merged(tmp_path / "merged", llama, folder, {module: scale for module, (_, scale) in parts.items()})
    expected = make_engine(model=str(merged)).generate(prompts, GREEDY)
    engine = make_engine(lora_modules={"mine": str(folder)})
    assert engine.generate(prompts, GREEDY) != expected, "the adapter says something else than the base"
    for number, prompt in enumerate(prompts):
        engine.add_request(str(number), prompt, GREEDY, adapter="mine")
    said: dict[str, list[int]] = {str(number): [] for number in range(len(prompts))}
    while engine.has_unfinished():
        for output in engine.step():
            said[output.request_id] += output.token_ids
    assert list(said.values()) == expected
