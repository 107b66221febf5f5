"""`SearchSpace`: which engine configs a study may try, read from YAML.

Does not know EngineConfig: fields are dotted names, checked against a set the caller gives.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, model_validator

from search_spaces.errors import SearchSpaceError, did_you_mean
from search_spaces.launch_template import ENGINE_ARGS, LaunchTemplate
from search_spaces.parameter import Assignment, Frozen, Parameter, Value, contains
from search_spaces.placeholders import fill, unresolved
from search_spaces.reading import read_mapping, validate

FOLDER = Path(__file__).parent
CATALOGUES = ("skus",)  # bundled YAML files that are not spaces


class Resolution(NamedTuple):
    """A space whose placeholders are filled in, and what that took away, in sentences."""

    space: SearchSpace
    notes: tuple[str, ...]


class SearchSpace(Frozen):
    """Parameters in order (a condition may name only earlier ones) and fixed fields; `launch`: of engine `command`."""

    name: str
    description: str = ""
    parameters: dict[str, Parameter]
    fixed: dict[str, Value] = Field(default_factory=dict)
    launch: LaunchTemplate | None = None

    @model_validator(mode="after")
    def _conditions_name_earlier_values(self) -> SearchSpace:
        earlier: dict[str, Parameter] = {}
        for name, parameter in self.parameters.items():
            for other, values in parameter.when.items():
                if other not in earlier:
                    hint = did_you_mean(other, earlier)
                    raise ValueError(f"parameters.{name}.when: {other!r} is not an earlier parameter. {hint}")
                for value in values:
                    if not contains(earlier[other].values(), value):
                        raise ValueError(f"parameters.{name}.when: {value!r} is not a value of {other}")
            earlier[name] = parameter
        return self

    @model_validator(mode="after")
    def _fixed_fields_do_not_vary(self) -> SearchSpace:
        for name, parameter in self.parameters.items():
            for field in parameter.fields(name):
                if field in self.fixed:
                    raise ValueError(f"fixed.{field}: the parameter {name} varies it. Remove one of the two")
        return self

    @model_validator(mode="after")
    def _arguments_reach_the_server(self) -> SearchSpace:
        if self.launch is None:
            return self
        arguments = {field.removeprefix(ENGINE_ARGS) for field in self.fields() if field.startswith(ENGINE_ARGS)}
        for argument in sorted(arguments):
            if not self.launch.takes(argument):
                raise ValueError(
                    f'{ENGINE_ARGS}{argument} does not reach the server. Add "{{flags}}" to launch.command'
                )
        for name in self.launch.quality:
            if name not in arguments:
                hint = did_you_mean(name, arguments)
                raise ValueError(f"launch.quality.{name}: no parameter sets {ENGINE_ARGS}{name}. {hint}")
        return self

    def resolve(self, placeholders: Mapping[str, str | int | None]) -> Resolution:
        """Fill in `$name` placeholders; what needs one that is None or absent vanishes, with a note."""
        filled = fill(self.parameters, placeholders)
        return Resolution(self._with(filled.parameters), filled.notes)

    def active(self, assignment: Assignment) -> Iterator[tuple[str, Parameter]]:
        """The parameters whose conditions hold under the assignment."""
        return ((name, p) for name, p in self.parameters.items() if p.applies(assignment))

    @property
    def default_assignment(self) -> dict[str, Value]:
        assignment: dict[str, Value] = {}
        for name, parameter in self.parameters.items():
            if parameter.applies(assignment):
                assignment[name] = parameter.default_value()
        return assignment

    def enumerate(self) -> Iterator[dict[str, Value]]:
        """Every assignment once, lazily; the last parameter varies fastest."""
        return _enumerate(list(self.parameters.items()), {})

    def size(self) -> int:
        """How many assignments there are, without listing them."""
        deciding = {other for p in self.parameters.values() for other in p.when}
        deciders = [(name, p) for name, p in self.parameters.items() if name in deciding]
        return sum(
            math.prod(len(p.values()) for name, p in self.active(partial) if name not in deciding)
            for partial in _enumerate(deciders, {})
        )

    def contains(self, assignment: Assignment) -> bool:
        """Whether it names exactly the parameters that apply, each with one of its values."""
        active = dict(self.active(assignment))
        return active.keys() == assignment.keys() and all(
            contains(p.values(), assignment[name]) for name, p in active.items()
        )

    def settings(self, assignment: Assignment) -> dict[str, Value]:
        """Dotted fields and their values under the assignment, fixed ones included.

        Raises:
            SearchSpaceError: a placeholder is not filled in, or the assignment is not of this space.
        """
        if not self.contains(assignment):
            raise SearchSpaceError(
                f"{dict(assignment)} is not in the space {self.name}. Use an assignment it enumerates"
            )
        settings = dict(self.fixed)
        for name, parameter in self.active(assignment):
            settings |= parameter.settings(name, assignment[name])
        for field, value in settings.items():
            if isinstance(value, str) and value.startswith("$"):
                raise SearchSpaceError(f"{self.name}: {field} needs {value}. Give it to SearchSpace.resolve")
        return settings

    def overrides(self, assignment: Assignment) -> dict[str, object]:
        """What to merge over a base config: nested where names are dotted."""
        return _nested(self.settings(assignment))

    @property
    def fixed_overrides(self) -> dict[str, object]:
        """The fixed fields, nested where names are dotted."""
        return _nested(self.fixed)

    def fields(self) -> set[str]:
        """Every dotted field it fixes or varies."""
        return set(self.fixed) | {field for name, p in self.parameters.items() for field in p.fields(name)}

    def validate_names(self, known: set[str]) -> None:
        """Raises SearchSpaceError when a field is none of the `known` ones."""
        places = [(f"fixed.{field}", field) for field in self.fixed]
        places += [(f"parameters.{name}", field) for name, p in self.parameters.items() for field in p.fields(name)]
        for place, field in places:
            if field not in known:
                raise SearchSpaceError(f"{self.name}: {place}: no field {field!r}. {did_you_mean(field, known)}")

    def including(self, current: Mapping[str, Value]) -> SearchSpace:
        """The space with the config `current` (dotted fields) as its default; its values are added where missing.

        Raises:
            SearchSpaceError: fields that vary together have a combination no option names.
        """
        parameters: dict[str, Parameter] = {}
        assignment: dict[str, Value] = {}
        for name, parameter in self.parameters.items():
            if parameter.applies(assignment):
                value = _value_in(name, parameter, current, self.name)
                parameter = _with_default(parameter, value)
                assignment[name] = value
            parameters[name] = parameter
        return self._with(parameters)

    def _with(self, parameters: dict[str, Parameter]) -> SearchSpace:
        plain = SearchSpace(name=self.name, description=self.description, parameters=parameters, fixed=self.fixed)
        return plain.model_copy(update={"launch": self.launch})

    def unresolved(self) -> set[str]:
        """Names of the placeholders that are not filled in."""
        return unresolved(self.parameters)

    def fingerprint(self) -> str:
        """Twelve hex digits that name the space whatever its name and description."""
        kept: dict[str, object] = {
            "parameters": [(n, p.model_dump(mode="json")) for n, p in self.parameters.items()],
            "fixed": self.fixed,
        }
        if self.launch is not None:
            kept["launch"] = self.launch.model_dump(mode="json")
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def _enumerate(parameters: list[tuple[str, Parameter]], chosen: dict[str, Value]) -> Iterator[dict[str, Value]]:
    if not parameters:
        yield dict(chosen)
        return
    (name, parameter), *rest = parameters
    if not parameter.applies(chosen):
        yield from _enumerate(rest, chosen)
        return
    for value in parameter.values():
        yield from _enumerate(rest, {**chosen, name: value})


def _nested(settings: Mapping[str, Value]) -> dict[str, object]:
    nested: dict[str, object] = {}
    for field, value in settings.items():
        _put(nested, field.split("."), value)
    return nested


def _put(nested: dict[str, object], path: list[str], value: Value) -> None:
    for part in path[:-1]:
        inner = nested.get(part)
        if not isinstance(inner, dict):
            inner = nested[part] = {}
        nested = inner
    nested[path[-1]] = value


def _value_in(name: str, parameter: Parameter, current: Mapping[str, Value], space: str) -> Value:
    """The value under which the parameter says what `current` says."""
    if parameter.options is None:
        return current.get(parameter.sets or name)
    for option, fields in parameter.options.items():
        if all(_has(current, field, value) for field, value in fields.items()):
            return option
    fields_now = {field: current.get(field) for field in parameter.fields(name)}
    raise SearchSpaceError(
        f"{space}: parameters.{name}: no option has the base config's {fields_now}. Add one, or change the base config"
    )


def _has(current: Mapping[str, Value], field: str, value: Value) -> bool:
    """A section is None only when none of its own fields is there."""
    inside = any(name.startswith(f"{field}.") for name in current)
    return not inside and current.get(field) == value


def _with_default(parameter: Parameter, value: Value) -> Parameter:
    changes: dict[str, object] = {"default": value}
    if not contains(parameter.values(), value):
        changes |= {"choices": (value, *parameter.values()), "range": None, "below": None}
    kept = {name: getattr(parameter, name) for name in parameter.model_fields_set} | changes
    return Parameter.model_validate(kept)


def bundled_spaces() -> list[str]:
    """Names of the spaces that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in CATALOGUES)


def load_search_space(path_or_name: Path | str) -> SearchSpace:
    """Read a space from a YAML file, or a bundled one by its name.

    Raises:
        SearchSpaceError: no such space or file, unknown keys, invalid values.
    """
    path = Path(path_or_name)
    if str(path_or_name) in bundled_spaces():
        path = FOLDER / f"{path_or_name}.yaml"
    elif not path.suffix and not path.exists():
        hint = did_you_mean(str(path_or_name), bundled_spaces())
        raise SearchSpaceError(f"no bundled search space is called {str(path_or_name)!r}. {hint} Or give a YAML file")
    return validate(SearchSpace, {"name": path.stem} | read_mapping(path), where=str(path_or_name))
