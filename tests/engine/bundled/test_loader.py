"""Checkpoint folders: sharded ones load, broken ones are refused with a sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from random_models import save_random_model
from safetensors.torch import load_file, save_file

from engine.bundled.errors import CheckpointError
from engine.bundled.loader import LoadedModel, load_model


def load(folder: Path) -> LoadedModel:
    return load_model(folder, dtype="auto", max_positions=16, device=torch.device("cpu"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_random_model(tmp_path / "model")


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_a_sharded_checkpoint_equals_the_whole_one(folder: Path) -> None:
    whole = load(folder)
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    index = {}
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: weights[name] for name in part}, folder / f"part-{number}.safetensors")
        index |= dict.fromkeys(part, f"part-{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / "model.safetensors").unlink()
    for name, tensor in load(folder).decoder.state_dict().items():
        assert torch.equal(tensor, whole.decoder.state_dict()[name]), name


def test_tied_embeddings_hold_the_same_numbers(folder: Path) -> None:
    decoder = load(folder).decoder
    assert torch.equal(decoder.lm_head.weight, decoder.embed_tokens.weight)


def test_older_rope_fields_are_read(folder: Path) -> None:
    edit_config(folder, rope_parameters=None, rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
    rope = load(folder).config.rope
    assert (rope.theta, rope.kind, rope.factor) == (5e5, "linear", 2.0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel is not supported"),
        ({"architectures": None}, "none"),
        ({"quantization_config": {"bits": 4}}, "only compressed-tensors"),
        ({"use_sliding_window": True}, "sliding-window"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "yarn"),
        ({"dtype": "float8"}, "float8"),
        ({"intermediate_size": 100}, "has shape"),
        ({"num_hidden_layers": 4}, "layers.3.* is missing"),
        ({"num_hidden_layers": 2}, "no place"),
        ({"attention_bias": True}, "bias is missing"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_config_the_engine_cannot_honour_is_refused(folder: Path, values: dict[str, object], words: str) -> None:
    edit_config(folder, **values)
    with pytest.raises(CheckpointError, match=words):
        load(folder)


@pytest.mark.parametrize("field", ["hidden_size", "vocab_size", "num_hidden_layers"])
def test_a_missing_config_field_is_named(folder: Path, field: str) -> None:
    values = json.loads((folder / "config.json").read_text())
    del values[field]
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=field):
        load(folder)


def test_a_tensor_nobody_needs_is_refused(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update({"model.layers.0.mlp.extra": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=r"mlp\.extra"):
        load(folder)


def test_missing_things_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "nowhere")
    edit_weights(folder, lambda weights: weights.pop("model.layers.1.self_attn.v_proj.weight"))
    with pytest.raises(CheckpointError, match=r"layers\.1\.self_attn\.v_proj\.weight is missing"):
        load(folder)
    (folder / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="not a readable safetensors"):
        load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no"):
        load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        load(folder)
