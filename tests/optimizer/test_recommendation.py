import pytest
from hypothesis import given
from hypothesis import strategies as st
from trial_cases import failed, trial

from engine.config import EngineConfig, Hardware, Quantization, SpeculativeConfig
from optimizer.objective import parse_objective
from optimizer.reasons import trials_in_words, what_changes
from optimizer.recommendation import recommend
from optimizer.relaxation import admitting_limit
from optimizer.results import Provenance, TrialResult, TrialState
from optimizer.slo import Slo, evaluate_trial, parse_slos, violation

LATENCY = parse_objective("latency")
BASE = EngineConfig(model="m")
DRAFT = BASE.model_copy(
    update={"speculative_config": SpeculativeConfig(method="draft_model", num_speculative_tokens=4, model="d")}
)
INT4 = BASE.model_copy(update={"quantization": Quantization(weights="int4_g128")})
DRAFT_8 = DRAFT.model_copy(update={"max_num_seqs": 8})


def judged(slos: tuple[Slo, ...], *trials: TrialResult) -> list[TrialResult]:
    return [t.model_copy(update={"slos": tuple(evaluate_trial(slo, t) for slo in slos)}) for t in trials]


def test_the_best_feasible_trial_is_recommended_and_explained() -> None:
    slos = parse_slos("quality>=0.99")
    draft = trial(1, p95_s=0.8, usd=0.5, config=DRAFT, metrics={"acceptance_length": 2.9})
    trials = judged(slos, trial(0, p95_s=1.68, config=BASE), draft, trial(2, p95_s=0.5, q=0.96, config=INT4))
    found = recommend([*trials, failed(3)], LATENCY, slos)
    assert found is not None
    assert (found.trial, found.feasible) == (1, True)
    text = " ".join(found.reasons)
    assert "Of 3 measured configs 2 meet every limit" in text
    assert "a small draft model proposes 4 tokens ahead" in text
    assert "2.9 tokens come out of each step" in text
    assert "Answers are complete 2.1x sooner: 800 ms instead of 1,680 ms at p95" in text
    assert "A million tokens cost 2.0x less: $0.5 instead of $1" in text
    assert "Quality is unchanged, because speculation is lossless" in text


def test_a_feasible_recommendation_says_what_the_next_notch_would_buy() -> None:
    slos = parse_slos("quality>=0.99")
    trials = judged(slos, trial(0, p95_s=1.6, config=BASE), trial(1, p95_s=0.4, q=0.968, config=INT4))
    found = recommend(trials, LATENCY, slos)
    assert found is not None
    assert found.trial == 0
    (advice,) = found.advice
    assert (advice.slo, advice.limit_needed, advice.trial) == ("quality>=0.99", "0.968", 1)
    assert "4.00x better than the default for latency" in advice.text


def test_what_a_notch_buys_is_told_beside_the_recommended_trial_not_a_default_that_does_not_qualify() -> None:
    slos = parse_slos("e2el:p95<1s; quality>=0.99")
    trials = judged(
        slos,
        trial(0, p95_s=1.6, config=BASE),
        trial(1, p95_s=0.8, config=BASE.model_copy(update={"max_num_seqs": 8})),
        trial(2, p95_s=0.4, q=0.968, config=INT4),
    )
    found = recommend(trials, LATENCY, slos)
    assert found is not None
    assert found.trial == 1
    assert "2.00x better than trial 1 for latency" in " ".join(advice.text for advice in found.advice)


def test_a_gain_inside_the_noise_keeps_the_default() -> None:
    trials = [trial(0, p95_s=1.0, config=BASE, spread=0.1), trial(1, p95_s=0.97, config=DRAFT, spread=0.1)]
    found = recommend(trials, LATENCY, ())
    assert found is not None
    assert found.trial == 0
    assert "default config" in found.reasons[-1]


def test_of_equals_the_one_with_fewer_changes_is_taken() -> None:
    trials = [
        trial(0, p95_s=2.0, config=BASE),
        trial(1, p95_s=0.99, config=DRAFT_8, spread=0.1),
        trial(2, p95_s=1.0, config=DRAFT, spread=0.1),
    ]
    found = recommend(trials, LATENCY, ())
    assert found is not None
    assert found.trial == 2
    assert "Trial 1 did as well within the noise; this one changes fewer settings." in found.reasons
    assert trials_in_words([3, 5, 9]) == "Trials 3, 5 and 9"


def test_a_clear_gain_of_two_percent_is_taken() -> None:
    trials = [trial(0, p95_s=1.0, spread=0.001, config=BASE), trial(1, p95_s=0.98, spread=0.001, config=DRAFT)]
    found = recommend(trials, LATENCY, ())
    assert found is not None
    assert found.trial == 1


def test_equal_quality_does_not_keep_a_config_that_is_worse_at_everything_else() -> None:
    trials = [trial(0, p95_s=2.0, usd=2.0, config=BASE), trial(1, p95_s=1.0, usd=1.0, config=DRAFT)]
    found = recommend(trials, parse_objective("quality"), ())
    assert found is not None
    assert found.trial == 1


