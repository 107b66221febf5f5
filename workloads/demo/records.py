"""Structured extraction: a message about an order, ticket or parcel becomes JSON. It does not know tokens."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from workloads.demo.conversation import Check, Conversation, Turn, exact
from workloads.demo.vocabulary import CITIES, FIRST_NAMES, ITEMS, LAST_NAMES, LETTERS, SERVICES

Value = str | int
Draw = Callable[[random.Random], Value]


def draw_person(rng: random.Random) -> str:
    """A first and a last name."""
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"


def draw_code(rng: random.Random) -> str:
    """A letter and four digits, the form of every id."""
    return f"{rng.choice(LETTERS)}{rng.randint(1000, 9999)}"


def draw_date(rng: random.Random) -> str:
    """A day of 2026 in ISO form."""
    return f"2026-{rng.randint(1, 12):02d}-{rng.randint(10, 28)}"


def _number(low: int, high: int) -> Draw:
    return lambda rng: rng.randint(low, high)


def _word(words: list[str]) -> Draw:
    return lambda rng: rng.choice(words)


@dataclass(frozen=True, kw_only=True)
class Field:
    """One key of a schema and how its value is drawn."""

    key: str
    draw: Draw
    json_type: str = "string"


@dataclass(frozen=True, kw_only=True)
class Schema:
    """A tenant's record type. ``others`` are fields of a message that must not be extracted."""

    tenant: str
    subject: str
    fields: tuple[Field, ...]
    others: tuple[Field, ...]

    def json_schema(self, keys: list[str]) -> dict[str, object]:
        """The JSON schema an answer with ``keys`` must satisfy."""
        return {
            "type": "object",
            "properties": {field.key: {"type": field.json_type} for field in self.fields if field.key in keys},
            "required": keys,
            "additionalProperties": False,
        }

    def system_prompt(self) -> str:
        """The tenant's shared system prompt: rules, then the keys."""
        keys = ", ".join(field.key for field in self.fields)
        integers = ", ".join(field.key for field in self.fields if field.json_type == "integer") or "none"
        return (
            f"You read one message about {self.subject} and return one JSON object. Copy every value exactly as it is "
            f"written. Ignore people, places and codes that do not belong to {self.subject}. When the user asks for "
            f"some keys only, return these keys only. Do not explain. Keys: {keys}. Integers: {integers}."
        )


ORDERS = Schema(
    tenant="orders",
    subject="an order",
    fields=(
        Field(key="order", draw=draw_code),
        Field(key="customer", draw=draw_person),
        Field(key="city", draw=_word(CITIES)),
        Field(key="item", draw=_word(ITEMS)),
        Field(key="quantity", draw=_number(10, 99), json_type="integer"),
        Field(key="date", draw=draw_date),
    ),
    others=(
        Field(key="clerk", draw=draw_person),
        Field(key="shop", draw=_word(CITIES)),
        Field(key="previous", draw=draw_code),
        Field(key="printed", draw=draw_date),
    ),
)

TICKETS = Schema(
    tenant="tickets",
    subject="a ticket",
    fields=(
        Field(key="ticket", draw=draw_code),
        Field(key="reporter", draw=draw_person),
        Field(key="service", draw=_word(SERVICES)),
        Field(key="site", draw=_word(CITIES)),
        Field(key="minutes", draw=_number(10, 99), json_type="integer"),
        Field(key="date", draw=draw_date),
    ),
    others=(
        Field(key="lead", draw=draw_person),
        Field(key="backup", draw=_word(CITIES)),
        Field(key="related", draw=draw_code),
        Field(key="queue", draw=_word(SERVICES)),
    ),
)

PARCELS = Schema(
    tenant="parcels",
    subject="a parcel",
    fields=(
        Field(key="parcel", draw=draw_code),
        Field(key="sender", draw=draw_person),
        Field(key="origin", draw=_word(CITIES)),
        Field(key="recipient", draw=draw_person),
        Field(key="destination", draw=_word(CITIES)),
        Field(key="date", draw=draw_date),
    ),
    others=(
        Field(key="driver", draw=draw_person),
        Field(key="hub", draw=_word(CITIES)),
        Field(key="pallet", draw=draw_code),
        Field(key="content", draw=_word(ITEMS)),
    ),
)

NUM_TURNS = ((1,), (2, 3), (2, 3), (1, 1, 2, 2, 3))
NUM_OTHERS = ((0, 1), (1, 3), (2, 4), (2, 4))
SCHEMAS = (ORDERS, TICKETS, PARCELS)


def draw_turn(schema: Schema, values: dict[str, Value], keys: list[str], user: str) -> Turn:
    """A turn whose answer is the JSON of ``keys``."""
    answer = json.dumps({key: values[key] for key in keys})
    checks = (exact(answer), Check(kind="json_schema", spec=json.dumps(schema.json_schema(keys))))
    return Turn(user=user, answer=answer, checks=checks)


def draw_message(rng: random.Random, schema: Schema, values: dict[str, Value], num_others: int) -> str:
    """One line a field, in any order, with fields between them that nobody asked for."""
    lines = [f"{key}: {value}" for key, value in values.items()]
    lines += [f"{field.key}: {field.draw(rng)}" for field in rng.sample(schema.others, num_others)]
    rng.shuffle(lines)
    return "\n".join(lines)


def draw_conversation(rng: random.Random, size: int) -> Conversation:
    """A message, then requests for some keys. ``size`` 0 to 2 grow and have no rules; 3 is the traffic."""
    schema = rng.choice(SCHEMAS)
    values = {field.key: field.draw(rng) for field in schema.fields}
    message = draw_message(rng, schema, values, rng.randint(*NUM_OTHERS[size]))
    turns = [draw_turn(schema, values, list(values), message)]
    for _ in range(rng.choice(NUM_TURNS[size]) - 1):
        keys = rng.sample(list(values), rng.randint(1, 2))
        turns.append(draw_turn(schema, values, keys, f"Only {' and '.join(keys)}."))
    system = schema.system_prompt() if size > 2 else ""
    return Conversation(task="extraction", tenant=schema.tenant, system=system, turns=tuple(turns))
