"""`--lora-modules`: adapters in every candidate, in best.yaml with their hashes, and bad ones in a sentence."""

import json
from pathlib import Path

import pytest

from engine.config import EngineConfig
from optimizer.cli.adapters import with_adapters
from optimizer.errors import OptimizerError


def write_adapter(folder: Path, **values: object) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8} | values))
    return folder


def test_all_of_them_may_be_in_one_step_at_the_largest_rank(tmp_path: Path) -> None:
    one, two = write_adapter(tmp_path / "one"), write_adapter(tmp_path / "two", rank_pattern={"q_proj": 20})
    config = with_adapters(EngineConfig(model="m"), [f"a={one}", f"b={two}"])
    assert config.lora_modules == {"a": str(one), "b": str(two)}
    assert (config.max_loras, config.max_lora_rank) == (2, 32)
    assert with_adapters(config, []) is config


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["alone"], "write NAME=DIR"),
        (["a=nowhere"], "holds no adapter_config.json"),
        (["a={one}", "a={one}"], "'a' is given twice"),
    ],
)
def test_what_is_no_adapter_is_refused(tmp_path: Path, given: list[str], sentence: str) -> None:
    one = write_adapter(tmp_path / "one")
    with pytest.raises(OptimizerError, match=sentence):
        with_adapters(EngineConfig(model="m"), [text.format(one=one) for text in given])


def test_engines_that_others_start_are_refused(tmp_path: Path) -> None:
    one = write_adapter(tmp_path / "one")
    with pytest.raises(OptimizerError, match="for engines bundled and vllm, not for endpoint"):
        with_adapters(EngineConfig(model="m", engine="endpoint"), [f"a={one}"])
