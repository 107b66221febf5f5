import ast
import json
import random
import re
from collections.abc import Iterator

import pytest

from workloads.checks import score_response
from workloads.demo.conversation import Conversation, Turn
from workloads.demo.edits import fenced
from workloads.demo.tasks import FULL_SIZE, TASKS
from workloads.demo.vocabulary import IDENTIFIERS
from workloads.request import Check

ROUNDS = 40


def conversations(task: str, size: int = FULL_SIZE) -> list[Conversation]:
    rng = random.Random(f"{task}-{size}")
    return [TASKS[task](rng, size) for _ in range(ROUNDS)]  # type: ignore[index]


def score(turn: Turn, answer: str) -> float:
    return score_response([Check(kind=c.kind, spec=c.spec, weight=c.weight) for c in turn.checks], answer)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_the_same_seed_draws_the_same_conversations(task: str, size: int) -> None:
    assert conversations(task, size) == conversations(task, size)


@pytest.mark.parametrize("task", TASKS)
def test_every_turn_has_checks_that_accept_its_gold_answer(task: str) -> None:
    for conversation in conversations(task):
        for turn in conversation.turns:
            assert turn.checks
            assert score(turn, turn.answer) == 1.0


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_with_one_value_changed_scores_less(task: str) -> None:
    for conversation in conversations(task):
        turn = conversation.turns[0]
        spec = json.loads(turn.checks[0].spec)
        value = spec[0] if isinstance(spec, list) else turn.answer[len(turn.answer) // 2]
        assert score(turn, turn.answer.replace(value, "#")) < 1.0


@pytest.mark.parametrize("task", TASKS)
def test_traffic_has_rules_and_a_later_turn_holds_the_earlier_answers(task: str) -> None:
    for conversation in conversations(task):
        last = len(conversation.turns) - 1
        messages = conversation.messages(last)
        assert messages[0]["role"] == "system"
        assert messages[0]["content"]
        answers = [message["content"] for message in messages if message["role"] == "assistant"]
        assert answers == [turn.answer for turn in conversation.turns[:last]]


def test_tenants_share_one_system_prompt_each() -> None:
    prompts: dict[str, set[str]] = {}
    for task in TASKS:
        for conversation in conversations(task):
            prompts.setdefault(conversation.tenant, set()).add(conversation.system)
    assert len(prompts) == 9
    assert all(len(texts) == 1 for texts in prompts.values())


def test_extracted_values_stand_in_the_message() -> None:
    for conversation in conversations("extraction"):
        message = conversation.turns[0].user.splitlines()
        for turn in conversation.turns:
            assert all(f"{key}: {value}" in message for key, value in json.loads(turn.answer).items())


def edits() -> Iterator[tuple[str, str]]:
    """The method shown and the method answered, without their fences."""
    for conversation in conversations("edit"):
        for turn in conversation.turns:
            (before,), (after,) = (
                re.findall(r"```python\n(.*)\n```", text, re.DOTALL) for text in (turn.user, turn.answer)
            )
            assert turn.answer == fenced(after)
            yield before, after


def test_an_edit_changes_the_methods_name_the_return_or_both() -> None:
    for before, after in edits():
        changed = [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]
        assert 1 <= len(changed) <= 2
        assert all(line.startswith(("def ", "    return ")) for pair in changed for line in pair)


def test_lines_of_an_edit_bind_names_and_constants_of_their_own() -> None:
    for _, after in edits():
        bindings = [line.split(" = ") for line in after.splitlines()[1:-1]]
        names, constants = zip(*bindings, strict=True)
        assert len(set(names)) == len(set(constants)) == len(bindings)


def test_edits_are_python_of_the_promised_length() -> None:
    for before, after in edits():
        ast.parse(after)
        assert 8 <= len(after.splitlines()) == len(before.splitlines()) <= 13


def test_a_space_precedes_every_name_in_an_edit() -> None:
    for conversation in conversations("edit"):
        names = r"\b(?:" + "|".join(IDENTIFIERS) + r")\b"
        for turn in conversation.turns:
            assert all(turn.answer[match.start() - 1] == " " for match in re.finditer(names, turn.answer))


def test_table_answers_are_lines_of_the_table() -> None:
    for conversation in conversations("table"):
        table = conversation.turns[0].user.rsplit("\n\n", 1)[0].splitlines()
        assert len(table) == len(set(table))
        for turn in conversation.turns:
            assert set(turn.answer.splitlines()) <= set(table)
