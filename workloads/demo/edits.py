"""Code edits: the answer is the given method with one thing changed. It does not know tokens."""

import random
import re

from workloads.demo.conversation import Conversation, Turn, exact
from workloads.demo.vocabulary import FUNCTION_NAMES, IDENTIFIERS

NUM_TURNS = ((1,), (2, 3, 4), (2, 3), (1, 1, 2, 2, 3))
NUM_LINES = ((4, 6), (6, 10), (8, 12), (8, 12))

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


def draw_function(rng: random.Random, num_lines: int) -> str:
    """A method of ``num_lines`` lines: a header, names bound to constants, and the return of one of the names.

    A space precedes every name, so that the tokenizer cuts it the same way everywhere. No name and no constant stands
    in two lines of the body, so that the last few tokens always say where in the method to go on: with repeated ones
    the demo model loses its place now and then.
    """
    names = rng.sample(IDENTIFIERS, rng.choice((1, 2)) + num_lines - 2)
    constants = rng.sample(range(10, 100), num_lines - 2)
    bound, parameters = names[: num_lines - 2], names[num_lines - 2 :]
    header = f"def {rng.choice(FUNCTION_NAMES)}(self, {', '.join(parameters)}):"
    body = [f"    {name} = {constant}" for name, constant in zip(bound, constants, strict=True)]
    return "\n".join([header, *body, f"    return {rng.choice(names)}"])


def replace_word(code: str, old: str, new: str) -> str:
    """The code with every whole-word ``old`` replaced."""
    return re.sub(rf"\b{re.escape(old)}\b", new, code)


def rename_variable(rng: random.Random, code: str) -> tuple[str, str]:
    """Another name for a parameter or local variable, everywhere."""
    used = used_names(code)
    old, new = rng.choice(used), rng.choice([word for word in IDENTIFIERS if word not in used])
    return f"Rename {old} to {new}.", replace_word(code, old, new)


def change_constant(rng: random.Random, code: str) -> tuple[str, str]:
    """Another number in one place."""
    used = sorted(set(re.findall(r"\b[0-9]+\b", code)))
    old, new = rng.choice(used), rng.choice([str(value) for value in range(10, 100) if str(value) not in used])
    return f"Change {old} to {new}.", replace_word(code, old, new)


def rename_method(rng: random.Random, code: str) -> tuple[str, str]:
    """Another name for the method itself."""
    old = code[len("def ") : code.index("(")]
    new = rng.choice([word for word in FUNCTION_NAMES if word != old])
    return f"Rename the method to {new}.", replace_word(code, old, new)


def change_return(rng: random.Random, code: str) -> tuple[str, str]:
    """Another variable returned at the end."""
    body, old = code.rsplit(" ", 1)
    new = rng.choice([word for word in used_names(code) if word != old])
    return f"Change the return to {new}.", f"{body} {new}"


REQUESTS = {rename_variable: 0.3, change_constant: 0.3, rename_method: 0.2, change_return: 0.2}


def used_names(code: str) -> list[str]:
    """The parameters and local variables of the code."""
    return sorted({word for word in re.findall(r"\b[a-z]+\b", code) if word in IDENTIFIERS})


def draw_request(rng: random.Random, code: str) -> tuple[str, str]:
    """A request for one change, and the changed code."""
    kind = rng.choices(list(REQUESTS), weights=list(REQUESTS.values()))[0]
    return kind(rng, code)


def draw_conversation(rng: random.Random, size: int) -> Conversation:
    """A method and some changes, each on the previous answer."""
    tenant = rng.choice(sorted(SYSTEM_PROMPTS))
    code = draw_function(rng, rng.randint(*NUM_LINES[size]))
    turns: list[Turn] = []
    for turn in range(rng.choice(NUM_TURNS[size])):
        request, changed = draw_request(rng, code)
        user = request if turn else f"{code}\n\n{request}"
        turns.append(Turn(user=user, answer=changed, checks=(exact(changed),)))
        code = changed
    system = SYSTEM_PROMPTS[tenant] if size > 2 else ""
    return Conversation(task="edit", tenant=tenant, system=system, turns=tuple(turns))
