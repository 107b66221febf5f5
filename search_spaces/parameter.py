"""`Parameter`: one thing that may vary, with its values, its default and when it applies.

Does not know the other parameters, nor what its fields mean to an engine.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

Value = StrictBool | StrictInt | StrictFloat | StrictStr | None
Assignment = Mapping[str, Value]
"""Parameter names to values; parameters that do not apply are absent."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IntRange(Frozen):
    """`low` to `high`, both included: every `step`, or every doubling from `low` when `log`."""

    low: StrictInt
    high: StrictInt
    step: StrictInt = Field(default=1, ge=1)
    log: StrictBool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> IntRange:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is larger than high ({self.high})")
        if self.log and self.low < 1:
            raise ValueError("a log range starts at 1 or more")
        if self.log and self.step != 1:
            raise ValueError("give log or step, not both")
        return self

    def values(self) -> tuple[int, ...]:
        if not self.log:
            return tuple(range(self.low, self.high + 1, self.step))
        doublings = (self.high // self.low).bit_length()
        return tuple(self.low << i for i in range(doublings))


class Parameter(Frozen):
    """One of: `choices` of the field named by `sets` (or by the parameter itself), an int `range` of it,
    or `options`, each of which sets several fields together.

    A text value that starts with `$` is a placeholder filled in by `SearchSpace.resolve`.
    """

    choices: tuple[Value, ...] | None = None
    range: IntRange | None = None
    options: dict[str, dict[str, Value]] | None = None
    sets: str | None = None  # dotted EngineConfig field; None: the parameter's own name
    default: Value = None  # meaningful only when given; else the first value
    when: dict[str, tuple[Value, ...]] = {}  # applies only if each named parameter has one of these values
    below: StrictInt | StrictStr | None = None  # keeps only the numbers below it; may be a placeholder

    @model_validator(mode="before")
    @classmethod
    def _a_bare_list_means_choices(cls, values: object) -> object:
        return {"choices": values} if isinstance(values, list | tuple) else values

    @model_validator(mode="after")
    def _values_are_clear(self) -> Parameter:
        if sum(kind is not None for kind in (self.choices, self.range, self.options)) != 1:
            raise ValueError("give exactly one of choices, range and options")
        if self.options is not None and self.sets is not None:
            raise ValueError("sets belongs to choices and range; options name their fields themselves")
        values = self.values()
        if not values:
            raise ValueError("has no value to choose from")
        if any(contains(values[:i], value) for i, value in enumerate(values)):
            raise ValueError("lists a value twice")
        if "default" in self.model_fields_set and not contains(values, self.default):
            raise ValueError(f"the default {self.default!r} is not among its values")
        return self

    def values(self) -> tuple[Value, ...]:
        """Every value, in the order of the file."""
        if self.options is not None:
            return tuple(self.options)
        values = self.choices if self.choices is not None else self.range.values() if self.range else ()
        if not isinstance(self.below, int):
            return values
        return tuple(v for v in values if not _is_number(v) or v < self.below)  # type: ignore[operator]

    def default_value(self) -> Value:
        return self.default if "default" in self.model_fields_set else self.values()[0]

    def fields(self, name: str) -> tuple[str, ...]:
        """Dotted EngineConfig fields this parameter, called `name`, can set."""
        if self.options is None:
            return (self.sets or name,)
        return tuple(dict.fromkeys(field for option in self.options.values() for field in option))

    def settings(self, name: str, value: Value) -> dict[str, Value]:
        """Dotted fields and what they become under `value`."""
        if self.options is None:
            return {self.sets or name: value}
        return dict(self.options[str(value)])

    def applies(self, assignment: Assignment) -> bool:
        """Whether every condition holds; a condition on an absent parameter does not."""
        return all(name in assignment and contains(values, assignment[name]) for name, values in self.when.items())


def contains(values: tuple[Value, ...], value: Value) -> bool:
    """Membership that keeps True and 1 apart."""
    return any(type(v) is type(value) and v == value for v in values)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
