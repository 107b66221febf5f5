"""A search space with mixed-precision weights among its options: what a study tries beside the uniform formats.

Does not choose the mixes.
"""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from optimizer.errors import OptimizerError
from optimizer.mixed_precision import MixedPrecision
from search_spaces.parameter import Parameter, Value
from search_spaces.space import SearchSpace

WEIGHTS, ACTIVATIONS, OVERRIDES = (f"quantization.{part}" for part in ("weights", "activations", "overrides"))


def with_mixes(space: SearchSpace, mixes: Mapping[str, MixedPrecision]) -> SearchSpace:
    """The space whose parameter of the weights' format has the mixes as further options, by name.

    Raises:
        OptimizerError: no parameter of the space varies the weights' format.
    """
    name = next((name for name, parameter in space.parameters.items() if WEIGHTS in parameter.fields(name)), None)
    if name is None:
        raise OptimizerError(f"the space {space.name} does not vary {WEIGHTS}. Give one that does with --space")
    parameter = space.parameters[name]
    fields = parameter.fields(name)
    options: dict[str, dict[str, Value]] = {
        str(value): {**parameter.settings(name, value), OVERRIDES: None} for value in parameter.values()
    }
    for label, mix in mixes.items():
        options[label] = _option(mix, space) | ({ACTIVATIONS: "bf16"} if ACTIVATIONS in fields else {})
    changed = Parameter.model_validate(
        {"options": options, "when": parameter.when, "default": str(parameter.default_value())}
    )
    return space.model_copy(update={"parameters": {**space.parameters, name: changed}})


def _option(mix: MixedPrecision, space: SearchSpace) -> dict[str, Value]:
    """A format that the space leaves out where nobody makes checkpoints (`$int8`) takes the mix with it."""
    weights = mix.quantization.weights
    return {
        WEIGHTS: f"${weights}" if weights in space.unresolved() else weights,
        OVERRIDES: mix.quantization.overrides_text(),
    }


def space_yaml(space: SearchSpace) -> str:
    """The file from which the space is read again."""
    values = space.model_dump(mode="json", exclude_unset=True, exclude={"name"})
    return yaml.safe_dump(values, sort_keys=False, width=120, allow_unicode=True)