def test_an_infeasible_limit_is_answered_with_what_it_would_take() -> None:
    slos = parse_slos("e2el:p95<300ms; quality>=0.99")
    trials = judged(slos, trial(0, p95_s=1.0, config=BASE), trial(1, p95_s=0.412, config=DRAFT))
    found = recommend(trials, LATENCY, slos)
    assert found is not None
    assert (found.trial, found.feasible, found.binding_slos) == (1, False, ("e2el:p95<300ms",))
    (advice,) = found.advice
    assert (advice.slo, advice.limit_needed, advice.trial) == ("e2el:p95<300ms", "413ms", 1)
    assert "With e2el:p95<413ms instead of e2el:p95<300ms, trial 1 meets every limit: 2.43x better" in advice.text
    assert "None of the 2 measured configs meets every limit" in found.reasons[0]
    assert "It misses e2el:p95<300ms by 37.3%; no measured config meets that limit." in found.reasons


def test_limits_in_conflict_get_one_advice_each() -> None:
    slos = parse_slos("e2el:p95<500ms; quality>=0.99")
    trials = judged(slos, trial(0, p95_s=0.6, config=BASE), trial(1, p95_s=0.4, q=0.96, config=INT4))
    found = recommend(trials, LATENCY, slos)
    assert found is not None
    assert {(a.slo, a.limit_needed, a.trial) for a in found.advice} == {
        ("e2el:p95<500ms", "601ms", 0),
        ("quality>=0.99", "0.96", 1),
    }
    assert "configs that meet that limit miss another one" in " ".join(found.reasons)


def test_limits_that_must_give_way_together_are_said_together() -> None:
    slos = parse_slos("e2el:p95<500ms; cost<0.5")
    found = recommend(judged(slos, trial(0, p95_s=0.6, usd=0.7, config=BASE)), LATENCY, slos)
    assert found is not None
    assert found.binding_slos == ("e2el:p95<500ms", "cost<0.5")
    assert "No single limit is to blame: trial 0 needs e2el:p95<601ms together with cost<0.701" in found.advice[0].text


def test_nothing_measured_gives_no_recommendation() -> None:
    void = trial(1).model_copy(update={"reason": "the client was late"})
    assert recommend([failed(0), void], LATENCY, ()) is None


def test_a_failed_default_does_not_stop_a_recommendation() -> None:
    found = recommend([failed(0, config=BASE), trial(1, config=DRAFT)], LATENCY, ())
    assert found is not None
    assert found.trial == 1


@given(st.sampled_from(["cost<1", "cost<=1", "quality>=0.5", "goodput>0.5"]), st.floats(1e-6, 1e6))
def test_the_limit_advised_admits_the_value_and_is_near_it(text: str, value: float) -> None:
    slo = parse_slos(text)[0]
    limit = admitting_limit(slo, value)
    assert violation(slo.with_limit(limit), value) <= 0
    assert limit == pytest.approx(value, rel=0.021)


def test_other_hardware_is_told_once() -> None:
    default = EngineConfig(model="m")
    hardware = Hardware(sku="h200", count=4)
    config = default.model_copy(update={"tensor_parallel_size": 4, "hardware": hardware})
    assert config.label(default) == "4 x h200"
    trial = TrialResult(number=1, config=config, state=TrialState.COMPLETE)
    base = TrialResult(number=0, config=default, state=TrialState.COMPLETE)
    assert what_changes(trial, base) == [
        "Each layer is split over 4 devices instead of 1.",
        "Each replica runs on 4 x h200; the default on local.",
    ]


def test_number_formats_are_told_in_words() -> None:
    default = EngineConfig(model="m")
    parts = Quantization(weights="int8", activations="int8", kv_cache="fp8", overrides={"*.down_proj": "bf16"})
    trial = TrialResult(number=1, config=default.model_copy(update={"quantization": parts}), state=TrialState.COMPLETE)
    base = TrialResult(number=0, config=default, state=TrialState.COMPLETE)
    assert what_changes(trial, base) == [
        "Weights are stored as int8 instead of bf16.",
        "What layers hand on is rounded to int8, so that they multiply in int8.",
        "What the model remembers of a conversation is stored as fp8, so that more of it fits into memory.",
        "Some layers have a weight format of their own: *.down_proj as bf16.",
    ]
    back = what_changes(base.model_copy(update={"number": 2}), trial)
    assert back[1:] == [
        "What layers hand on is not rounded.",
        "What the model remembers of a conversation is stored as it was computed.",
        "All layers have the same weight format.",
    ]


def test_predictions_are_never_called_measured() -> None:
    def predicted(number: int) -> TrialResult:
        return TrialResult(
            number=number,
            config=EngineConfig(model="m", max_num_seqs=16 + number),
            state=TrialState.COMPLETE,
            provenance=Provenance.PREDICTED,
            metrics={"p95_e2el_ms": 100.0 - 20 * number},
        )

    found = recommend([predicted(0), predicted(1)], parse_objective("latency"), ())
    assert found is not None
    assert "Of 2 predicted configs" in found.reasons[0]
    assert "measured" not in " ".join(found.reasons)
