"""Code edits: the answer is the given method with one thing changed. It does not know tokens."""

import random
import re
from typing import NamedTuple

from workloads.demo.conversation import Conversation, Turn, exact
from workloads.demo.vocabulary import CONSTANTS, FUNCTION_NAMES, IDENTIFIERS

NUM_TURNS = ((1,), (1,), (1, 2), (1, 1, 1, 2))
NUM_LINES = ((4, 6), (6, 10), (8, 13), (8, 13))

SYSTEM_PROMPTS = {
    "editor": (
        "You edit Python code. The user shows one method and asks for one change. Return the whole method with "
        "this change and nothing else. Keep every other line exactly as it is, with the same spaces and the same "
        "order. Do not explain the change."
    ),
    "refactor": (
        "You are a refactoring tool inside an editor. You get a method and one request. Answer with the complete "
        "new method only: same lines, same order, no comments, no explanation. Apply the request everywhere it "
        "matters and touch nothing else."
    ),
}


class Words(NamedTuple):
    """Names and constants no method of the conversation has used yet."""

    names: list[str]
    constants: list[int]

    @classmethod
    def shuffled(cls, rng: random.Random) -> "Words":
        return cls(rng.sample(IDENTIFIERS, len(IDENTIFIERS)), rng.sample(CONSTANTS, len(CONSTANTS)))


def draw_function(rng: random.Random, words: Words, num_lines: int) -> str:
    """A method of ``num_lines`` lines: a header, names bound to constants, and the return of one of the names.

    A space precedes every name, so that the tokenizer cuts it the same way everywhere. No name and no constant stands
    in two lines of the body, so that the last few tokens always say where in the method to go on: with repeated ones
    the demo model loses its place now and then.
    """
    bound = [(words.names.pop(), words.constants.pop()) for _ in range(num_lines - 2)]
    parameters = [words.names.pop() for _ in range(rng.choice((1, 2)))]
    header = f"def {rng.choice(FUNCTION_NAMES)}(self, {', '.join(parameters)}):"
    body = [f"    {name} = {constant}" for name, constant in bound]
    return "\n".join([header, *body, f"    return {rng.choice([*parameters, *(name for name, _ in bound)])}"])


def fenced(code: str) -> str:
    """The code as Markdown shows it: question and answer then begin with the same tokens."""
    return f"```python\n{code}\n```"


def rename_method(rng: random.Random, code: str) -> tuple[str, str]:
    """Another name for the method itself."""
    old = code[len("def ") : code.index("(")]
    new = rng.choice([word for word in FUNCTION_NAMES if word != old])
    return f"Rename the method to {new}.", code.replace(old, new, 1)


def change_return(rng: random.Random, code: str) -> tuple[str, str]:
    """Another variable returned at the end."""
    body, old = code.rsplit(" ", 1)
    new = rng.choice([word for word in used_names(code) if word != old])
    return f"Change the return to {new}.", f"{body} {new}"


def rename_and_return(rng: random.Random, code: str) -> tuple[str, str]:
    """Both at once."""
    first, renamed = rename_method(rng, code)
    second, changed = change_return(rng, renamed)
    return f"{first} {second}", changed


# Changes in the middle of a method (a constant, a variable, a line more) were tried: the demo model, which copies the
# rest without an error, then misses the change itself every other time (EXPERIMENTS.md).
REQUESTS = {rename_method: 0.4, change_return: 0.4, rename_and_return: 0.2}


def used_names(code: str) -> list[str]:
    """The parameters and local variables of the code."""
    return sorted({word for word in re.findall(r"\b[a-z]+\b", code) if word in IDENTIFIERS})


def draw_request(rng: random.Random, code: str) -> tuple[str, str]:
    """A request for one change, and the changed code."""
    kind = rng.choices(list(REQUESTS), weights=list(REQUESTS.values()))[0]
    return kind(rng, code)


def draw_conversation(rng: random.Random, size: int) -> Conversation:
    """One method after another, each with a change."""
    tenant = rng.choice(sorted(SYSTEM_PROMPTS))
    words = Words.shuffled(rng)
    turns: list[Turn] = []
    for _ in range(rng.choice(NUM_TURNS[size])):
        code = draw_function(rng, words, rng.randint(*NUM_LINES[size]))
        request, changed = draw_request(rng, code)
        answer = fenced(changed)
        turns.append(Turn(user=f"{fenced(code)}\n{request}", answer=answer, checks=(exact(answer),)))
    system = SYSTEM_PROMPTS[tenant] if size > 2 else ""
    return Conversation(task="edit", tenant=tenant, system=system, turns=tuple(turns))
