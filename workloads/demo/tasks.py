"""The registry of demo tasks and their mix. It does not know tokens or arrivals."""

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType

from workloads.demo import descriptions, edits, records, tables
from workloads.demo.conversation import Conversation, TaskName

DrawConversation = Callable[[random.Random, int], Conversation]

TASKS: Mapping[TaskName, DrawConversation] = MappingProxyType(
    {
        "extraction": records.draw_conversation,
        "edit": edits.draw_conversation,
        "table": tables.draw_conversation,
        "text": descriptions.draw_conversation,
    }
)
FULL_SIZE = 3


def draw_conversation(rng: random.Random, mix: Mapping[TaskName, float], size: int = FULL_SIZE) -> Conversation:
    """A conversation whose task is drawn with the weights of ``mix``."""
    names = list(mix)
    task = rng.choices(names, weights=[mix[name] for name in names])[0]
    return TASKS[task](rng, size)
