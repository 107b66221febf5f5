"""What the simulated engine accepts, what it refuses, and the words in which it does."""

import json
from pathlib import Path

import pytest
from simulated_cases import LLAMA_8B

from engine.bundled.step_log import StepRecord, to_parquet
from engine.config import EngineConfig, Quantization, SpeculativeConfig, dump_engine_config
from engine.simulated_backend import SimulatedBackend
from engine.simulator.acceptance import AcceptanceProfile
from engine.simulator.errors import SimulatorError
from engine.simulator.model_names import simulated_shape
from engine.simulator.oracle import Source
from engine.simulator.step_times import read_calibration
from search_spaces.skus import load_skus

ONE_AND_ONE = {"prefill_instances": 1, "decode_instances": 1}


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    return str(folder)


def config(model: str, sku: str = "mi300x", split: int = 1, **fields: object) -> EngineConfig:
    hardware = {"sku": sku, "count": split}
    values = {"model": model, "engine": "simulated", "tensor_parallel_size": split, "hardware": hardware, **fields}
    return EngineConfig.model_validate(values)


def backend(**options: object) -> SimulatedBackend:
    skus = load_skus()
    local = skus["local"].model_copy(update={"memory_gib": 64.0})  # whatever else this machine is doing
    return SimulatedBackend({**skus, "local": local}, **options)  # type: ignore[arg-type]


def refusal(config: EngineConfig, **options: object) -> str:
    (refused,) = backend(**options).check(config)
    return refused.reason


def test_what_has_no_silicon_is_a_labelled_roofline(model: str) -> None:
    assert backend().check(config(model)) == []
    serving = backend().serving(config(model, max_num_seqs=16))
    assert serving.settings.max_num_seqs == 16
    assert serving.oracle.provenance.source is Source.ROOFLINE
    assert any("no kernel measurements of mi300x" in gap for gap in serving.oracle.provenance.gaps)


def test_steps_are_scheduled_ahead_where_vllm_does_it(model: str) -> None:
    profile = AcceptanceProfile(per_position=(0.5,))
    drafting = config(model, speculative_config=SpeculativeConfig(method="ngram", num_speculative_tokens=1))
    assert backend().serving(config(model)).settings.async_scheduling
    assert not backend(acceptance={"ngram": profile}).serving(drafting).settings.async_scheduling


def test_quantized_weights_have_no_silicon_and_more_room_for_the_cache(model: str) -> None:
    plain, small = config(model, "h100_sxm"), config(model, "h100_sxm", quantization=Quantization(weights="int8"))
    assert backend().serving(small).oracle.provenance.source is Source.ROOFLINE
    assert backend().serving(small).settings.num_blocks > backend().serving(plain).settings.num_blocks


def test_fp8_halves_the_cache_and_a_roofline_says_what_it_does_not_know(model: str) -> None:
    fp8 = Quantization(weights="fp8", activations="fp8", kv_cache="fp8")
    plain, small = (backend().serving(config(model, quantization=parts)) for parts in (Quantization(), fp8))
    assert small.settings.num_blocks > 2 * plain.settings.num_blocks
    step_s = [serving.oracle.step_s(0, 0, 0, 1, 10**6, 0) for serving in (plain, small)]
    empty_s = [serving.oracle.step_s(0, 0, 0, 1, 0, 0) for serving in (plain, small)]
    assert step_s[0] - empty_s[0] == pytest.approx(2 * (step_s[1] - empty_s[1]))
    assert "fp8 arithmetic is taken to be as fast as bf16's" in small.oracle.provenance.gaps


