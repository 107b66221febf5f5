"""Questions over a given table: look-ups only, no arithmetic. It does not know tokens or arrivals."""

import random

from workloads.demo.conversation import Conversation, Turn, exact
from workloads.demo.vocabulary import CITIES, FIRST_NAMES, ITEMS, LETTERS, TEAMS

NUM_TURNS = ((2, 3), (3, 4, 5, 6), (3, 4, 5, 6), (1, 2, 3, 4))
NUM_ROWS = ((3, 4), (4, 6), (5, 8), (5, 8))
COLUMNS = {"staff": ("city", "team", "desk"), "stock": ("shelf", "stock", "origin")}
SYSTEM_PROMPTS = {
    "staff": (
        "You answer questions about a staff table. Each line is one person with a city, a team and a desk. Use only "
        "the table. Answer with one short sentence, or with the whole line when the user asks for it. Never guess a "
        "value that is not in the table."
    ),
    "stock": (
        "You answer questions about a stock table. Each line is one item with a shelf, a stock and an origin. Use "
        "only the table. Answer with one short sentence, or with the whole line when the user asks for it. Never "
        "guess a value that is not in the table."
    ),
}
Row = dict[str, str]
Table = dict[str, Row]


def _unique(rng: random.Random, words: list[str], count: int) -> list[str]:
    return rng.sample(words, count)


def _places(rng: random.Random, count: int) -> list[str]:
    numbers = rng.sample(range(10, 100), count)
    return [f"{rng.choice(LETTERS)}{number}" for number in numbers]


def _amounts(rng: random.Random, count: int) -> list[str]:
    return [str(number) for number in rng.sample(range(100, 1000), count)]


def draw_table(rng: random.Random, tenant: str, num_rows: int) -> Table:
    """``num_rows`` keyed rows; no value occurs twice in a column."""
    keys = _unique(rng, FIRST_NAMES if tenant == "staff" else ITEMS, num_rows)
    if tenant == "staff":
        columns = (_unique(rng, CITIES, num_rows), _unique(rng, TEAMS, num_rows), _places(rng, num_rows))
    else:
        columns = (_places(rng, num_rows), _amounts(rng, num_rows), _unique(rng, CITIES, num_rows))
    names = COLUMNS[tenant]
    rows = zip(*columns, strict=True)
    return {key: dict(zip(names, row, strict=True)) for key, row in zip(keys, rows, strict=True)}


def row_line(key: str, row: Row) -> str:
    """One row as it stands in the prompt."""
    return f"{key}: " + ", ".join(f"{column} {value}" for column, value in row.items())


def draw_question(rng: random.Random, table: Table) -> tuple[str, str]:
    """A question and its answer: a cell, the key of a cell, or a whole row."""
    key = rng.choice(list(table))
    column = rng.choice(list(table[key]))
    value = table[key][column]
    kind = rng.random()
    if kind < 0.6:
        return f"What is the {column} of {key}?", f"The {column} of {key} is {value}."
    if kind < 0.8:
        return f"Which line has {column} {value}?", f"The {column} {value} belongs to {key}."
    return f"Show the line of {key}.", row_line(key, table[key])


def draw_conversation(rng: random.Random, size: int) -> Conversation:
    """A table and one to four questions about it."""
    tenant = rng.choice(sorted(SYSTEM_PROMPTS))
    table = draw_table(rng, tenant, rng.randint(*NUM_ROWS[size]))
    lines = "\n".join(row_line(key, row) for key, row in table.items())
    turns: list[Turn] = []
    for turn in range(rng.choice(NUM_TURNS[size])):
        question, answer = draw_question(rng, table)
        user = question if turn else f"{lines}\n\n{question}"
        turns.append(Turn(user=user, answer=answer, checks=(exact(answer),)))
    system = SYSTEM_PROMPTS[tenant] if size > 2 else ""
    return Conversation(task="table", tenant=tenant, system=system, turns=tuple(turns))
