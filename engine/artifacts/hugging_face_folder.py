"""Writes and reads a trained Llama as an ordinary Hugging Face folder. It does not know training."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from engine.artifacts.causal_lm import CausalLM, LlamaShape

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def llama_config(shape: LlamaShape, *, bos: int, eos: int, pad: int) -> dict[str, object]:
    """``config.json`` of a bf16 ``LlamaForCausalLM``."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_positions,
        "rope_theta": shape.rope_theta,
        "rope_scaling": None,
        "rms_norm_eps": shape.norm_eps,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "torch_dtype": "bfloat16",
    }


def special_ids(tokenizer: Path) -> dict[str, int]:
    """The ids of the tokenizer folder's bos, eos and pad tokens."""
    names = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    added = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    ids = {token["content"]: token["id"] for token in added}
    return {kind: ids[names[f"{kind}_token"]] for kind in ("bos", "eos", "pad")}


def save_folder(model: CausalLM, tokenizer: Path, folder: Path) -> None:
    """Write config, bf16 weights, generation config and the tokenizer's files into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = special_ids(tokenizer)
    weights = {name: tensor.detach().bfloat16().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    generation: dict[str, object] = {
        "bos_token_id": ids["bos"],
        "eos_token_id": ids["eos"],
        "pad_token_id": ids["pad"],
        "do_sample": False,
    }
    _write_json(folder / "config.json", llama_config(model.shape, **ids))
    _write_json(folder / "generation_config.json", generation)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, folder / name)


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def load_folder(folder: Path) -> CausalLM:
    """The bf16 model of a folder written by ``save_folder``."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = LlamaShape(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        num_kv_heads=config["num_key_value_heads"],
        intermediate_size=config["intermediate_size"],
        head_dim=config["head_dim"],
        rope_theta=config["rope_theta"],
        max_positions=config["max_position_embeddings"],
        norm_eps=config["rms_norm_eps"],
    )
    model = CausalLM(shape).to(torch.bfloat16)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model
