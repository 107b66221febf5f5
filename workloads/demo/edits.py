"""Code edits: the answer is the given method with one thing changed. It does not know tokens."""

import random
import re
from dataclasses import dataclass, field

from workloads.demo.conversation import Conversation, Turn, exact
from workloads.demo.vocabulary import FUNCTION_NAMES, IDENTIFIERS

OPERATORS = ("+", "-", "*", "//")
COMPARISONS = ("<", ">", "==", "!=")
CALLS = ("clip", "round", "blend", "mask")
NUM_TURNS = ((1,), (2, 3, 4), (2, 3), (1, 1, 2, 2, 3))
NUM_LINES = ((4, 6), (6, 10), (8, 14), (8, 14))

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


@dataclass(kw_only=True)
class _Writer:
    """Writes one method line by line; ``known`` are the names already bound, ``headed`` those that began a statement.

    A space precedes every name, so that the tokenizer cuts it the same way everywhere, and a constant of its own is in
    every line, so that what was just written says where to go on.
    """

    rng: random.Random
    fresh: list[str]
    constants: list[int]
    known: list[str] = field(default_factory=list)
    headed: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)

    def name(self) -> str:
        return self.rng.choice(self.known)

    def head(self) -> str:
        """A known name that began no statement yet, if there is one: lines shall differ early."""
        unused = [name for name in self.known if name not in self.headed]
        name = self.rng.choice(unused or self.known)
        self.headed.add(name)
        return name

    def bind(self) -> str:
        self.known.append(self.fresh.pop())
        return self.known[-1]

    def constant(self) -> int:
        return self.constants.pop()

    def header(self) -> None:
        parameters = ", ".join(self.bind() for _ in range(self.rng.choice((2, 3))))
        self.lines.append(f"def {self.rng.choice(FUNCTION_NAMES)}(self, {parameters}):")

    def assignment(self) -> None:
        right = f"{self.name()} {self.rng.choice(OPERATORS)} {self.constant()}"
        self.lines.append(f"    {self.bind()} = {right}")

    def call(self) -> None:
        right = f"{self.rng.choice(CALLS)}(self, {self.name()}, {self.constant()})"
        self.lines.append(f"    {self.bind()} = {right}")

    def mixture(self) -> None:
        left, right = self.rng.sample(self.known, 2)
        self.lines.append(f"    {self.bind()} = {left} {self.rng.choice(OPERATORS)} {right} * {self.constant()}")

    def update(self) -> None:
        self.lines.append(f"    {self.head()} += {self.constant()}")

    def branch(self) -> None:
        self.lines.append(f"    if {self.head()} {self.rng.choice(COMPARISONS)} {self.constant()}:")
        self.lines.append(f"        {self.head()} -= {self.constant()}")

    def loop(self) -> None:
        self.lines.append(f"    for {self.bind()} in range({self.constant()}):")
        self.lines.append(f"        {self.head()} += {self.constant()}")

    def write(self, num_lines: int) -> str:
        self.header()
        statements = (self.assignment, self.call, self.mixture, self.update, self.branch, self.loop)
        while len(self.lines) < num_lines - 1:
            self.rng.choice(statements)()
        self.lines.append(f"    return {self.known[-1]}")
        return "\n".join(self.lines)


def draw_function(rng: random.Random, num_lines: int) -> str:
    """A method of ``num_lines`` lines (one more when it ends in a block) whose constants are all different."""
    fresh = rng.sample(IDENTIFIERS, 18)
    constants = rng.sample(range(10, 100), 32)
    return _Writer(rng=rng, fresh=fresh, constants=constants).write(num_lines)


def replace_word(code: str, old: str, new: str) -> str:
    """The code with every whole-word ``old`` replaced."""
    return re.sub(rf"\b{re.escape(old)}\b", new, code)


def rename_variable(rng: random.Random, code: str) -> tuple[str, str]:
    """Another name for a parameter or local variable, everywhere."""
    used = used_names(code)
    old, new = rng.choice(used), rng.choice([word for word in IDENTIFIERS if word not in used])
    return f"Rename {old} to {new}.", replace_word(code, old, new)


def change_constant(rng: random.Random, code: str) -> tuple[str, str]:
    """Another number in one place; another variable name where there is no number."""
    used = sorted(set(re.findall(r"\b[0-9]+\b", code)))
    if not used:
        return rename_variable(rng, code)
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
