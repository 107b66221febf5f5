from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from workloads.demo.corpus import STAGE_SIZES, write_corpus
from workloads.demo.tokenizer import END


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    write_corpus(out, seed=1, counts=dict.fromkeys(STAGE_SIZES, 40), num_eval=20)
    return out


def test_a_corpus_is_cut_by_its_offsets(folder: Path) -> None:
    corpus = load_file(folder / "stage2.safetensors")
    assert len(corpus["offsets"]) == 41
    assert corpus["offsets"][0] == 0
    assert corpus["offsets"][-1] == len(corpus["ids"]) == len(corpus["turns"])
    assert len(corpus["tasks"]) == 40


def test_every_answer_ends_with_the_end_token_and_nothing_else_is_learned(folder: Path) -> None:
    corpus = load_file(folder / "stage2.safetensors")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    inside = corpus["turns"] > 0
    last = np.flatnonzero(inside & ~np.append(inside[1:], False))
    assert len(last) >= 40
    assert set(corpus["ids"][last].tolist()) == {tokenizer.token_to_id(END)}
    assert 0.1 < inside.mean() < 0.6


def test_the_same_seed_writes_the_same_corpus_and_tokenizer(folder: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path, seed=1, counts={"stage0": 40}, num_eval=20)
    for name in ("stage0.safetensors", "eval.safetensors", "tokenizer/tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
