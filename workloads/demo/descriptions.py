"""Free text: short product descriptions in words drawn at random. It does not know tokens or arrivals."""

import random

from workloads.demo.conversation import Conversation, Turn, contains
from workloads.demo.vocabulary import ADJECTIVES, BRANDS, ITEMS, MATERIALS, PLACES

NUM_TURNS = ((1,), (2, 3), (2, 3), (1, 1, 2))
SYSTEM_PROMPTS = {
    "shop": (
        "You write short product texts for a web shop. Mention the brand, the item, the material and the room. Two "
        "or three friendly sentences, no lists, no prices, no promises."
    ),
    "catalog": (
        "You write entries for a printed catalog. Mention the brand, the item, the material and the room. Keep it "
        "calm and factual, two or three sentences, no lists and no prices."
    ),
}
OPENINGS = (
    "Meet the {adjective} {item} by {brand}.",
    "The {brand} {item} is a {adjective} companion for every day.",
    "This {adjective} {item} comes from {brand}.",
    "With its {item}, {brand} shows how {adjective} design can be.",
)
MIDDLES = (
    "It is made of {material} and feels right at home in the {place}.",
    "Its {material} body suits any {place} and lasts for years.",
    "Built from {material}, it belongs in the {place}.",
    "The {material} finish brings a {second} touch to the {place}.",
)
ENDINGS = (
    "A {second} choice for people who value care.",
    "You will enjoy its {second} character every morning.",
    "It stays {second} even after long use.",
    "Simple to clean, easy to love, and always {second}.",
)


def draw_turn(rng: random.Random) -> Turn:
    """A request with four attributes and one of many fitting texts."""
    adjective, second = rng.sample(ADJECTIVES, 2)
    facts = {
        "item": rng.choice(ITEMS),
        "brand": rng.choice(BRANDS),
        "material": rng.choice(MATERIALS),
        "place": rng.choice(PLACES),
    }
    parts = (rng.choice(OPENINGS), rng.choice(MIDDLES), rng.choice(ENDINGS))
    answer = " ".join(part.format(adjective=adjective, second=second, **facts) for part in parts)
    user = "Describe this product. " + ", ".join(f"{key}: {value}" for key, value in facts.items()) + "."
    return Turn(user=user, answer=answer, checks=(contains(list(facts.values())),))


def draw_conversation(rng: random.Random, size: int) -> Conversation:
    """One or two descriptions for one tenant."""
    tenant = rng.choice(sorted(SYSTEM_PROMPTS))
    turns = tuple(draw_turn(rng) for _ in range(rng.choice(NUM_TURNS[size])))
    system = SYSTEM_PROMPTS[tenant] if size > 2 else ""
    return Conversation(task="text", tenant=tenant, system=system, turns=turns)
