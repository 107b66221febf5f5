"""Builds the demo tokenizer, an ordinary Hugging Face one. It does not know models or traffic.

Lower-case words take the space before them; capitalised words and pairs of digits never do. So names, places, codes
and numbers have the same tokens wherever they stand, and so do lower-case values that always follow a space. Frequent
pieces become one token; other text falls back to byte pairs.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

PAD, BOS, END, SYSTEM, USER, ASSISTANT = SPECIAL_TOKENS = (
    "<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>",
)  # fmt: skip
VOCAB_SIZE = 1280
NUM_FALLBACK_TOKENS = 384
CONTEXT_LENGTH = 1024
PIECE_PATTERN = " ?[a-z]+|[A-Z][a-z]*|[0-9]{1,2}|[^A-Za-z0-9]+?(?= [a-z]|[A-Za-z0-9]|$)"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(PIECE_PATTERN), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _train_fallback(texts: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A small byte-pair vocabulary whose only use is text outside the demo's own words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _pre_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_FALLBACK_TOKENS,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def _frequent_pieces(texts: Iterable[str]) -> list[str]:
    cut = _pre_tokenizer()
    counts = Counter(piece for text in texts for piece, _ in cut.pre_tokenize_str(text))
    return [piece for piece, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def build_tokenizer(texts: list[str], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """A byte-level BPE tokenizer in which every frequent piece of ``texts`` is one token."""
    vocab, merges = _train_fallback(texts)
    for piece in _frequent_pieces(texts):
        if len(vocab) == vocab_size:
            break
        vocab.setdefault(piece, len(vocab))
    for index in range(vocab_size - len(vocab)):
        vocab[f"<|unused{index}|>"] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` as Hugging Face's fast tokenizers expect them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": CONTEXT_LENGTH,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
