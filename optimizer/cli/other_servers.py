"""Configs of servers that are not ours to know: one that runs already, and one that a space's `launch:` starts.

Does not connect or launch, except to ask a running server what its model is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from engine.config import EngineConfig, load_engine_config, parse_engine_config
from engine.endpoint_backend import API_KEY_ENV, MODEL_NAME, URL, endpoint_model
from optimizer.errors import OptimizerError
from search_spaces.space import SearchSpace, bundled_spaces, load_search_space

NOTHING_TO_CHOOSE = (
    "a running server has nothing to choose from: this is a measurement of it as it is. To see whether another would "
    "do better, run the same workload with --engine bundled, --engine vllm, or --engine command and a space"
)


class ServerWishes(Protocol):
    """The options that say which server is meant."""

    @property
    def engine(self) -> str: ...
    @property
    def model(self) -> Path | None: ...
    @property
    def base(self) -> Path | None: ...
    @property
    def space(self) -> str | None: ...
    @property
    def sku(self) -> str: ...
    @property
    def url(self) -> str | None: ...
    @property
    def model_name(self) -> str | None: ...
    @property
    def api_key_env(self) -> str | None: ...


def refuse_wishes_of_an_endpoint(wishes: ServerWishes) -> None:
    """Raises OptimizerError for --url and its like with another engine, and for an endpoint without --url."""
    given = {"--url": wishes.url, "--model-name": wishes.model_name, "--api-key-env": wishes.api_key_env}
    odd = [option for option, value in given.items() if value is not None]
    if odd and wishes.engine != "endpoint":
        raise OptimizerError(f"{odd[0]} belongs to --engine endpoint. Give that, or leave {odd[0]} out")
    if wishes.engine == "endpoint" and wishes.url is None:
        raise OptimizerError(
            "--engine endpoint measures a running server. Give its address with --url http://host:port"
        )
    if wishes.engine == "endpoint" and (wishes.base is not None or wishes.space is not None):
        raise OptimizerError("a running server cannot be changed from outside. Leave --base and --space out")


def endpoint_config(wishes: ServerWishes) -> EngineConfig:
    """The one config of a running server; its model is --model (for its vocabulary), else what the server calls it.

    Raises:
        EngineError: the server does not answer, or the model's name is not clear.
    """
    given = {URL: wishes.url, MODEL_NAME: wishes.model_name, API_KEY_ENV: wishes.api_key_env}
    config = EngineConfig(
        model="",
        engine="endpoint",
        engine_args={name: value for name, value in given.items() if value is not None},
    )
    name = endpoint_model(config)
    known = {"model": str(wishes.model or name), "hardware": {"sku": wishes.sku}}
    arguments = {**config.engine_args, MODEL_NAME: name}
    return parse_engine_config(config.model_dump(mode="json") | known | {"engine_args": arguments}, where="--url")


def command_config(wishes: ServerWishes, model: str) -> EngineConfig:
    """`--base`, else the space's own defaults; always started as the space says.

    Raises:
        SearchSpaceError, ConfigError: the space or the base cannot be read.
    """
    space = space_of_engine(wishes.engine, wishes.space)
    assert space.launch is not None
    launch = space.launch.model_dump(mode="json")
    if wishes.base is not None:
        base = load_engine_config(wishes.base).model_dump(mode="json")
        return parse_engine_config(base | {"engine": "command", "launch": launch}, where=str(wishes.base))
    plain = {"model": model, "engine": "command", "launch": launch, "hardware": {"sku": wishes.sku}}
    defaults = space.resolve({}).space
    return parse_engine_config(plain | defaults.overrides(defaults.default_assignment), where=space.name)


def space_of_engine(engine: str, name: str | None) -> SearchSpace:
    """`--space`, else the engine's own.

    Raises:
        SearchSpaceError: it cannot be read.
        OptimizerError: engine and space do not belong together.
    """
    if engine == "command" and name is None:
        own = ", ".join(space for space in bundled_spaces() if load_search_space(space).launch is not None)
        raise OptimizerError(f"--engine command starts what a space says. Give --space FILE, or one of: {own}")
    space = load_search_space(name or engine)
    if engine == "command" and space.launch is None:
        raise OptimizerError(f"the space {name} does not say how its server is started. Give it a launch: section")
    if engine != "command" and space.launch is not None:
        raise OptimizerError(f"the space {name} starts a server of its own. Give --engine command")
    return space
