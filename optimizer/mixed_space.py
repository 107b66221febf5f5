"""A search space with mixed-precision weights among its options: what a study tries beside the uniform formats.

Does not choose the mixes.
"""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from engine.config import Quantization
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
    pairs = _activations_of(parameter, name) if ACTIVATIONS in parameter.fields(name) else None
    options: dict[str, dict[str, Value]] = {
        str(value): {**parameter.settings(name, value), OVERRIDES: None} for value in parameter.values()
    }
    for label, mix in mixes.items():
        options[label] = _option(mix.quantization, pairs, space.unresolved())
    changed = Parameter.model_validate(
        {"options": options, "when": parameter.when, "default": str(parameter.default_value())}
    )
    return space.model_copy(update={"parameters": {**space.parameters, name: changed}})


def _activations_of(parameter: Parameter, name: str) -> dict[str, Value]:
    """The activations that the space gives each format of weights."""
    settings = [parameter.settings(name, value) for value in parameter.values()]
    return {str(fields[WEIGHTS]).removeprefix("$"): fields[ACTIVATIONS] for fields in settings}


def _option(mix: Quantization, pairs: Mapping[str, Value] | None, unresolved: set[str]) -> dict[str, Value]:
    """Where the space pairs int8 weights with int8 activations, the mix's int8 layers have them too.

    Only a config's own weights and overrides of their format have its activations, so such a mix is told from int8.
    A format that the space leaves out where nobody makes checkpoints (`$int8`) takes the mix with it.

    Args:
        pairs: None where the space does not choose activations.
    """
    if pairs is not None and pairs.get("int8") == "int8" and "int8" in (mix.weights, *mix.overrides.values()):
        mix = mix if mix.weights == "int8" else _told_from_int8(mix)
        activations: dict[str, Value] = {ACTIVATIONS: "int8"}
    else:
        activations = {} if pairs is None else {ACTIVATIONS: "bf16"}
    weights = f"${mix.weights}" if mix.weights in unresolved else mix.weights
    return {WEIGHTS: weights, OVERRIDES: mix.overrides_text(), **activations}


def _told_from_int8(mix: Quantization) -> Quantization:
    """The same formats; of overrides the last that matches holds."""
    return mix.model_copy(update={"weights": "int8", "overrides": {"*": mix.weights, **mix.overrides}})


def space_yaml(space: SearchSpace) -> str:
    """The file from which the space is read again."""
    values = space.model_dump(mode="json", exclude_unset=True, exclude={"name"})
    return yaml.safe_dump(values, sort_keys=False, width=120, allow_unicode=True)
