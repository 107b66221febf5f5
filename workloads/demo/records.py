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
    """One key of a schema, how its value is drawn, and the sentences that can carry it."""

    key: str
    draw: Draw
    sentences: tuple[str, ...]
    json_type: str = "string"


@dataclass(frozen=True, kw_only=True)
class Schema:
    """A tenant's record type. ``distractors`` are sentences whose values must not be extracted."""

    tenant: str
    subject: str
    fields: tuple[Field, ...]
    distractors: tuple[str, ...]

    def json_schema(self) -> dict[str, object]:
        """The JSON schema an answer must satisfy."""
        return {
            "type": "object",
            "properties": {field.key: {"type": field.json_type} for field in self.fields},
            "required": [field.key for field in self.fields],
            "additionalProperties": False,
        }

    def system_prompt(self) -> str:
        """The tenant's shared system prompt: rules, then the schema as key and type."""
        keys = ", ".join(f'"{field.key}": "{field.json_type}"' for field in self.fields)
        return (
            f"You read one message about {self.subject} and return one JSON object. Copy every value exactly as it is "
            f"written. Ignore people, places and codes that do not belong to {self.subject}. Do not explain. "
            f"Schema: {{{keys}}}"
        )


ORDERS = Schema(
    tenant="orders",
    subject="an order",
    fields=(
        Field(key="order", draw=draw_code, sentences=("Order {order} came in today.", "The order number is {order}.")),
        Field(
            key="customer",
            draw=draw_person,
            sentences=("The customer is {customer}.", "{customer} placed it.", "It was bought by {customer}."),
        ),
        Field(key="city", draw=_word(CITIES), sentences=("Send it to {city}.", "The delivery goes to {city}.")),
        Field(key="item", draw=_word(ITEMS), sentences=("The item is {item}.", "The product wanted is {item}.")),
        Field(
            key="quantity",
            draw=_number(10, 99),
            sentences=("The quantity is {quantity}.", "Please pack {quantity} pieces."),
            json_type="integer",
        ),
        Field(key="date", draw=draw_date, sentences=("The order date is {date}.", "They ordered on {date}.")),
    ),
    distractors=("The clerk was {person}.", "The older order {code} was cancelled.", "Our shop is in {place}."),
)

TICKETS = Schema(
    tenant="tickets",
    subject="a ticket",
    fields=(
        Field(key="ticket", draw=draw_code, sentences=("Ticket {ticket} was opened.", "This is ticket {ticket}.")),
        Field(
            key="reporter",
            draw=draw_person,
            sentences=("The reporter is {reporter}.", "{reporter} noticed it first.", "It was reported by {reporter}."),
        ),
        Field(
            key="service",
            draw=_word(SERVICES),
            sentences=("The service affected is {service}.", "The problem is in {service}."),
        ),
        Field(key="site", draw=_word(CITIES), sentences=("It happened at the {site} site.", "The site is {site}.")),
        Field(
            key="minutes",
            draw=_number(10, 99),
            sentences=("It lasted {minutes} minutes.", "The outage took {minutes} minutes."),
            json_type="integer",
        ),
        Field(key="date", draw=draw_date, sentences=("It began on {date}.", "The first alarm came on {date}.")),
    ),
    distractors=("The shift lead was {person}.", "See also the closed case {code}.", "The backup runs in {place}."),
)

PARCELS = Schema(
    tenant="parcels",
    subject="a parcel",
    fields=(
        Field(key="parcel", draw=draw_code, sentences=("Parcel {parcel} is moving.", "The label says {parcel}.")),
        Field(key="sender", draw=draw_person, sentences=("The sender is {sender}.", "It was sent by {sender}.")),
        Field(key="origin", draw=_word(CITIES), sentences=("It left {origin} today.", "It comes from {origin}.")),
        Field(
            key="recipient",
            draw=draw_person,
            sentences=("The recipient is {recipient}.", "It is addressed to {recipient}."),
        ),
        Field(
            key="destination",
            draw=_word(CITIES),
            sentences=("It is going to {destination}.", "The destination is {destination}."),
        ),
        Field(key="date", draw=draw_date, sentences=("It was shipped on {date}.", "The shipping date is {date}.")),
    ),
    distractors=("The driver is {person}.", "It shares a pallet with {code}.", "The van was washed in {place}."),
)

NUM_TURNS = ((1,), (2, 3, 4), (2, 3, 4), (1, 1, 2, 2, 3))
SCHEMAS = (ORDERS, TICKETS, PARCELS)


def draw_turn(rng: random.Random, schema: Schema, *, num_distractors: int) -> Turn:
    """One message with every field of the schema in any order, and its JSON."""
    values = {field.key: field.draw(rng) for field in schema.fields}
    sentences = [rng.choice(field.sentences).format(**values) for field in schema.fields]
    noise = {"person": draw_person(rng), "code": draw_code(rng), "place": rng.choice(CITIES)}
    sentences += [text.format(**noise) for text in rng.sample(schema.distractors, num_distractors)]
    rng.shuffle(sentences)
    answer = json.dumps(values)
    checks = (exact(answer), Check(kind="json_schema", spec=json.dumps(schema.json_schema())))
    return Turn(user=" ".join(sentences), answer=answer, checks=checks)


def draw_conversation(rng: random.Random, size: int) -> Conversation:
    """One to three messages of one tenant. ``size`` 0 to 2 grow and have no rules; 3 is the traffic."""
    schema = rng.choice(SCHEMAS)
    num_turns = rng.choice(NUM_TURNS[size])
    turns = tuple(draw_turn(rng, schema, num_distractors=rng.randint(0, min(size, 2))) for _ in range(num_turns))
    system = schema.system_prompt() if size > 2 else ""
    return Conversation(task="extraction", tenant=schema.tenant, system=system, turns=turns)
