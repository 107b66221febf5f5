"""Filling in `$name` placeholders of a space: folders of drafts and heads, the number of cores.

Does not know where the values come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from search_spaces.parameter import Parameter, Value, contains

Placeholders = Mapping[str, str | int | None]


class Filled(NamedTuple):
    """Parameters without placeholders, and what vanished with the missing ones."""

    parameters: dict[str, Parameter]
    notes: tuple[str, ...]


def unresolved(parameters: Mapping[str, Parameter]) -> set[str]:
    """Names of all placeholders in these parameters."""
    return {value[1:] for p in parameters.values() for value in _texts(p) if value.startswith("$")}


def fill(parameters: Mapping[str, Parameter], placeholders: Placeholders) -> Filled:
    """Replace placeholders; values that need a missing one vanish, then the parameters that lost their condition."""
    kept: dict[str, Parameter] = {}
    notes: list[str] = []
    for name, parameter in parameters.items():
        filled = _fill_parameter(parameter, placeholders)
        lost = [value for value in parameter.values() if not contains(_unfilled_values(filled), value)]
        if filled is None or not _can_apply(filled, kept):
            continue
        if lost and (missing := _missing(parameter, placeholders)):
            given = ", ".join(f"there is no {m}" for m in missing)
            notes.append(f"{name}: {', '.join(map(str, lost))} left out, because {given}")
        kept[name] = _with_living_conditions(filled, kept)
    return Filled(kept, tuple(notes))


def _texts(parameter: Parameter) -> Iterator[str]:
    values = [*(parameter.choices or ()), parameter.below]
    values += [value for option in (parameter.options or {}).values() for value in option.values()]
    return (value for value in values if isinstance(value, str))


def _missing(parameter: Parameter, placeholders: Placeholders) -> list[str]:
    names = sorted({text[1:] for text in _texts(parameter) if text.startswith("$")})
    return [name for name in names if placeholders.get(name) is None and f"${name}" != parameter.below]


def _unfilled_values(parameter: Parameter | None) -> tuple[Value, ...]:
    return parameter.values() if parameter is not None else ()


def _fill_parameter(parameter: Parameter, placeholders: Placeholders) -> Parameter | None:
    """None when no value is left."""
    changes: dict[str, object] = {"below": _filled(parameter.below, placeholders)}
    if parameter.choices is not None:
        changes["choices"] = tuple(_filled(v, placeholders) for v in parameter.choices if _has(v, placeholders))
    if parameter.options is not None:
        changes["options"] = {
            name: {field: _filled(value, placeholders) for field, value in fields.items()}
            for name, fields in parameter.options.items()
            if all(_has(value, placeholders) for value in fields.values())
        }
    filled = parameter.model_copy(update=changes)
    if not filled.values():
        return None
    if "default" in parameter.model_fields_set and not contains(filled.values(), parameter.default):
        filled = filled.model_copy(update={"default": filled.values()[0]})
    return filled


def _has(value: Value, placeholders: Placeholders) -> bool:
    return not _is_placeholder(value) or _filled(value, placeholders) is not None


def _filled(value: Value, placeholders: Placeholders) -> Value:
    return placeholders.get(str(value)[1:]) if _is_placeholder(value) else value


def _is_placeholder(value: Value) -> bool:
    return isinstance(value, str) and value.startswith("$")


def _can_apply(parameter: Parameter, kept: Mapping[str, Parameter]) -> bool:
    return all(
        other in kept and any(contains(kept[other].values(), value) for value in values)
        for other, values in parameter.when.items()
    )


def _with_living_conditions(parameter: Parameter, kept: Mapping[str, Parameter]) -> Parameter:
    when = {other: tuple(v for v in vs if contains(kept[other].values(), v)) for other, vs in parameter.when.items()}
    return parameter.model_copy(update={"when": when})
