"""Random Hugging Face checkpoints of every family, small enough to build in milliseconds."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCAB_SIZE = 97
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "llama_bias_scaled": (LlamaConfig, LlamaForCausalLM, {"attention_bias": True, "rope_parameters": LLAMA3_ROPE}),
    "llama_multi_head": (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 4}),
    "llama_multi_query": (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 1}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 32, "tie_word_embeddings": True}),
}


def save_random_model(folder: Path, family: str = "llama", **overrides: Any) -> Path:
    """Write a random checkpoint of the family and return its folder."""
    config_type, model_type, own = FAMILIES[family]
    values = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "initializer_range": 0.3,  # logits far enough apart for a random model to say varied things
    }
    torch.manual_seed(0)
    model = model_type(config_type(**values | own | overrides)).eval()
    _perturb(model, "norm", 0.1)
    _perturb(model, "bias", 0.1)
    model.save_pretrained(folder)
    return folder


def save_perturbed(source: Path, folder: Path, *, relative: float) -> Path:
    """A draft that partly agrees with `source`: its weights with relative noise."""
    model = reference(source)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += relative * parameter.data.std() * noise
    model.save_pretrained(folder)
    return folder


def save_medusa_heads(target: Path, folder: Path, sequences: list[list[int]], *, num_heads: int) -> Path:
    """Heads fitted by ridge regression to what follows in `sequences`, residual layers left at zero."""
    model = reference(target)
    hidden, wanted = [], [[] for _ in range(num_heads)]
    with torch.no_grad():
        for sequence in sequences:
            states = model.model(torch.tensor([sequence])).last_hidden_state[0]
            known = len(sequence) - num_heads - 1
            hidden.append(states[:known])
            for k, tokens in enumerate(wanted):
                tokens += sequence[k + 2 : k + 2 + known]
    x, size, vocab_size = torch.cat(hidden), model.config.hidden_size, model.config.vocab_size
    gram = x.T @ x + 10.0 * torch.eye(size)
    tensors = {f"blocks.{k}.layers.0.weight": torch.zeros(size, size) for k in range(num_heads)}
    for k, tokens in enumerate(wanted):
        one_hot = torch.nn.functional.one_hot(torch.tensor(tokens), vocab_size).float()
        tensors[f"lm_heads.{k}.weight"] = torch.linalg.solve(gram, x.T @ one_hot).T.contiguous()
    config = {"model_type": "medusa", "hidden_size": size, "vocab_size": vocab_size, "num_heads": num_heads}
    return _write(folder, config, tensors)


def save_eagle_head(target: Path, folder: Path, *, layer: int, token_share: float, feature_share: float) -> Path:
    """The target's layer, fed with a mix of embedding and feature."""
    weights, size = reference(target).state_dict(), reference(target).config.hidden_size
    prefix = f"model.layers.{layer}."
    tensors = {
        f"layers.0.{name.removeprefix(prefix)}": tensor.clone()
        for name, tensor in weights.items()
        if name.startswith(prefix) and "input_layernorm" not in name
    }
    tensors["fc.weight"] = torch.cat((token_share * torch.eye(size), feature_share * torch.eye(size)), 1)
    config = json.loads((target / "config.json").read_text()) | {"num_hidden_layers": 1}
    return _write(folder, config, tensors)


def _write(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def save_transparent_model(folder: Path) -> Path:
    """One layer whose norms change no choice: embeddings of unit size, gains of one."""
    model = reference(save_random_model(folder, num_hidden_layers=1, rms_norm_eps=1e-12))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.fill_(1.0)
    table = model.get_input_embeddings().weight.data
    table *= table.square().mean(-1, keepdim=True).rsqrt()
    model.save_pretrained(folder)
    return folder


def reference(folder: Path) -> PreTrainedModel:
    """The same checkpoint in transformers, the judge of our numbers."""
    architecture = (folder / "config.json").read_text()
    model_type = next(m for _, m, _ in FAMILIES.values() if m.__name__ in architecture)
    return model_type.from_pretrained(folder, dtype=torch.float32).eval()


def _perturb(model: torch.nn.Module, part: str, amount: float) -> None:
    for name, parameter in model.named_parameters():
        if part in name:
            parameter.data += torch.randn_like(parameter) * amount
