from pathlib import Path

import torch
from safetensors.torch import save_file

from engine.artifacts.causal_lm import CausalLM, LlamaShape
from engine.artifacts.conversation_batches import Corpus
from engine.artifacts.greedy_answers import decode_greedily, every_prompt, write_greedy_answers

SHAPE = LlamaShape(
    vocab_size=40, hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=1, intermediate_size=32, head_dim=16
)


def random_model() -> CausalLM:
    torch.manual_seed(0)
    model = CausalLM(SHAPE)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model


def two_turn_corpus(folder: Path) -> Corpus:
    ids = torch.tensor([1, 5, 6, 7, 2, 8, 9, 2] * 3)
    turns = torch.tensor([0, 0, 1, 1, 1, 0, 2, 2] * 3)
    tensors = {"ids": ids, "turns": turns, "tasks": torch.tensor([0, 1, 2]), "offsets": torch.tensor([0, 8, 16, 24])}
    save_file(tensors, folder / "corpus.safetensors")
    return Corpus(folder / "corpus.safetensors")


def test_decoding_with_a_cache_equals_decoding_without() -> None:
    model = random_model()
    prompts = torch.randint(3, 40, (4, 9), generator=torch.Generator().manual_seed(1))
    expected = prompts
    with torch.no_grad():
        for _ in range(12):
            expected = torch.cat((expected, model(expected)[:, -1:].argmax(-1)), dim=1)
    answers = decode_greedily(model, prompts, end=-1, max_tokens=12)
    assert answers == expected[:, 9:].tolist()


def test_an_answer_stops_at_the_end_token() -> None:
    model, prompts = random_model(), torch.arange(6).view(1, 6)
    answer = decode_greedily(model, prompts, end=-1, max_tokens=8)[0]
    end = answer[3]
    assert decode_greedily(model, prompts, end=end, max_tokens=8)[0] == answer[: answer.index(end) + 1]


def test_every_answer_of_a_conversation_becomes_a_prompt(tmp_path: Path) -> None:
    prompts = list(every_prompt(two_turn_corpus(tmp_path), range(2)))
    assert [(prompt.ids.tolist(), prompt.turn, prompt.task) for prompt in prompts] == [
        ([1, 5], 1, 0),
        ([1, 5, 6, 7, 2, 8], 2, 0),
        ([1, 5], 1, 1),
        ([1, 5, 6, 7, 2, 8], 2, 1),
    ]


def test_written_answers_read_back_as_a_corpus(tmp_path: Path) -> None:
    corpus, model = two_turn_corpus(tmp_path), random_model()
    path = tmp_path / "greedy.safetensors"
    assert write_greedy_answers(model, corpus, path, rows=range(3), end=-1, max_tokens=4) == 6
    greedy = Corpus(path)
    assert sorted(greedy.lengths.tolist()) == [6, 6, 6, 10, 10, 10]
    assert int((greedy.turns > 0).sum()) == 24
