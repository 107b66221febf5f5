"""Over HTTP a request names its LoRA adapter as its model."""

from collections.abc import Callable
from pathlib import Path

from fake_engine import FakeTokenizer
from random_adapters import save_adapter, save_merged
from served import served

from engine.bundled.llm_engine import LLMEngine, SamplingParams


def test_each_answer_is_that_of_the_model_named(
    make_engine: Callable[..., LLMEngine], llama: Path, tmp_path: Path, prompts: list[list[int]]
) -> None:
    folder = save_adapter(tmp_path / "mine", llama, seed=1)
    params = SamplingParams(max_tokens=16, temperature=0.0)
    models = {"fake": llama, "mine": save_merged(tmp_path / "merged", llama, folder)}
    expected = {name: make_engine(model=str(model)).generate([prompts[2]], params)[0] for name, model in models.items()}
    assert expected["fake"] != expected["mine"]
    adapters = {"mine": str(folder)}
    engine = make_engine(lora_modules=adapters)
    engine.__dict__["tokenizer"] = FakeTokenizer()
    with served(engine, adapters=adapters) as client:
        cards = client.get("/v1/models")[1]["data"]
        assert [(card["id"], card["root"], card["parent"]) for card in cards] == [
            ("fake", "fake", None),
            ("mine", str(folder), "fake"),
        ]
        body = {"prompt": prompts[2], "max_tokens": 16, "temperature": 0, "return_token_ids": True}
        for name, tokens in expected.items():
            status, answer = client.post("/v1/completions", body | {"model": name})
            assert (status, answer["model"]) == (200, name)
            assert answer["choices"][0]["token_ids"] == tokens
        status, answer = client.post("/v1/completions", body | {"model": "other"})
        assert status == 404
        assert "This server serves 'fake', 'mine'" in answer["error"]["message"]
