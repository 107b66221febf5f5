"""`ModelShape`: the sizes of a Hugging Face checkpoint, read from its config.json without torch.

Does not know number formats or memory: that is `engine/memory.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

QUERY_KEY_NORM = frozenset({"Qwen3ForCausalLM"})
ATTENTION_BIAS = frozenset({"Qwen2ForCausalLM"})


class ModelShapeError(ValueError):
    """A folder that is no readable checkpoint; the message is the sentence the user reads."""


class ModelShape(BaseModel):
    """The fields of config.json that decide sizes; the many others are the model's business."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    architectures: tuple[str, ...] = Field(min_length=1)
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    max_position_embeddings: int = Field(gt=0)
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    dtype: str = "float32"

    @model_validator(mode="before")
    @classmethod
    def _fill_in_what_hugging_face_implies(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        filled = {key: value for key, value in values.items() if value is not None}
        filled.setdefault("num_key_value_heads", filled.get("num_attention_heads"))
        filled.setdefault("dtype", filled.get("torch_dtype", "float32"))
        hidden, heads = filled.get("hidden_size"), filled.get("num_attention_heads")
        if isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
            filled.setdefault("head_dim", hidden // heads)
        return filled

    @property
    def architecture(self) -> str:
        """The class name that says how the weights are wired."""
        return self.architectures[0]

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Width of all key heads together, the same for values."""
        return self.num_key_value_heads * self.head_dim

    @property
    def linear_shapes(self) -> tuple[tuple[int, int], ...]:
        """(rows out, columns in) of the matrices in one layer: query, key, value, output, gate, up, down."""
        hidden, ffn, query, key_value = self.hidden_size, self.intermediate_size, self.query_size, self.key_value_size
        attention = ((query, hidden), (key_value, hidden), (key_value, hidden), (hidden, query))
        return (*attention, (ffn, hidden), (ffn, hidden), (hidden, ffn))

    @property
    def num_linear_parameters(self) -> int:
        """Parameters of all layers' matrices, which quantization shrinks."""
        return self.num_hidden_layers * sum(rows * columns for rows, columns in self.linear_shapes)

    @property
    def num_other_parameters(self) -> int:
        """Embedding, head, norms and biases, which stay in the checkpoint's dtype."""
        tables = 1 if self.tie_word_embeddings else 2
        per_layer = 2 * self.hidden_size
        if self.architecture in QUERY_KEY_NORM:
            per_layer += 2 * self.head_dim
        if self.attention_bias or self.architecture in ATTENTION_BIAS:
            per_layer += self.query_size + 2 * self.key_value_size
        return tables * self.vocab_size * self.hidden_size + self.num_hidden_layers * per_layer + self.hidden_size

    @property
    def num_parameters(self) -> int:
        """All parameters the checkpoint stores."""
        return self.num_linear_parameters + self.num_other_parameters


def load_model_shape(folder: Path) -> ModelShape:
    """Read config.json of a checkpoint folder.

    Raises:
        ModelShapeError: no folder, no config.json, or fields missing from it.
    """
    if not folder.is_dir():
        raise ModelShapeError(f"no model folder at {folder}. Give the path of a Hugging Face checkpoint folder")
    return read_model_shape(folder / "config.json")


def read_model_shape(path: Path) -> ModelShape:
    """Read a config.json.

    Raises:
        ModelShapeError: unreadable, or fields missing from it.
    """
    try:
        return ModelShape.model_validate(json.loads(path.read_text()))
    except OSError:
        raise ModelShapeError(f"{path.parent} holds no readable config.json. Is it a Hugging Face folder?") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise ModelShapeError(f"{path}{_architecture_of(path)}: {field}: {first['msg']}") from None
    except ValueError as error:
        raise ModelShapeError(f"{path} is not JSON: {error}") from None


def _architecture_of(path: Path) -> str:
    """In brackets, where the file names one: what lacks a field is mostly no decoder of the Llama kind."""
    values = json.loads(path.read_text())
    names = values.get("architectures") if isinstance(values, dict) else None
    return f" ({names[0]})" if isinstance(names, list) and names else ""
