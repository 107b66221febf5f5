"""`SearchSpaceError`: what can be wrong with a space or a hardware catalogue, in the user's words.

Does not know which command was run.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SearchSpaceError(ValueError):
    """`where: what. What to do next`: the sentence the user reads."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'?` when something known is close, else the list of what is known."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return "Known are: " + ", ".join(names) if names else "Nothing is known here: remove it"
