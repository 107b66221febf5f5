"""Strategies that choose what a study tries next: a protocol, one file per member, the table below.

Does not run or measure anything.
"""

from __future__ import annotations

from collections.abc import Callable

from optimizer.suggest.random import RandomSuggester
from optimizer.suggest.suggester import Problem, Suggester
from optimizer.suggest.surrogate import SurrogateSuggester
from optimizer.suggest.tpe import TpeSuggester

DEFAULT_STRATEGY = "surrogate"
SUGGESTERS: dict[str, Callable[[Problem], Suggester]] = {
    "surrogate": SurrogateSuggester,
    "tpe": TpeSuggester,
    "random": RandomSuggester,
}
