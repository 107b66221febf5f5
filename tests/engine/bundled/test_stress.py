"""Random arrivals, departures and configs with hardly any memory: every request ends in time, with its own tokens."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from random_adapters import save_adapter
from random_models import VOCAB_SIZE

from engine.bundled.llm_engine import LLMEngine, SamplingParams
from engine.bundled.sequence import Standing

MakeEngine = Callable[..., LLMEngine]
MAX_MODEL_LEN = 96
BLOCK_BYTES = 4 * 3 * 2 * 2 * 16 * 4  # tokens, layers, keys and values, heads, head size, bytes
SMALLEST_CACHE = MAX_MODEL_LEN // 4 * BLOCK_BYTES  # one sequence of the greatest length
MOST_TOKENS = 16  # of an answer
NUM_REQUESTS = 60


class Question(NamedTuple):
    prompt: int  # its number
    adapter: str | None
    max_tokens: int


Answers = dict[tuple[int, str | None], list[int]]  # by prompt and adapter


@pytest.fixture(scope="module")
def adapters(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("adapters")
    return {name: str(save_adapter(root / name, llama, seed=seed)) for seed, name in enumerate("abc")}


@pytest.fixture(scope="module")
def pool() -> list[list[int]]:
    """Prompts of 1 to 80 tokens; every fourth begins as the one before."""
    rng = random.Random(0)
    prompts = [[rng.randrange(VOCAB_SIZE) for _ in range(rng.choice([1, 4, 15, 40, 80]))] for _ in range(16)]
    for number in range(3, 16, 4):
        prompts[number] = prompts[number - 1][:30] + prompts[number][:20]
    return prompts


@pytest.fixture(scope="module")
def quiet(make_engine: MakeEngine, adapters: dict[str, str], pool: list[list[int]]) -> Answers:
    """What each prompt gets from each adapter when nobody else asks."""
    engine = make_engine(lora_modules=adapters, enable_prefix_caching=False, max_model_len=MAX_MODEL_LEN)
    said: Answers = {}
    for number, prompt in enumerate(pool):
        for adapter in (None, *adapters):
            engine.add_request("one", prompt, SamplingParams(max_tokens=MOST_TOKENS, temperature=0.0), adapter=adapter)
            said[number, adapter] = []
            while engine.has_unfinished():
                for output in engine.step():
                    said[number, adapter] += output.token_ids
    return said


def random_fields(rng: random.Random, heads: dict[str, Path]) -> dict[str, Any]:
    method = rng.choice([None, "ngram", "suffix", *heads])
    speculation: dict[str, Any] | None = None
    if method is not None:
        speculation = {"method": method, "num_speculative_tokens": rng.choice([2, 4, "auto"])}
        if method in heads:
            speculation["model"] = str(heads[method])
        if method == "medusa" and rng.random() < 0.5:
            speculation["tree_nodes"] = 8
    factor = 3 if method in ("draft_model", "eagle") else 1  # the draft's keys and values lie in the same memory
    return {
        "max_model_len": MAX_MODEL_LEN,
        "max_num_seqs": rng.choice([1, 2, 8]),
        "max_num_batched_tokens": rng.choice([16, 40, 96]),
        "max_loras": rng.randint(1, 3),
        "enable_prefix_caching": rng.random() < 0.7,
        "scheduling_policy": rng.choice(["fcfs", "priority", "fair"]),
        "kv_cache_memory_bytes": SMALLEST_CACHE * factor,
        "speculative_config": speculation,
    }


class Load:
    """Requests that come in bursts and may leave at any step.

    Each has steps in which to end: as many as there are tokens in all that may be served before it, as though every
    step computed a single one. By arrival those are the requests that came before and those that may overtake for
    want of an adapter's place, else also what comes later.
    """

    def __init__(self, engine: LLMEngine, pool: list[list[int]], names: list[str], rng: random.Random) -> None:
        self.engine, self.pool, self.names, self.rng = engine, pool, names, rng
        self.num_asked = 0
        self.asked: dict[str, Question] = {}  # alive ones only, as the rest
        self.said: dict[str, list[int]] = {}
        self.steps_left: dict[str, int] = {}

    def arrive(self) -> None:
        rng, name, config = self.rng, f"r{self.num_asked}", self.engine.config
        question = Question(rng.randrange(len(self.pool)), rng.choice([None, *self.names]), rng.randint(1, MOST_TOKENS))
        params = SamplingParams(max_tokens=question.max_tokens, temperature=0.0)
        standing = Standing(rng.randint(-1, 1), rng.choice("xyz"))
        self.engine.add_request(name, self.pool[question.prompt], params, standing, adapter=question.adapter)
        self.num_asked += 1
        self.asked[name], self.said[name] = question, []
        overtaking = MAX_MODEL_LEN * config.max_num_seqs
        self.steps_left[name] = sum(map(self.num_tokens, self.asked.values())) + overtaking
        if config.scheduling_policy != "fcfs":
            for other in self.steps_left:
                self.steps_left[other] += self.num_tokens(question)

    def num_tokens(self, question: Question) -> int:
        return len(self.pool[question.prompt]) + question.max_tokens

    def leave(self) -> None:
        name = self.rng.choice(list(self.asked))
        self.engine.abort(name)
        self.forget(name)

    def forget(self, name: str) -> None:
        del self.asked[name], self.said[name], self.steps_left[name]

    def step(self) -> Iterator[tuple[Question, list[int]]]:
        """What was asked and answered by those who ended."""
        outputs = self.engine.step()
        for name in self.steps_left:
            self.steps_left[name] -= 1
        assert min(self.steps_left.values()) >= 0, "a request waits for ever"
        for output in outputs:
            name = output.request_id
            self.said[name] += output.token_ids
            if output.finish_reason is not None:
                yield self.asked[name], self.said[name]
                self.forget(name)


@pytest.mark.parametrize("seed", range(16))
def test_every_request_ends_in_time_with_its_own_tokens(
    make_engine: MakeEngine,
    adapters: dict[str, str],
    pool: list[list[int]],
    quiet: Answers,
    llama_draft: Path,
    medusa_heads: Path,
    eagle_head: Path,
    seed: int,
) -> None:
    rng = random.Random(seed)
    heads = {"draft_model": llama_draft, "medusa": medusa_heads, "eagle": eagle_head}
    engine = make_engine(lora_modules=adapters, **random_fields(rng, heads))
    load = Load(engine, pool, list(adapters), rng)
    while load.num_asked < NUM_REQUESTS or load.asked:
        if load.num_asked < NUM_REQUESTS and rng.random() < 0.1:
            for _ in range(rng.randint(1, 12)):
                load.arrive()
        if load.asked and rng.random() < 0.05:
            load.leave()
        if not load.asked:
            continue
        for question, said in load.step():
            assert said == quiet[question.prompt, question.adapter][: question.max_tokens]
        engine.block_manager.check_integrity(engine.scheduler.running)
    assert not engine.has_unfinished()
    assert engine.block_manager.usage == 0
