from pathlib import Path

import pytest
import torch

from engine.artifacts.causal_lm import CausalLM, LlamaShape
from engine.artifacts.hugging_face_folder import load_folder, save_folder
from engine.artifacts.induction import initialise_copying

TINY = LlamaShape(
    vocab_size=96, hidden_size=128, num_layers=2, num_heads=4, num_kv_heads=2, intermediate_size=64, max_positions=128
)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer_config.json").write_text('{"bos_token": "b", "eos_token": "e", "pad_token": "p"}')
    tokens = '{"content": "p", "id": 0}, {"content": "b", "id": 1}, {"content": "e", "id": 2}'
    (folder / "tokenizer.json").write_text(f'{{"added_tokens": [{tokens}]}}')
    return folder


def random_model() -> CausalLM:
    torch.manual_seed(0)
    model = CausalLM(TINY)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2)
    return model


def test_logits_equal_those_of_transformers(tokenizer: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_folder(random_model(), tokenizer, tmp_path / "model")
    ours = load_folder(tmp_path / "model").float()
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    ids = torch.randint(0, TINY.vocab_size, (2, 100), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_a_folder_reads_back_as_the_model_in_bf16(tokenizer: Path, tmp_path: Path) -> None:
    model = random_model()
    save_folder(model, tokenizer, tmp_path / "model")
    read = load_folder(tmp_path / "model")
    assert read.shape == TINY
    for name, tensor in read.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].bfloat16())


def test_a_token_does_not_see_the_future() -> None:
    model, ids = random_model(), torch.arange(40).view(1, 40)
    changed = ids.clone()
    changed[0, 30] = 7
    with torch.no_grad():
        before, after = model(ids), model(changed)
    assert torch.equal(before[0, :30], after[0, :30])
    assert not torch.equal(before[0, 30:], after[0, 30:])


def test_the_copying_start_continues_a_repeated_sequence() -> None:
    torch.manual_seed(0)
    shape = LlamaShape(vocab_size=400, hidden_size=256, num_layers=3, num_heads=4, num_kv_heads=2, intermediate_size=64)
    model = CausalLM(shape)
    initialise_copying(model, seed=0)
    once = torch.randperm(400, generator=torch.Generator().manual_seed(2))[:120]
    ids = torch.cat((once, once)).view(1, -1)
    with torch.no_grad():
        predicted = model(ids).argmax(-1)[0, 122:-1]
    assert (predicted == ids[0, 123:]).float().mean() > 0.9
