"""Default against recommended, interleaved on held-out traffic; and a deployment against its promise."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from fakes.fake_backend import FakeBackend
from fakes.fake_server import Behaviour
from fakes.serving import UNPINNED
from traffic_cases import chats

from engine.config import EngineConfig, Quantization, SpeculativeConfig
from optimizer.comparison import not_worse
from optimizer.fidelity import choose_window
from optimizer.objective import parse_objective
from optimizer.promise import verify_deployment
from optimizer.quality.evaluate import QualityEvaluator
from optimizer.results import Comparison, Deployment, Provenance, Verification
from optimizer.slo import parse_slos
from optimizer.verification import verify
from workloads.estimate import Estimate
from workloads.records import RequestRecord

DEFAULT = EngineConfig(model="none", max_num_seqs=16)
FASTER = DEFAULT.model_copy(update={"speculative_config": SpeculativeConfig(method="ngram", num_speculative_tokens=4)})
INT4 = DEFAULT.model_copy(update={"quantization": Quantization(weights="int4_g128")})

NUM_WARMUP = 2

pytestmark = pytest.mark.usefixtures("never_late")


def behave(config: EngineConfig) -> Behaviour:
    """A drafting engine takes 1 ms a token, a plain one 20."""
    damage = 0.0 if config.quantization.weights == "bf16" else 1.0
    return Behaviour(tpot_s=0.001 if config.speculative_config else 0.02, damage=damage)


def run(
    backend: FakeBackend,
    directory: Path,
    recommended: EngineConfig,
    *,
    default: EngineConfig = DEFAULT,
    slos: str = "quality>=0.7; cost<5",
    objective: str = "latency",
) -> Verification:
    workload = chats(16, seed=5)
    quality = QualityEvaluator(
        directory=directory / "quality",
        workload=workload,
        reference_class=DEFAULT.quality_class(),
        num_requests=12,
        num_requests_max=12,
        floor=0.7,
        placement=UNPINNED,
    )
    return verify(
        backend=backend,
        default=default,
        recommended=recommended,
        window=choose_window(workload, 0.3, num_warmup=NUM_WARMUP),
        slos=parse_slos(slos),
        quality=quality,
        placement=UNPINNED,
        directory=directory,
        objective=parse_objective(objective),
        probe_s=0.4,
    )


def test_a_faster_config_is_found_faster_in_four_interleaved_replays(tmp_path: Path) -> None:
    backend = FakeBackend(behave)
    found = run(backend, tmp_path, FASTER)
    by_metric = {comparison.metric: comparison for comparison in found.comparisons}
    assert found.order == "ABBA"
    assert found.holds
    assert by_metric["p50_tpot_ms"].improvement.low > 1
    assert by_metric["saturation_throughput"].improvement.value > 1
    assert len(backend.launched) == 2  # both stay up
    assert sorted(path.name for path in tmp_path.glob("records-*")) == [
        "records-1-default.parquet",
        "records-2-recommended.parquet",
        "records-3-recommended.parquet",
        "records-4-default.parquet",
    ]
    assert any("reference computes" in note for note in found.notes)
    assert any("cost" in note for note in found.notes)


def test_a_slower_config_does_not_hold(tmp_path: Path) -> None:
    found = run(FakeBackend(behave), tmp_path, DEFAULT, default=FASTER)
    assert not found.holds


def test_quality_is_measured_again_on_held_out_requests(tmp_path: Path) -> None:
    found = run(FakeBackend(behave), tmp_path, INT4)
    assert found.quality is not None
    assert found.quality.quality.high < 0.7
    assert not found.holds
    assert [outcome.slo for outcome in found.slos] == ["quality>=0.7"]


def test_two_engines_that_do_not_fit_together_take_turns(tmp_path: Path) -> None:
    backend = FakeBackend(behave)
    backend.refuses = lambda _: len(backend.launched) > 0  # with one running, nothing else fits
    found = run(backend, tmp_path, FASTER)
    assert found.order == "ABBA"
    assert len(backend.launched) == 1 + 4


def make_void(monkeypatch: pytest.MonkeyPatch, *replays: int) -> None:
    """These replays of the window are void, counted from 1; a void one is replayed again at once."""
    seen: list[int] = []

    def reason(records: Sequence[RequestRecord], loop_lags_s: Sequence[float]) -> str | None:
        if loop_lags_s or len(records) == NUM_WARMUP:  # a probe or a warm-up, at a fixed concurrency
            return None
        seen.append(len(seen) + 1)
        return "the load generator was late" if seen[-1] in replays else None

    monkeypatch.setattr("workloads.replay.outcome.void_reason", reason)


def test_a_pair_with_a_void_replay_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_void(monkeypatch, 1, 2)
    found = run(FakeBackend(behave), tmp_path, FASTER)
    (latency,) = (one for one in found.comparisons if one.metric == "p50_tpot_ms")
    assert 0 < latency.default.num_samples == latency.recommended.num_samples <= 16  # of one replay each
    assert found.holds
    assert "replay 1 of 4, default is left out: the load generator was late" in found.notes


def test_void_replays_verify_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_void(monkeypatch, *range(1, 9))
    found = run(FakeBackend(behave), tmp_path, FASTER, slos="ttft:p50<60s")
    assert (found.comparisons, found.slos, found.holds) == ((), (), False)
    assert any(note.startswith("nothing was verified: the load generator was late") for note in found.notes)
    assert len(list(tmp_path.glob("records-*"))) == 4


def test_the_default_itself_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    found = run(FakeBackend(behave), tmp_path, DEFAULT)
    assert (found.order, found.comparisons, found.holds) == ("BB", (), True)


def estimate(value: float, spread: float = 0.05) -> Estimate:
    return Estimate(value=value, low=value * (1 - spread), high=value * (1 + spread), num_samples=50)


def comparison(metric: str, improvement: float) -> Comparison:
    return Comparison(metric=metric, default=estimate(1), recommended=estimate(1), improvement=estimate(improvement))


def test_a_cheaper_config_may_be_slower_when_cost_was_the_wish() -> None:
    found = [comparison("p95_e2el_ms", 0.5), comparison("saturation_throughput", 2.0)]
    assert not_worse(parse_objective("cost"), found)
    assert not not_worse(parse_objective("latency"), found)
    assert not not_worse(None, found)
    # half 1/0.525 and half 1/2.1: 0.5 x 1.905 + 0.5 x 0.476 = 1.19 > 1
    assert not not_worse(parse_objective("latency + cost"), found)


def test_worse_within_the_noise_is_not_worse() -> None:
    assert not_worse(parse_objective("latency"), [comparison("p95_e2el_ms", 0.97)])


def deployment(evidence: dict[str, Estimate]) -> Deployment:
    return Deployment(
        config=FASTER,
        artifacts=(),
        provenance=Provenance.MEASURED,
        study="s",
        trial=1,
        objective="latency",
        slos=(),
        workload_name="letters",
        workload_fingerprint="",
        evidence=evidence,
        verified=True,
        created_at="",
        created_by="",
    )


@pytest.mark.parametrize(("promised_ms", "holds"), [(60_000.0, True), (0.5, False)])
def test_a_promise_holds_unless_what_is_measured_now_is_worse_beyond_doubt(
    tmp_path: Path, promised_ms: float, holds: bool
) -> None:
    found = verify_deployment(
        backend=FakeBackend(behave),
        deployment=deployment({"p95_e2el_ms": estimate(promised_ms)}),
        window=choose_window(chats(16, seed=5), 0.3, num_warmup=2),
        slos=(),
        quality=None,
        placement=UNPINNED,
        directory=tmp_path,
    )
    assert found.holds is holds
    assert [c.metric for c in found.comparisons] == ["p95_e2el_ms"]
    assert found.order == "BB"


def test_lighter_traffic_breaks_no_promise(tmp_path: Path) -> None:
    found = verify_deployment(
        backend=FakeBackend(behave),
        deployment=deployment({"p95_e2el_ms": estimate(1e6), "output_throughput": estimate(1e9)}),
        window=choose_window(chats(16, seed=5), 0.3, num_warmup=2),
        slos=(),
        quality=None,
        placement=UNPINNED,
        directory=tmp_path,
    )
    assert found.holds
