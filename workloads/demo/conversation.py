"""A demo conversation: turns with gold answers and checks. It does not know when the conversation happens."""

import json
from dataclasses import dataclass
from typing import Literal, NamedTuple

Message = dict[str, str]
TaskName = Literal["extraction", "edit", "table", "text"]
TASK_NAMES: tuple[TaskName, ...] = ("extraction", "edit", "table", "text")


class Check(NamedTuple):
    """One way to score an answer: a kind of the workload contract and its specification as JSON text."""

    kind: str
    spec: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What the user asks, the gold answer, and how an answer is checked."""

    user: str
    answer: str
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A system prompt shared by its tenant, and one or more turns."""

    task: TaskName
    tenant: str
    system: str
    turns: tuple[Turn, ...]

    def messages(self, turn: int) -> list[Message]:
        """The OpenAI messages sent for turn number ``turn``, earlier gold answers included."""
        messages = [{"role": "system", "content": self.system}]
        for earlier in self.turns[:turn]:
            messages.append({"role": "user", "content": earlier.user})
            messages.append({"role": "assistant", "content": earlier.answer})
        messages.append({"role": "user", "content": self.turns[turn].user})
        return messages

    def full_messages(self) -> list[Message]:
        """Every message of the conversation, the last gold answer included."""
        last = len(self.turns) - 1
        return [*self.messages(last), {"role": "assistant", "content": self.turns[last].answer}]


def exact(answer: str) -> Check:
    """A check that the answer equals the gold answer."""
    return Check(kind="exact", spec=json.dumps(answer))


def contains(values: list[str]) -> Check:
    """A check that the answer mentions every value."""
    return Check(kind="contains", spec=json.dumps(values))
