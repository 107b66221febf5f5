"""Roofline and calibrated step times: arithmetic by hand, and fits that find what made the data."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bundled.step_log import StepRecord, from_parquet, to_parquet
from engine.config import EngineConfig
from engine.model_shape import ModelShape
from engine.simulator.calibrated import Calibrator, MeasuredSteps, calibrate
from engine.simulator.corrected import CorrectedOracle, Correction
from engine.simulator.errors import SimulatorError
from engine.simulator.oracle import ConstantOracle, Source
from engine.simulator.roofline import FITTED, Derates, RooflineOracle
from search_spaces.skus import Sku

SHAPE = ModelShape.model_validate(
    {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 10,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "vocab_size": 1000,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }
)
ROW = {"name": "x", "vendor": "v", "usd_per_hour": 1, "as_of": "now", "source": "me"}
SKU = Sku.model_validate({**ROW, "memory_gib": 80, "bandwidth_tb_s": 1, "bf16_tflops": 100, "link_gb_s": 100})
IDEAL = Derates()


def roofline(**fields: object) -> RooflineOracle:
    return RooflineOracle(EngineConfig.model_validate({"model": "m", **fields}), SHAPE, SKU, IDEAL)


def test_a_decode_step_reads_weights_and_context() -> None:
    # Matrices of a layer: q and o 1024², k and v 256 x 1024, three of 4096 x 1024; the head and norms beside them.
    weights = 2 * (10 * (2 * 1024**2 + 2 * 256 * 1024 + 3 * 4096 * 1024 + 2 * 1024) + 1000 * 1024 + 1024)
    context = 2 * 10 * 256 * 2 * 500
    assert roofline().step_s(0, 0, 0, 1, 500, 0) == pytest.approx((weights + context) / 1e12, rel=1e-6)


def test_a_long_prompt_is_bound_by_arithmetic() -> None:
    linear = 2 * SHAPE.num_linear_parameters * 4000 + 2 * 1000 * 1024
    attention = 4 * 10 * 1024 * 4000**2 / 2
    assert roofline().step_s(1, 4000, 0, 0, 0, 0) == pytest.approx((linear + attention) / 1e14, rel=1e-6)


def test_splitting_pays_for_the_link() -> None:
    one, two = roofline(), roofline(tensor_parallel_size=2)
    sent = 2 * 0.5 * 2 * 10 * 1024 * 2 * 4000 / 100e9
    assert two.step_s(1, 4000, 0, 0, 0, 0) == pytest.approx(one.step_s(1, 4000, 0, 0, 0, 0) / 2 + sent)


def test_a_roofline_is_labelled_with_its_known_error() -> None:
    provenance = RooflineOracle(EngineConfig(model="m"), SHAPE, SKU).provenance
    assert (provenance.source, provenance.median_error) == (Source.ROOFLINE, FITTED.median_error)
    assert "data sheet of x" in provenance.sentence()
    assert "error not known" in roofline().provenance.sentence()


def test_a_sku_without_figures_is_refused() -> None:
    bare = Sku.model_validate(ROW)
    with pytest.raises(SimulatorError, match="lacks bandwidth_tb_s and bf16_tflops"):
        RooflineOracle(EngineConfig(model="m"), SHAPE, bare)
    unlinked = SKU.model_copy(update={"link_gb_s": None})
    with pytest.raises(SimulatorError, match="lacks link_gb_s"):
        RooflineOracle(EngineConfig(model="m", tensor_parallel_size=2), SHAPE, unlinked)


def logged(number: int, noise: float = 0.0, seed: int = 0) -> list[StepRecord]:
    """Steps of 1 ms + 10 us a token + 1 us a hundred context tokens, drafts dearer; a tenth of it between the steps."""
    rng = np.random.default_rng(seed)
    records = []
    for index in range(number):
        prompts = int(rng.integers(0, 2))
        tokens = int(rng.integers(1, 300)) if prompts else 0
        seqs = int(rng.integers(1 - prompts, 30))
        context, drafts = seqs * int(rng.integers(10, 500)), seqs * int(rng.integers(0, 4))
        seconds = 1e-3 + 1e-5 * (tokens + seqs + drafts) + 1e-8 * context + 2e-5 * drafts
        seconds *= float(rng.lognormal(-noise * noise / 2, noise))
        records.append(
            StepRecord(
                index * 0.01, 0.9 * seconds, 0.1 * seconds, 0, *(prompts, tokens, 0, seqs, context, drafts, seqs)
            )
        )
    return records


def test_a_fit_finds_the_costs_that_made_the_steps() -> None:
    oracle = calibrate(logged(500), name="made up")
    assert oracle.provenance.median_error == pytest.approx(0, abs=1e-4)
    assert oracle.step_s(0, 0, 0, 10, 3000, 20) == pytest.approx(1e-3 + 3e-4 + 3e-5 + 4e-4, rel=1e-3)


def test_a_step_that_idleness_followed_says_nothing() -> None:
    idle = [record._replace(gap_s=None, duration_s=1.0) for record in logged(200, seed=1)]
    both = [record for pair in zip(logged(200), idle, strict=True) for record in pair]
    assert calibrate(both, name="half idle").step_s(0, 0, 0, 10, 3000, 0) == pytest.approx(1.13e-3, rel=1e-3)


def test_a_pass_and_a_drafter_measured_apart_are_put_together() -> None:
    plain = [record for record in logged(900) if not record.num_draft_tokens]
    slow = [record._replace(duration_s=3 * record.duration_s, gap_s=3 * (record.gap_s or 0)) for record in plain]
    calibrator = Calibrator(
        [
            MeasuredSteps(records=logged(900, seed=1), name="a", number_format="bf16", drafter="ngram"),
            MeasuredSteps(records=slow, name="b", number_format="int8"),
        ]
    )
    slow_pass, draft = 3 * (1e-3 + 3e-4 + 3e-5), 4e-4
    assert calibrator.oracle("int8", "ngram").step_s(0, 0, 0, 10, 3000, 20) == pytest.approx(
        slow_pass + draft, rel=0.05
    )
    assert calibrator.oracle("int8").step_s(0, 0, 0, 10, 3000, 0) == pytest.approx(3 * 1.13e-3, rel=0.01)
    assert "steps of b" in calibrator.oracle("int8").provenance.detail


def test_requests_that_come_are_paid_for_with_their_prompts() -> None:
    records = logged(600)
    came = [index % 3 for index in range(len(records))]
    later = [0, *came[:-1]]  # noted by the step after
    records = [
        record._replace(num_added_seqs=before, gap_s=(record.gap_s or 0) + 5e-4 * now)
        for record, before, now in zip(records, later, came, strict=True)
    ]
    oracle, free = calibrate(records, name="busy"), calibrate(logged(600), name="free")
    extra_s = oracle.step_s(2, 100, 0, 0, 0, 0) - free.step_s(2, 100, 0, 0, 0, 0)
    assert extra_s == pytest.approx(2 * 5e-4, rel=0.1)


def test_a_scheduler_beyond_what_was_seen_is_told() -> None:
    oracle = calibrate(logged(500), name="small")
    assert oracle.outside(max_num_seqs=29, max_num_batched_tokens=64) == ""
    assert "more than 29 decoding requests or more than" in oracle.outside(max_num_seqs=64, max_num_batched_tokens=2048)


def test_a_hiccup_is_left_out_and_told() -> None:
    records = logged(500)
    records[100] = records[100]._replace(duration_s=9.0)
    oracle = calibrate(records, name="hiccup")
    assert "1 of 500 steps left out" in oracle.provenance.sentence()
    assert oracle.step_s(0, 0, 0, 10, 3000, 0) == pytest.approx(1.13e-3, rel=1e-3)


def test_noise_shows_in_the_error_but_not_in_the_total() -> None:
    provenance = calibrate(logged(4000, noise=0.5), name="noisy").provenance
    assert provenance.median_error == pytest.approx(0.35, abs=0.06)
    assert provenance.total_error == pytest.approx(0, abs=0.03)
    assert "held-out steps" in provenance.sentence()


@given(st.integers(0, 50))
def test_costs_are_never_negative(seed: int) -> None:
    oracle = calibrate(logged(100, noise=1.0, seed=seed), name="wild")
    assert 0 < oracle.step_s(0, 0, 0, 1, 1, 0) <= oracle.step_s(1, 50, 0, 1, 1, 0) <= oracle.step_s(1, 50, 9, 2, 9, 3)


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(SimulatorError, match="short: 49 logged steps with another step after them are too few"):
        calibrate(logged(49), name="short")


def without(log: bytes, *columns: str, rest: str | None = None) -> bytes:
    """A parquet file that lacks some columns; what is left may get another name."""
    table = pq.read_table(io.BytesIO(log)).drop_columns(list(columns))
    sink = io.BytesIO()
    pq.write_table(table.rename_columns([rest]) if rest else table, sink)
    return sink.getvalue()


def test_a_step_log_survives_parquet() -> None:
    records = logged(5)
    assert from_parquet(to_parquet(records)) == records
    with pytest.raises(ValueError, match="not a step log"):
        from_parquet(b"nothing")
    with pytest.raises(ValueError, match="of an older version, without gap_s and num_added_seqs: measure"):
        from_parquet(without(to_parquet(records), "gap_s", "num_added_seqs"))
    with pytest.raises(ValueError, match="none of its columns"):
        from_parquet(without(to_parquet(records), *StepRecord._fields[1:], rest="other"))


def test_a_correction_is_applied_and_told() -> None:
    correction = Correction(
        mixed_scale=3.0, mixed_floor_s=5.0, step_overhead_s=0.5, sequence_overhead_s=0.1, fitted_on="two runs"
    )
    quick, slow = (CorrectedOracle(ConstantOracle(seconds=seconds), correction) for seconds in (1.0, 2.0))
    assert quick.step_s(0, 0, 0, 4, 40, 0) == pytest.approx(1.0 + 0.5 + 4 * 0.1)
    assert quick.step_s(1, 9, 0, 4, 40, 0) == pytest.approx(5.0 + 0.5 + 5 * 0.1)  # the floor
    assert slow.step_s(1, 9, 0, 0, 0, 0) == pytest.approx(3 * 2.0 + 0.5 + 0.1)
    assert "corrected by a fit on two runs" in quick.provenance.detail
