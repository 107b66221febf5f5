"""Medusa and EAGLE heads as trainable modules, and their folders. It does not know training.

Layouts are those the engines load: `engine/bundled/head_loader.py` reads them.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from engine.artifacts.causal_lm import Block, CausalLM, LlamaShape, rotary_tables
from engine.artifacts.hugging_face_folder import llama_config


class MedusaHead(nn.Module):
    """One residual layer, which starts at the identity, and an output layer, which starts as the target's."""

    def __init__(self, target: CausalLM) -> None:
        super().__init__()
        self.layer = nn.Linear(target.shape.hidden_size, target.shape.hidden_size, bias=False)
        nn.init.zeros_(self.layer.weight)
        self.lm_head = nn.Linear(target.shape.hidden_size, target.shape.vocab_size, bias=False)
        self.lm_head.weight.data.copy_(target.model.embed_tokens.weight.data)

    def forward(self, states: Tensor) -> Tensor:
        """Logits [..., vocab] of target states [..., hidden]."""
        return self.lm_head(states + functional.silu(self.layer(states)))  # type: ignore[no-any-return]


class MedusaHeads(nn.Module):
    """Head number k guesses the token k + 2 places after a state's own."""

    def __init__(self, target: CausalLM, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.heads = nn.ModuleList(MedusaHead(target) for _ in range(num_heads))

    def each(self) -> Iterator[MedusaHead]:
        """The heads, the nearest first."""
        return iter(self.heads)  # type: ignore[arg-type]

    def save(self, folder: Path) -> None:
        """Write config and bf16 weights."""
        weights: dict[str, Tensor] = {}
        for number, head in enumerate(self.each()):
            weights[f"blocks.{number}.layers.0.weight"] = head.layer.weight
            weights[f"lm_heads.{number}.weight"] = head.lm_head.weight
        vocab_size, hidden_size = weights["lm_heads.0.weight"].shape
        config = {
            "architectures": ["MedusaModel"],
            "model_type": "medusa",
            "hidden_size": hidden_size,
            "vocab_size": vocab_size,
            "num_heads": self.num_heads,
            "num_hidden_layers": 1,
            "torch_dtype": "bfloat16",
        }
        _save(folder, config, weights)


class EagleHead(nn.Module):
    """One decoder layer on a mix of a token's embedding and the feature of the place before it."""

    def __init__(self, target: CausalLM) -> None:
        super().__init__()
        size = target.shape.hidden_size
        self.shape = LlamaShape(**{**vars(target.shape), "num_layers": 1})
        self.fc = nn.Linear(2 * size, size, bias=False)
        table = target.model.embed_tokens.weight.detach().float()
        evened = 1.0 / table.square().mean().sqrt().item()  # embeddings as large as normed features
        self.fc.weight.data.copy_(torch.cat((evened * torch.eye(size), torch.eye(size)), 1))
        self.layer = Block(self.shape)
        self.layer.input_layernorm = nn.Identity()  # type: ignore[assignment]
        for parameter in self.layer.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, embeddings: Tensor, features: Tensor) -> Tensor:
        """Guessed features [batch, length, hidden] of places whose embeddings and true features are given."""
        length = features.shape[1]
        before = functional.pad(features[:, :-1], (0, 0, 1, 0))
        cos, sin = (table.to(features) for table in rotary_tables(self.shape, length))
        mask = torch.full((length, length), float("-inf"), dtype=features.dtype).triu(1)
        return self.layer(self.fc(torch.cat((embeddings, before), -1)), cos, sin, mask)  # type: ignore[no-any-return]

    def save(self, folder: Path, special: dict[str, int]) -> None:
        """Write config and bf16 weights; embedding and output layer are the target's."""
        weights = {"fc.weight": self.fc.weight}
        weights |= {f"layers.0.{name}": parameter for name, parameter in self.layer.named_parameters()}
        _save(folder, llama_config(self.shape, **special), weights)


def _save(folder: Path, config: dict[str, object], weights: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().bfloat16().contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
