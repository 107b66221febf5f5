"""From a point of a search space to the `EngineConfig` it means.

Does not know which points are worth trying, nor which an engine can run.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import get_args

from pydantic import BaseModel

from engine.config import EngineConfig, parse_engine_config
from search_spaces.launch_template import ENGINE_ARGS
from search_spaces.parameter import Assignment
from search_spaces.space import SearchSpace


def known_fields() -> set[str]:
    """Every dotted EngineConfig field a space may name; an optional section counts itself too."""
    return set(_fields(EngineConfig, ""))


def _validate_names(space: SearchSpace) -> None:
    arguments = {field for field in space.fields() if field.startswith(ENGINE_ARGS)}
    space.validate_names(known_fields() | arguments)


def space_around(space: SearchSpace, base: EngineConfig) -> SearchSpace:
    """The space, its names checked, with `base` as its default so that trial 0 measures exactly `base`.

    Raises:
        SearchSpaceError: an unknown field, or a linked choice that cannot express `base`.
    """
    _validate_names(space)
    return space.including(base.flat())


def with_fixed(base: EngineConfig, space: SearchSpace) -> EngineConfig:
    """`base` with the space's fixed fields, which every candidate has, so that trial 0 has them too.

    Raises:
        ConfigError: the fields do not make a config together.
        SearchSpaceError: an unknown field.
    """
    _validate_names(space)
    if not space.fixed:
        return base
    return parse_engine_config(_merge(base.model_dump(mode="json"), space.fixed_overrides), where=space.name)


def make_config(base: EngineConfig, space: SearchSpace, assignment: Assignment) -> EngineConfig:
    """`base` with the assignment's fields over it.

    Raises:
        ConfigError: the fields do not make a config together.
        SearchSpaceError: the assignment is not of the space.
    """
    values = _merge(base.model_dump(mode="json"), space.overrides(assignment))
    return parse_engine_config(values, where=f"{space.name} {describe(assignment)}")


def describe(assignment: Assignment) -> str:
    """`dtype=float32 speculation=none ...`"""
    return " ".join(f"{name}={value}" for name, value in assignment.items())


def _merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """A section that names its `method` starts afresh: leftovers of another method would not fit it."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        fresh = not isinstance(value, Mapping) or not isinstance(below, Mapping) or "method" in value
        merged[key] = value if fresh else _merge(below, value)  # type: ignore[arg-type]
    return merged


def _fields(model: type[BaseModel], prefix: str) -> list[str]:
    names: list[str] = []
    for name, field in model.model_fields.items():
        if name == "launch":
            continue  # how a server is started is the same for all configs of a space
        section = _section(field.annotation)
        optional = isinstance(field.annotation, UnionType) and NoneType in get_args(field.annotation)
        if section is None or optional:
            names.append(prefix + name)
        if section is not None:
            names += _fields(section, f"{prefix}{name}.")
    return names


def _section(annotation: object) -> type[BaseModel] | None:
    candidates = (annotation, *get_args(annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
