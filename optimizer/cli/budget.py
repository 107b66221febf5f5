"""`Budget`: how long a study may go on, `5m` or `30trials`.

Does not know what a trial costs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import click

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Exactly one of the two is set; seconds include the verification at the end."""

    seconds: float | None = None
    trials: int | None = None

    def __str__(self) -> str:
        if self.trials is not None:
            return f"{self.trials} trials"
        seconds = self.seconds or 0
        return f"{seconds:g} s" if seconds % 60 else f"{seconds / 60:g} min"


class BudgetType(click.ParamType[Budget]):
    """Parses `90s`, `5m`, `2h`, `30trials`."""

    name = "budget"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Budget:
        if isinstance(value, Budget):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|trials?)", str(value).strip().replace(" ", ""))
        if match is None or float(match[1]) <= 0:
            self.fail(
                f"{value!r} is not a budget. Write a time such as 5m or 2h, or a count such as 30trials", param, ctx
            )
        if match[2].startswith("trial"):
            return Budget(trials=int(float(match[1])))
        return Budget(seconds=float(match[1]) * _SECONDS[match[2]])
