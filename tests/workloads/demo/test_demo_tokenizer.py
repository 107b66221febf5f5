import random
import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from workloads.demo import vocabulary
from workloads.demo.build import render_prompt
from workloads.demo.corpus import TRAINING_MIX, render
from workloads.demo.tasks import FULL_SIZE, TASKS, draw_conversation
from workloads.demo.tokenizer import SPECIAL_TOKENS, VOCAB_SIZE, build_tokenizer, save_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    rng = random.Random(1)
    drawn = [draw_conversation(rng, TRAINING_MIX) for _ in range(2000)]
    return build_tokenizer([message["content"] for item in drawn for message in item.full_messages()])


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def contains_run(long: list[int], short: list[int]) -> bool:
    return any(long[start : start + len(short)] == short for start in range(len(long)))


@pytest.mark.parametrize("task", TASKS)
def test_a_copied_value_has_the_same_tokens_in_the_prompt_and_in_the_answer(tokenizer: Tokenizer, task: str) -> None:
    rng = random.Random(2)
    for _ in range(30):
        turn = TASKS[task](rng, FULL_SIZE).turns[0]  # type: ignore[index]
        prompt, answer = ids(tokenizer, turn.user), ids(tokenizer, turn.answer)
        for value in re.findall(r"[A-Z][a-z]+|[A-Z]?[0-9]+| [a-z]{3,}\b", turn.answer):
            alone = ids(tokenizer, value)
            assert contains_run(answer, alone)
            assert contains_run(prompt, alone) or not re.search(rf"\b{value.strip()}\b", turn.user)


@pytest.mark.parametrize("words", ["FIRST_NAMES", "LAST_NAMES", "CITIES", "ITEMS", "SERVICES", "TEAMS", "BRANDS"])
def test_every_capitalised_value_is_one_token(tokenizer: Tokenizer, words: str) -> None:
    assert all(len(ids(tokenizer, word)) == 1 for word in getattr(vocabulary, words))


@pytest.mark.parametrize("words", ["IDENTIFIERS", "MATERIALS", "ADJECTIVES", "PLACES"])
def test_every_lower_case_value_is_one_token_with_its_space(tokenizer: Tokenizer, words: str) -> None:
    assert all(len(ids(tokenizer, f" {word}")) == 1 for word in getattr(vocabulary, words))


@pytest.mark.parametrize("text", ["Grüße, 世界! x_1 == 3.14\n\t", "  two  spaces ", "zebra quokka 🦊"])
def test_any_text_survives_the_round_trip(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(ids(tokenizer, text)) == text


def test_special_tokens_come_first_and_the_vocabulary_has_the_promised_size(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer.get_vocab_size() == VOCAB_SIZE


def test_transformers_loads_the_folder_and_renders_our_prompt(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_tokenizer(tokenizer, tmp_path)
    loaded = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    talk = draw_conversation(random.Random(3), TRAINING_MIX)
    prompt = loaded.apply_chat_template(talk.messages(0), tokenize=False, add_generation_prompt=True)
    assert prompt == render_prompt(talk.messages(0))
    assert loaded.apply_chat_template(talk.full_messages(), tokenize=False) == render(talk)
    assert loaded(prompt, add_special_tokens=False)["input_ids"] == ids(tokenizer, prompt)
    assert loaded.eos_token == "<|end|>"