@pytest.mark.parametrize(
    ("sku", "parts", "gap"),
    [
        ("h100_sxm", {"weights": "fp8", "activations": "fp8"}, None),
        ("h100_sxm", {"kv_cache": "fp8"}, None),
        ("b200", {"weights": "nvfp4", "kv_cache": "fp8"}, None),
        ("h100_sxm", {"weights": "nvfp4"}, "not silicon, because no silicon data for Qwen/Qwen3-8B on 1 x h100_sxm"),
        ("a100_80g", {"weights": "fp8", "activations": "fp8"}, "not silicon, because no silicon data for"),
        ("h100_sxm", {"weights": "fp8"}, "no kernel measurements of fp8 weights beside bf16 activations"),
        ("h100_sxm", {"weights": "int8"}, "no kernel measurements of int8 weights"),
    ],
)
def test_formats_have_silicon_where_the_package_measured_them(sku: str, parts: dict[str, str], gap: str | None) -> None:
    pytest.importorskip("aiconfigurator_core", reason="needs the extra `silicon`")
    plain, small = (
        backend().serving(config("Qwen/Qwen3-8B", sku, quantization=Quantization.model_validate(part)))
        for part in ({}, parts)
    )
    assert plain.oracle.provenance.source is Source.SILICON
    if gap is not None:
        assert small.oracle.provenance.source is Source.ROOFLINE
        assert any(gap in told for told in small.oracle.provenance.gaps)
        return
    assert small.oracle.provenance.source is Source.SILICON
    assert small.settings.num_blocks > plain.settings.num_blocks
    if "kv_cache" in parts:
        long = [serving.oracle.step_s(0, 0, 0, 64, 64 * 8000, 0) for serving in (plain, small)]
        assert long[1] != pytest.approx(long[0], rel=0.01)
    if "weights" in parts:
        assert small.oracle.step_s(0, 0, 0, 8, 800, 0) < 0.9 * plain.oracle.step_s(0, 0, 0, 8, 800, 0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size 2 is not simulated"),
        ({"quantization": {"kv_cache": "int8"}}, "quantization.kv_cache int8 is not simulated"),
        ({"sku": "h100smx"}, "no SKU is called 'h100smx'. Did you mean"),
        ({"sku": "l4", "max_model_len": 100_000}, "max_model_len"),
        ({"split": 3}, "does not divide the model's 32 attention heads. Use 2"),
        ({"hardware": {"sku": "mi300x", "count": 2}}, "Give both the same number"),
        ({"disaggregation": ONE_AND_ONE}, "2 instances of tensor_parallel_size 1 take 2. Set hardware.count 2"),
        (
            {"disaggregation": ONE_AND_ONE, "hardware": {"sku": "mi300x", "count": 2}},
            "how fast the network between machines of mi300x is",
        ),
        ({"sku": "local"}, "not known. Give a measured trial's file with --steps"),
        (
            {"speculative_config": SpeculativeConfig(method="ngram", num_speculative_tokens=2)},
            "only with a measured acceptance profile",
        ),
        (
            {"speculative_config": SpeculativeConfig(method="eagle", num_speculative_tokens=2, model="m")},
            "takes to draft is not simulated. Use ngram or suffix",
        ),
    ],
)
def test_what_cannot_be_simulated_says_what_can(model: str, fields: dict[str, object], words: str) -> None:
    assert words in refusal(config(model, **fields))  # type: ignore[arg-type]


def test_prefill_and_decode_apart_are_joined_by_the_catalogues_network(model: str) -> None:
    apart = {"prefill_instances": 3, "decode_instances": 1}
    wide = config(model, split=2, disaggregation=apart, hardware={"sku": "h100_sxm", "count": 8})
    assert backend().check(wide) == []
    settings, oracle = backend().serving(wide)
    assert settings.split is not None
    # A block of 16 tokens on each of two devices: keys and values of 32 layers, 4 of 8 heads of 128 numbers of 2 bytes,
    # at 50 GB/s.
    assert settings.split.block_s == pytest.approx(16 * 2 * 32 * 4 * 128 * 2 / 50e9)
    assert settings.split.latency_s == pytest.approx(10e-6)
    assert (settings.split.prefill_instances, settings.split.decode_instances) == (3, 1)
    together = config(model, "h100_sxm", split=2)
    assert settings.num_blocks == backend().serving(together).settings.num_blocks  # of each instance
    assert "nominal 50 GB/s a device (aiconfigurator-core" in oracle.provenance.sentence()
    assert wide.label(together) == "8 x h100_sxm, 3 prefill + 1 decode"
    assert together.label(wide) == "2 x h100_sxm, prefill and decode together"


def test_a_measured_acceptance_profile_covers_as_many_drafts_as_it_has(model: str) -> None:
    profiles = {"ngram": AcceptanceProfile(per_position=(0.8, 0.5))}
    two = config(model, speculative_config=SpeculativeConfig(method="ngram", num_speculative_tokens=2))
    three = config(model, speculative_config=SpeculativeConfig(method="ngram", num_speculative_tokens=3))
    assert backend(acceptance=profiles).serving(two).settings.num_draft_tokens == 2
    assert "Use num_speculative_tokens 2 or fewer" in refusal(three, acceptance=profiles)


