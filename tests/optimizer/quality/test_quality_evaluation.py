"""Quality classes against a reference, through a fake engine whose damage is known."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fakes.fake_server import Behaviour
from fakes.serving import UNPINNED, Serve
from traffic_cases import chats, lengths_only

from engine.backend import EngineError, FailureKind
from engine.config import EngineConfig, Quantization, SpeculativeConfig
from optimizer.errors import OptimizerError
from optimizer.quality import client
from optimizer.quality.client import _post
from optimizer.quality.evaluate import QualityEvaluator, reference_config
from workloads.workload import Workload

REFERENCE = EngineConfig(model="none")
INT8 = EngineConfig(model="none", quantization=Quantization(weights="int8"))
INT4 = EngineConfig(model="none", quantization=Quantization(weights="int4_g128"))


def evaluator(
    directory: Path, workload: Workload, *, floor: float | None = 0.99, first: int = 20, hang_s: float = 20.0
) -> QualityEvaluator:
    return QualityEvaluator(
        directory=directory,
        workload=workload,
        reference_class=REFERENCE.quality_class(),
        num_requests=first,
        num_requests_max=2 * first,
        floor=floor,
        placement=UNPINNED,
        hang_s=hang_s,
    )


def test_the_reference_is_one_by_definition_and_its_checks_are_measured(tmp_path: Path, serve: Serve) -> None:
    score = evaluator(tmp_path, chats(20)).score(serve(Behaviour()), REFERENCE)
    assert score.is_reference
    assert (score.quality.value, score.quality.low, score.quality.high) == (1.0, 1.0, 1.0)
    assert score.checks_score is not None
    assert score.checks_score.value == 1.0
    assert set(score.checks_by_task) == {"even", "odd"}


def test_a_damaged_candidate_is_scored_on_the_same_requests_and_fails_the_floor(tmp_path: Path, serve: Serve) -> None:
    quality = evaluator(tmp_path, chats(40))
    quality.score(serve(Behaviour()), REFERENCE)
    score = quality.score(serve(Behaviour(damage=1.0)), INT4)
    assert score.quality.high < 0.99
    assert score.num_requests == 6  # a glance was enough
    assert score.top1_agreement is not None
    assert score.top1_agreement.value < 0.95
    assert score.kl_nats is not None
    assert score.kl_nats.value > 0.05


def test_requests_for_an_adapter_are_examined_with_it_where_the_server_has_it(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    async def post(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        asked.append((body["model"], "prompt_logprobs" in body))
        return await _post(session, url, body)

    monkeypatch.setattr(client, "_post", post)
    plain = chats(12)
    names = (None, "mine", "gone")
    mixed = [replace(request, adapter=names[number % 3]) for number, request in enumerate(plain)]
    quality = evaluator(tmp_path, Workload.from_requests(mixed, plain.metadata), first=12)
    with_mine = REFERENCE.model_copy(update={"lora_modules": {"mine": "folder"}})
    quality.score(serve(Behaviour()), with_mine)
    seen = Counter(asked)
    assert seen["mine", False] == 4
    assert seen["fake", False] == 8, "the server has no adapter `gone`: the base model answers, as in a replay"
    assert seen["mine", True] > 0
    before = seen["mine", True]
    int8 = INT8.model_copy(update={"lora_modules": {"mine": "folder"}})
    evaluator(tmp_path, Workload.from_requests(mixed, plain.metadata), first=12).score(serve(Behaviour()), int8)
    assert Counter(asked)["mine", True] > before, "also from the reference on disk"


def test_an_undamaged_candidate_meets_a_floor_that_so_few_requests_can_show(tmp_path: Path, serve: Serve) -> None:
    quality = evaluator(tmp_path, chats(40), floor=0.8)
    quality.score(serve(Behaviour()), REFERENCE)
    score = quality.score(serve(Behaviour()), INT8)
    assert score.quality.value == 1.0
    assert 0.8 <= score.quality.low < 1.0
    assert score.kl_nats is not None
    assert score.kl_nats.value == pytest.approx(0.0, abs=1e-6)


def test_an_undecided_floor_takes_a_second_look_and_then_says_that_more_is_needed(tmp_path: Path, serve: Serve) -> None:
    quality = evaluator(tmp_path, chats(40), floor=0.99)
    quality.score(serve(Behaviour()), REFERENCE)
    score = quality.score(serve(Behaviour()), INT8)
    assert score.num_requests == 40
    assert "more requests are needed" in score.note


def test_a_class_is_evaluated_once_and_a_resumed_study_reuses_it(tmp_path: Path, serve: Serve) -> None:
    first, server = evaluator(tmp_path, chats(40)), serve(Behaviour())
    first.score(server, REFERENCE)
    score = first.score(server, INT8)
    num_asked = len(server.bodies)
    resumed = evaluator(tmp_path, chats(40))
    assert resumed.has_reference
    assert resumed.score(server, INT8) == score
    assert resumed.score(serve(Behaviour(damage=1.0)), INT4).quality.value < 1
    assert len(server.bodies) == num_asked


def test_speculation_keeps_the_class_of_its_target(tmp_path: Path, serve: Serve) -> None:
    quality, server = evaluator(tmp_path, chats(40)), serve(Behaviour())
    speculation = SpeculativeConfig(method="ngram", num_speculative_tokens=4)
    quality.score(server, REFERENCE)
    assert quality.score(server, REFERENCE.model_copy(update={"speculative_config": speculation})).is_reference


def test_a_candidate_before_the_reference_is_an_error_that_says_what_to_do(tmp_path: Path, serve: Serve) -> None:
    with pytest.raises(OptimizerError, match="Measure the reference first"):
        evaluator(tmp_path, chats(10)).score(serve(Behaviour()), INT8)


def test_without_checks_quality_is_the_agreement_of_tokens(tmp_path: Path, serve: Serve) -> None:
    quality = evaluator(tmp_path, chats(20, checked=False))
    quality.score(serve(Behaviour()), REFERENCE)
    score = quality.score(serve(Behaviour(damage=1.0)), INT4)
    assert score.quality == score.top1_agreement
    assert score.checks_score is None
    assert "top-1 agreement" in score.note


def test_a_trace_of_lengths_is_judged_on_synthetic_prompts_and_says_so(tmp_path: Path, serve: Serve) -> None:
    quality = evaluator(tmp_path, lengths_only(20))
    quality.score(serve(Behaviour()), REFERENCE)
    score = quality.score(serve(Behaviour()), INT8)
    assert "synthetic prompts" in score.note
    assert score.quality.low >= 0.95


def test_a_reference_that_fails_every_check_leaves_the_agreement(tmp_path: Path, serve: Serve) -> None:
    quality = evaluator(tmp_path, chats(40))
    server = serve(Behaviour(damage=3.0))  # as reference: answers nothing right
    quality.score(server, REFERENCE)
    score = quality.score(server, INT8)
    assert "fails every check" in score.note
    assert score.quality == score.top1_agreement


def test_an_engine_that_hangs_is_told_as_a_hang(tmp_path: Path, serve: Serve) -> None:
    with pytest.raises(EngineError) as caught:
        evaluator(tmp_path, chats(20), hang_s=0.5).score(serve(Behaviour(hangs_after=5)), REFERENCE)
    assert caught.value.kind is FailureKind.HANG


def test_an_engine_that_dies_is_told_as_dead(tmp_path: Path, serve: Serve) -> None:
    with pytest.raises(EngineError) as caught:
        evaluator(tmp_path, chats(20)).score(serve(Behaviour(dies_after=5)), REFERENCE)
    assert caught.value.kind is FailureKind.DIED
    assert not evaluator(tmp_path, chats(20)).has_reference


def test_the_reference_config_is_the_default_without_quantization_and_speculation() -> None:
    default = INT4.model_copy(update={"max_num_seqs": 8})
    assert reference_config(default) == REFERENCE.model_copy(update={"max_num_seqs": 8})


PLAIN = Behaviour(is_plain=True)


def test_a_server_that_scores_no_prompts_is_judged_by_checks_alone(tmp_path: Path, serve: Serve) -> None:
    quality = evaluator(tmp_path, chats(40))
    reference = quality.score(serve(PLAIN), REFERENCE)
    assert reference.quality.value == 1.0
    assert reference.top1_agreement is None
    assert "does not score prompts" in reference.note
    score = evaluator(tmp_path, chats(40)).score(serve(Behaviour(is_plain=True, damage=1.0)), INT4)  # from the file
    assert score.quality.high < 0.99
    assert score.kl_nats is None
    assert score.checks_score is not None
    assert "does not score prompts" in score.note


def test_without_checks_either_nothing_can_be_told_of_another_class(tmp_path: Path, serve: Serve) -> None:
    quality, server = evaluator(tmp_path, chats(20, checked=False)), serve(PLAIN)
    assert quality.score(server, REFERENCE).is_reference
    with pytest.raises(EngineError, match="quality cannot be told") as caught:
        quality.score(server, INT8)
    assert caught.value.kind is FailureKind.UNSUPPORTED


def test_a_server_with_a_key_is_asked_with_it(tmp_path: Path, serve: Serve) -> None:
    server = serve(Behaviour())
    server.api_key = "secret"
    assert evaluator(tmp_path, chats(20)).score(server, REFERENCE).num_requests == 20


def test_the_reference_of_a_command_has_the_values_that_its_space_names() -> None:
    launch = {"command": ["serve", "{port}", "{flags}"], "quality": {"dtype": "auto", "kv": None}}
    arguments = {"dtype": "fp8", "kv": "fp8", "batch": 8}
    values = {"model": "m", "engine": "command", "launch": launch, "engine_args": arguments}
    reference = reference_config(EngineConfig.model_validate(values))
    assert reference.engine_args == {"dtype": "auto", "kv": None, "batch": 8}
    assert reference.quality_class().endswith("/dtype=auto/kv=None")
