"""A random-weight Llama folder of a few hundred kilobytes, complete with tokenizer and chat template."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if tools %}tools: {{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
LINES = [
    "the quick brown fox jumps over the lazy dog",
    "a request asks, an engine serves, a study decides what to try next",
    "0 1 2 3 4 5 6 7 8 9 {} [] () : ; , . ! ? ä ö ü ß é 日本語",
]
HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 64, 128, 2, 4, 2, 16


def write_tiny_checkpoint(folder: Path, *, seed: int = 0, num_layers: int = LAYERS, max_positions: int = 512) -> Path:
    """Write the folder and return it."""
    folder.mkdir(parents=True)
    vocab_size = _write_tokenizer(folder)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": num_layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": vocab_size,
        "max_position_embeddings": max_positions,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_weights(vocab_size, num_layers, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _write_tokenizer(folder: Path) -> int:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES * 4, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": CHAT_TEMPLATE,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return int(tokenizer.get_vocab_size())


def _weights(vocab_size: int, num_layers: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return (generator.standard_normal((rows, columns)) * scale / columns**0.5).astype(np.float32)

    query, key_value = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    weights = {"model.embed_tokens.weight": matrix(vocab_size, HIDDEN, 0.5), "model.norm.weight": _ones()}
    for layer in range(num_layers):
        own = f"model.layers.{layer}"
        weights |= {
            f"{own}.input_layernorm.weight": _ones(),
            f"{own}.post_attention_layernorm.weight": _ones(),
            f"{own}.self_attn.q_proj.weight": matrix(query, HIDDEN),
            f"{own}.self_attn.k_proj.weight": matrix(key_value, HIDDEN),
            f"{own}.self_attn.v_proj.weight": matrix(key_value, HIDDEN),
            f"{own}.self_attn.o_proj.weight": matrix(HIDDEN, query),
            f"{own}.mlp.gate_proj.weight": matrix(FFN, HIDDEN),
            f"{own}.mlp.up_proj.weight": matrix(FFN, HIDDEN),
            f"{own}.mlp.down_proj.weight": matrix(HIDDEN, FFN),
        }
    return weights


def _ones() -> np.ndarray:
    return np.ones(HIDDEN, dtype=np.float32)
