"""`LaunchTemplate`: a command that starts a server, with `{places}` for what varies. There is no shell in between.

Does not know engine configs and starts nothing: whoever does gives the values.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from string import Formatter
from typing import NamedTuple

from pydantic import Field, StrictStr, model_validator

from search_spaces.errors import SearchSpaceError, did_you_mean
from search_spaces.parameter import Frozen, Value

FLAGS = "flags"
ENGINE_ARGS = "engine_args."
PLACES = ("model", "model_name", "host", "port", FLAGS)
"""The model's folder, its last part, where to listen, and every `engine_args` entry that no other place names."""
CONFIG_PLACES = (
    *("max_num_seqs", "max_num_batched_tokens", "max_model_len", "tensor_parallel_size", "pipeline_parallel_size"),
    *("data_parallel_size", "block_size", "dtype", "seed", "num_threads"),
)
"""Fields of a config that a command may name as well."""


class Started(NamedTuple):
    """A filled-in template: arguments for the system, and what is added to the environment."""

    command: list[str]
    environment: dict[str, str]


class LaunchTemplate(Frozen):
    """`{{` and `}}` are braces. A place may also be `{engine_args.NAME}`; as an environment variable it vanishes with
    its value. `quality` names the `engine_args` that change the numbers a model computes, with the value of each that
    quality is measured against (null: the flag left out).
    """

    command: tuple[StrictStr, ...] = Field(min_length=1)
    environment: dict[str, StrictStr] = Field(default_factory=dict)
    health: StrictStr = "/health"  # answers 200 once requests can be sent
    timeout_s: float = Field(default=600, gt=0)  # from the start to the first 200
    quality: dict[str, Value] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _places_are_known(self) -> LaunchTemplate:
        for where, text in self._texts():
            for place in _places(text, where):
                _check_place(place, text, where)
        if "port" not in self.places():
            raise ValueError("no {port} in command or environment: several servers must be able to run at once")
        if not self.health.startswith("/"):
            raise ValueError(f"health: {self.health!r} is no path. Write it as /health")
        return self

    def places(self) -> set[str]:
        """Every place that the command or the environment names."""
        return {place for where, text in self._texts() for place in _places(text, where)}

    def takes(self, argument: str) -> bool:
        """Whether an `engine_args` entry reaches the server."""
        return bool({FLAGS, ENGINE_ARGS + argument} & self.places())

    def fill(self, values: Mapping[str, object], engine_args: Mapping[str, object]) -> Started:
        """The command for one config.

        Args:
            values: of `PLACES` but flags, and of the config's fields that the template names.

        Raises:
            SearchSpaceError: a place of the command has no value.
        """
        named = {place.removeprefix(ENGINE_ARGS) for place in self.places() if place.startswith(ENGINE_ARGS)}
        all_values = {**values, **{ENGINE_ARGS + name: value for name, value in engine_args.items()}}
        loose = {name: value for name, value in engine_args.items() if name not in named}
        command: list[str] = []
        for number, argument in enumerate(self.command):
            if argument == "{flags}":
                command += flags(loose)
            else:
                command.append(_filled(argument, f"command[{number}]", all_values))
        environment = {
            name: _filled(text, f"environment.{name}", all_values)
            for name, text in self.environment.items()
            if all(all_values.get(place) is not None for place in _places(text, name) if place.startswith(ENGINE_ARGS))
        }
        return Started(command, environment)

    def _texts(self) -> Iterator[tuple[str, str]]:
        yield from ((f"command[{number}]", text) for number, text in enumerate(self.command))
        yield from ((f"environment.{name}", text) for name, text in self.environment.items())


def flags(values: Mapping[str, object]) -> list[str]:
    """`{"max-len": 8, "eager": True, "cache": None}` as `--max-len 8 --eager`.

    None and False leave a flag out, True gives it alone, a list gives it several values, a mapping gives it JSON. A
    name with a dash in front stays as it is.
    """
    return [part for name, value in values.items() for part in _flag(name, value)]


def _flag(name: str, value: object) -> list[str]:
    if value is None or value is False:
        return []
    flag = name if name.startswith("-") else f"--{name}"
    if value is True:
        return [flag]
    return [flag, *map(_text, value)] if isinstance(value, list | tuple) else [flag, _text(value)]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, Mapping | list | tuple) else str(value)


def _places(text: str, where: str) -> list[str]:
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{where}: {text!r}: {error}. Write {{{{ and }}}} for braces") from None
    for _, place, form, conversion in parts:
        if place is not None and (form or conversion):
            raise ValueError(f"{where}: {text!r}: a place has no format. Write {{{place}}}")
    return [place for _, place, _, _ in parts if place is not None]


def _check_place(place: str, text: str, where: str) -> None:
    if place == FLAGS and (text != "{flags}" or not where.startswith("command")):
        raise ValueError(f"{where}: {text!r}: {{flags}} stands for several arguments: make it an item of its own")
    known: Collection[str] = (*PLACES, *CONFIG_PLACES)
    if place not in known and not (place.startswith(ENGINE_ARGS) and place != ENGINE_ARGS):
        hint = did_you_mean(place, known)
        raise ValueError(f"{where}: {text!r} names the unknown place {{{place}}}. {hint} Or write {{engine_args.NAME}}")


def _filled(text: str, where: str, values: Mapping[str, object]) -> str:
    pieces = []
    for literal, place, _, _ in Formatter().parse(text):
        pieces.append(literal)
        if place is None:
            continue
        value = values.get(place)
        if value is None:
            raise SearchSpaceError(f"launch.{where}: {place} has no value in this config. Set it, or drop the place")
        pieces.append(_text(value))
    return "".join(pieces)
