"""A language model of letters: the next token depends on the last three, and `damage` perturbs its logits."""

import zlib
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

END = 0
ALPHABET = (END, *range(ord("a"), ord("z") + 1))


@dataclass
class FakeModel:
    """Deterministic; two models with the same damage are the same."""

    damage: float = 0.0
    _known: dict[tuple[int, ...], dict[int, float]] = field(default_factory=dict)

    def logprobs(self, context: list[int]) -> dict[int, float]:
        """Every token's log-probability after the context, most likely first."""
        key = tuple(context[-3:])
        if key not in self._known:
            seed = zlib.crc32(repr(key).encode())
            logits = 3 * np.random.default_rng(seed).standard_normal(len(ALPHABET))
            logits += self.damage * np.random.default_rng(seed + 1).standard_normal(len(ALPHABET))
            logits -= np.log(np.exp(logits).sum())
            ranked = np.argsort(-logits)
            self._known[key] = {ALPHABET[i]: float(logits[i]) for i in ranked}
        return self._known[key]

    def top(self, context: list[int], k: int) -> list[tuple[int, float]]:
        return list(islice(self.logprobs(context).items(), k))

    def generate(self, prompt: list[int], max_tokens: int, *, ignore_end: bool = False) -> list[int]:
        """Greedy; ends with END, which is part of the answer, or at max_tokens."""
        tokens: list[int] = []
        while len(tokens) < max_tokens and not (tokens and tokens[-1] == END):
            best = self.top([*prompt, *tokens], 2)
            tokens.append(best[1][0] if ignore_end and best[0][0] == END else best[0][0])
        return tokens


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def decode(tokens: list[int]) -> str:
    return "".join(chr(token) for token in tokens if token != END)
