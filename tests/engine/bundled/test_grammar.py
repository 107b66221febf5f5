"""Answers of a JSON schema, whatever the model would say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tiny_checkpoint import write_tiny_checkpoint

from engine.bundled.llm_engine import LLMEngine, RequestError, SamplingParams
from engine.config import EngineConfig

SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["fox", "dog"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 999},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,4}$"}, "maxItems": 3},
    },
    "required": ["kind", "count", "tags"],
    "additionalProperties": False,
}
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1}
MakeEngine = Callable[..., LLMEngine]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("grammar") / "tiny")


@pytest.fixture(scope="module")
def make(folder: Path) -> MakeEngine:
    def make(**fields: Any) -> LLMEngine:
        config = EngineConfig.model_validate({"model": str(folder), "num_threads": 1} | fields)
        return LLMEngine(config, device="cpu")

    return make


def bound(seed: int = 0, **fields: Any) -> SamplingParams:
    values = {"max_tokens": 256, "temperature": 0.7, "seed": seed, "json_schema": json.dumps(SCHEMA)} | fields
    return SamplingParams(**values)


@pytest.mark.parametrize(
    "fields", [{}, {"speculative_config": NGRAM}, {"max_num_batched_tokens": 16, "max_num_seqs": 8}]
)
def test_every_answer_is_of_the_schema(make: MakeEngine, fields: dict[str, Any]) -> None:
    engine = make(**fields)
    outputs = engine.generate([[5, 6, 7]] * 12, [bound(seed) for seed in range(12)])
    answers = [json.loads(engine.tokenizer.decode(output)) for output in outputs]
    for answer in answers:
        jsonschema.validate(answer, SCHEMA)
    assert len({json.dumps(answer) for answer in answers}) > 6, "the model still chooses"


def test_other_requests_of_the_batch_are_free(make: MakeEngine) -> None:
    free = SamplingParams(max_tokens=24, temperature=0.0, ignore_eos=True)
    [alone] = make().generate([[5, 6, 7]], free)
    engine = make()
    together = engine.generate([[9, 8]] * 3 + [[5, 6, 7]], [bound(0), bound(1), bound(2), free])
    assert together[3] == alone


def test_speculation_draws_the_same_bound_answers(make: MakeEngine) -> None:
    params = [bound(seed) for seed in range(4)]
    prompts = [[5, 6, 7, 5, 6, 7]] * 4
    assert make(speculative_config=NGRAM).generate(prompts, params) == make().generate(prompts, params)


def test_a_pinned_length_goes_on_after_the_json(make: MakeEngine) -> None:
    engine = make()
    params = bound(max_tokens=300, min_tokens=300, ignore_eos=True)
    [output] = engine.generate([[5, 6, 7]], params)
    assert len(output) == 300


@pytest.mark.parametrize(
    ("schema", "words"), [('{"type": "objekt"}', "Invalid type: objekt"), ("not json", "cannot be followed")]
)
def test_a_schema_that_cannot_be_followed_is_refused(make: MakeEngine, schema: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        make().add_request("a", [5, 6], bound(json_schema=schema))


def test_a_model_without_a_tokenizer_cannot(make: MakeEngine, tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "bare")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(RequestError, match=r"tokenizer\.json"):
        make(model=str(folder)).add_request("a", [5, 6], bound())
