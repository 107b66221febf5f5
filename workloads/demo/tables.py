"""Questions over a given table: look-ups only, no arithmetic. It does not know tokens or arrivals."""

import random

from workloads.demo.conversation import Conversation, Turn, exact
from workloads.demo.vocabulary import CITIES, FIRST_NAMES, ITEMS, LETTERS, TEAMS

NUM_TURNS = ((2, 3), (3, 4, 5, 6), (3, 4, 5, 6), (1, 2, 3, 4))
NUM_ROWS = ((2, 3), (3, 5), (4, 7), (4, 7))
COLUMNS = {"staff": ("city", "team", "desk"), "stock": ("shelf", "stock", "origin")}
SYSTEM_PROMPTS = {
    "staff": (
        "You answer questions about a staff table. Each line has a person, a column and a value; the columns are city, "
        "team and desk. Use only the table. Answer with the lines that the user asks for and with nothing else. Never "
        "guess a value that is not in the table."
    ),
    "stock": (
        "You answer questions about a stock table. Each line has an item, a column and a value; the columns are shelf, "
        "stock and origin. Use only the table. Answer with the lines that the user asks for and with nothing else. "
        "Never guess a value that is not in the table."
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


def cell_line(table: Table, key: str, column: str) -> str:
    """One cell as it stands in the prompt and in an answer."""
    return f"{key} {column}: {table[key][column]}"


def draw_question(rng: random.Random, table: Table) -> tuple[str, str]:
    """A question about one row, and its answer: one cell, two cells or the whole row."""
    key = rng.choice(list(table))
    columns = list(table[key])
    kind = rng.random()
    if kind < 0.5:
        column = rng.choice(columns)
        return f"What is the {column} of {key}?", cell_line(table, key, column)
    if kind < 0.75:
        columns = rng.sample(columns, 2)
        question = f"What are the {columns[0]} and the {columns[1]} of {key}?"
    else:
        question = f"Show all of {key}."
    return question, "\n".join(cell_line(table, key, column) for column in columns)


def draw_conversation(rng: random.Random, size: int) -> Conversation:
    """A table and one to four questions about it."""
    tenant = rng.choice(sorted(SYSTEM_PROMPTS))
    table = draw_table(rng, tenant, rng.randint(*NUM_ROWS[size]))
    lines = "\n".join(cell_line(table, key, column) for key, row in table.items() for column in row)
    turns: list[Turn] = []
    for turn in range(rng.choice(NUM_TURNS[size])):
        question, answer = draw_question(rng, table)
        user = question if turn else f"{lines}\n\n{question}"
        turns.append(Turn(user=user, answer=answer, checks=(exact(answer),)))
    system = SYSTEM_PROMPTS[tenant] if size > 2 else ""
    return Conversation(task="table", tenant=tenant, system=system, turns=tuple(turns))
