"""The sizes of a model that is simulated: from a folder, or by a name whose config.json `aiconfigurator-core` ships.

Does not know step times. Only dense decoders: the memory arithmetic knows no experts.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from engine.model_shape import ModelShape, ModelShapeError, load_model_shape, read_model_shape
from engine.simulator.errors import SimulatorError
from engine.simulator.silicon import known_model_file, known_models

DENSE = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


@lru_cache(maxsize=16)
def simulated_shape(model: str) -> ModelShape:
    """Of a folder with a config.json, or of a name in `known_models()`.

    Raises:
        SimulatorError: neither; with the closest name. Or not a dense decoder.
    """
    try:
        shape = load_model_shape(Path(model)) if Path(model).is_dir() else read_model_shape(_file(model))
    except ModelShapeError as error:
        raise SimulatorError(str(error)) from None
    if shape.architecture not in DENSE:
        raise SimulatorError(
            f"{model} is a {shape.architecture}; the simulator knows the memory of dense decoders alone "
            f"({', '.join(DENSE)}). Choose one of these"
        )
    return shape


def _file(model: str) -> Path:
    try:
        names = known_models()
    except SimulatorError:
        raise SimulatorError(
            f"no model folder at {model!r}; names are known only with the package aiconfigurator-core. Give a folder "
            "with a config.json, or install fireoptimizer[silicon]"
        ) from None
    if model in names:
        return known_model_file(model)
    close = ", ".join(get_close_matches(model, names, n=4, cutoff=0.0))
    raise SimulatorError(
        f"no model folder and no known model is called {model!r}. The nearest of {len(names)} known names: {close}"
    )
