"""YAML files of this folder read into pydantic models, with errors that name the file and the key.

Does not know what the models mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from search_spaces.errors import SearchSpaceError, did_you_mean
from search_spaces.unique_keys import in_one_line, load_yaml

Model = TypeVar("Model", bound=BaseModel)


def read_mapping(path: Path) -> dict[str, object]:
    """The mapping a YAML file holds.

    Raises:
        SearchSpaceError: unreadable, not YAML, a key given twice, or not a mapping.
    """
    try:
        values = load_yaml(path.read_text())
    except OSError as error:
        raise SearchSpaceError(f"cannot read {path}: {error.strerror}. Give the path of a YAML file") from None
    except UnicodeDecodeError:
        raise SearchSpaceError(f"{path} is not text. Give the path of a YAML file") from None
    except yaml.YAMLError as error:
        raise SearchSpaceError(f"{path} is not YAML: {in_one_line(error)}. Correct the file") from None
    if not isinstance(values, dict):
        raise SearchSpaceError(f"{path} is not a mapping of keys to values. Check the file's layout")
    return values


def validate(model: type[Model], values: object, *, where: str) -> Model:
    """`values` as a `model`.

    Raises:
        SearchSpaceError: naming `where`, the key and, for an unknown key, the closest known one.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SearchSpaceError(f"{where}: {_plain(model, error)}") from None


def _plain(model: type[BaseModel], error: ValidationError) -> str:
    details = error.errors()
    unknown = [detail for detail in details if detail["type"] == "extra_forbidden"]
    first = (unknown or details)[0]
    key = ".".join(str(part) for part in first["loc"])
    if unknown:
        known = _model_at(model, first["loc"][:-1]).model_fields
        return f"{key}: unknown key {first['loc'][-1]!r}. {did_you_mean(str(first['loc'][-1]), known)}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def _model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that a location inside `model` leads to; containers (dict, tuple) are stepped through."""
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is not None:
            model = _model_in(field.annotation) or model
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