def test_a_trees_acceptance_is_no_chains_and_no_other_trees(model: str) -> None:
    def medusa(number: int | str, tree_nodes: int | None) -> EngineConfig:
        speculation = {"method": "medusa", "num_speculative_tokens": number, "model": "m", "tree_nodes": tree_nodes}
        return config(model, "local", speculative_config=SpeculativeConfig.model_validate(speculation))

    chain = {"medusa": AcceptanceProfile(per_position=(0.8, 0.5))}
    tree = {"medusa": AcceptanceProfile(per_position=(0.8, 0.5), tree_nodes=8)}
    assert "for a chain, not for a tree of 8" in refusal(medusa(2, 8), acceptance=chain)
    assert "for a tree of 8, not for a chain" in refusal(medusa(2, None), acceptance=tree)
    for number in (1, "auto"):
        assert refusal(medusa(number, 8), acceptance=tree).endswith("Use num_speculative_tokens 2")


def steps_file(folder: Path, **fields: object) -> Path:
    folder.mkdir()
    records = [StepRecord(float(n), 0.01 + 1e-4 * n, 0.0, *(0, 0, 0, 0, n, 100 * n, 0, n)) for n in range(1, 101)]
    (folder / "steps.parquet").write_bytes(to_parquet(records))
    (folder / "config.yaml").write_text(dump_engine_config(EngineConfig.model_validate({"model": "m", **fields})))
    return folder / "steps.parquet"


def test_local_is_calibrated_by_a_trials_steps_and_by_nothing_else(model: str, tmp_path: Path) -> None:
    calibration = read_calibration(steps_file(tmp_path / "trial"))
    local = config(model, "local", max_model_len=64)
    shape = simulated_shape(model)
    serving = SimulatedBackend(
        {"local": load_skus()["local"].model_copy(update={"memory_gib": 64.0})}, calibration=calibration
    ).serving(local)
    assert shape.num_hidden_layers == 32
    assert serving.oracle.provenance.source is Source.CALIBRATED
    assert serving.oracle.step_s(0, 0, 0, 50, 5000, 0) == pytest.approx(0.015, rel=0.05)
    int8 = local.model_copy(update={"quantization": Quantization(weights="int8")})
    assert calibration.objection(int8) == "the calibrating steps were measured in bf16, not in int8"
    fp8_cache = local.model_copy(update={"quantization": Quantization(kv_cache="fp8")})
    assert calibration.objection(fp8_cache).endswith("in bf16, not in bf16, fp8 KV cache")
    ngram = local.model_copy(update={"speculative_config": SpeculativeConfig(method="ngram", num_speculative_tokens=2)})
    assert calibration.objection(ngram) == "no calibrating steps were measured with ngram speculation"


def test_a_file_that_is_no_step_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "steps.parquet").write_text("nothing")
    with pytest.raises(SimulatorError, match=r"steps.parquet is not a step log.*Give a trial's"):
        read_calibration(tmp_path / "steps.parquet")
    with pytest.raises(SimulatorError, match=r"cannot read .*Give a trial's steps.parquet"):
        read_calibration(tmp_path / "none.parquet")


def test_models_with_experts_are_refused(model: str) -> None:
    (Path(model) / "config.json").write_text(json.dumps(LLAMA_8B | {"architectures": ["Qwen3MoeForCausalLM"]}))
    simulated_shape.cache_clear()
    assert "dense decoders alone" in refusal(config(model))


def test_an_unknown_name_gets_the_nearest_known_one() -> None:
    pytest.importorskip("aiconfigurator_core", reason="needs the extra `silicon`")
    assert "known names: meta-llama/Meta-Llama-3.1-70B" in refusal(config("meta-llama/Llama-3.1-70B"))


def test_a_known_name_on_known_silicon_is_silicon() -> None:
    pytest.importorskip("aiconfigurator_core", reason="needs the extra `silicon`")
    serving = backend().serving(config("meta-llama/Meta-Llama-3.1-8B", "h100_sxm"))
    assert serving.oracle.provenance.source is Source.SILICON
