"""Quality classes in words."""

from engine.config import EngineConfig
from reports.quality_table import class_words


def config(**parts: object) -> EngineConfig:
    return EngineConfig.model_validate({"model": "m", "quantization": parts})


def test_only_what_is_not_the_checkpoints_own_is_told() -> None:
    assert class_words(config().quality_class()) == "unquantized"
    assert class_words(config(weights="int8", activations="int8", kv_cache="fp8").quality_class()) == (
        "int8 weights, int8 activations, fp8 cache"
    )
    mixed = config(weights="int8", overrides={"*.down_proj": "bf16"}).quality_class()
    assert class_words(mixed) == "int8 weights, bf16 in *.down_proj"
    assert class_words(f"{config().quality_class()}/eager") == "eager"
