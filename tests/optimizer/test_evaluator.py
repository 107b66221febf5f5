"""One candidate from config to result, on a fake engine."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from fakes.fake_backend import FakeBackend
from fakes.fake_server import Behaviour
from fakes.serving import UNPINNED
from traffic_cases import chats

from engine.backend import FailureKind
from engine.config import EngineConfig, Quantization, load_engine_config
from optimizer.cost import recorded_load
from optimizer.engine_measurer import EngineMeasurer
from optimizer.evaluator import Evaluator
from optimizer.fidelity import Fidelity, choose_window
from optimizer.objective import parse_objective
from optimizer.quality.evaluate import QualityEvaluator, reference_config
from optimizer.results import TrialResult, TrialState
from optimizer.slo import parse_slos
from optimizer.trial_folder import TrialFolder
from search_spaces.skus import load_skus
from workloads.records import read_records

DEFAULT = EngineConfig(model="none", max_num_seqs=16)
INT4 = DEFAULT.model_copy(update={"quantization": Quantization(weights="int4_g128")})
QUICK = Fidelity(
    window_s=0.4, warmup_requests=2, quality_requests=20, quality_requests_max=20, probe_s=0.4, verification_s=0.4
)

pytestmark = pytest.mark.usefixtures("never_late")

MakeEvaluator = Callable[..., Evaluator]


@pytest.fixture
def make(tmp_path: Path) -> MakeEvaluator:
    def make(
        backend: FakeBackend,
        *,
        slos: str = "quality>=0.8",
        objective: str = "latency",
        default: EngineConfig = DEFAULT,
        early_stop: bool = True,
    ) -> Evaluator:
        workload = chats(40)
        measurer = EngineMeasurer(
            backend=backend,
            study_dir=tmp_path,
            window=choose_window(workload, QUICK.window_s, num_warmup=QUICK.warmup_requests),
            fidelity=QUICK,
            load=recorded_load(workload),
            quality=QualityEvaluator(
                directory=tmp_path / "quality",
                workload=workload,
                reference_class=reference_config(default).quality_class(),
                num_requests=QUICK.quality_requests,
                num_requests_max=QUICK.quality_requests_max,
                floor=0.8,
                placement=UNPINNED,
            ),
            objective=parse_objective(objective),
            slos=parse_slos(slos),
            skus=load_skus(),
            placement=UNPINNED,
            hang_s=1.0,
            early_stop=early_stop,
        )
        return Evaluator(
            measurer=measurer, study_dir=tmp_path, objective=parse_objective(objective), slos=parse_slos(slos)
        )

    return make


def test_a_candidate_becomes_a_result_with_everything_that_is_known(make: MakeEvaluator, tmp_path: Path) -> None:
    result = make(FakeBackend()).evaluate(0, DEFAULT, origin="default")
    assert (result.state, result.failure, result.reason) == (TrialState.COMPLETE, None, "")
    assert result.quality is not None
    assert result.quality.is_reference
    assert result.cost is not None
    assert result.cost.sku == "local"
    assert result.objective == pytest.approx(result.metrics["p95_e2el_ms"] / 1000, rel=0.01)
    assert [outcome.slo for outcome in result.slos] == ["quality>=0.8"]
    assert result.feasible
    folder = tmp_path / result.directory
    assert TrialResult.model_validate_json((folder / "result.json").read_text()) == result
    assert load_engine_config(folder / "config.yaml") == DEFAULT
    assert len(read_records(folder / "records.parquet")) == result.metrics["completed"]
    assert (folder / "engine.log").exists()


def test_step_telemetry_is_written_once_the_probe_has_saturated_the_engine(
    make: MakeEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: list[str] = []
    seen: list[tuple[str, int]] = []
    monkeypatch.setattr(TrialFolder, "write_steps", lambda _, log: seen.append((phases[-1], int(log))))
    make(FakeBackend()).evaluate(0, DEFAULT, origin="default", report=phases.append)
    [(phase, _)] = seen
    assert phase.startswith("replaying")
    assert "probing saturation" in phases[: phases.index(phase)]


def test_damage_below_the_floor_is_measured_and_not_feasible(make: MakeEvaluator) -> None:
    evaluator = make(FakeBackend())
    evaluator.evaluate(0, DEFAULT, origin="default")
    result = evaluator.evaluate(1, INT4, origin="probe")
    assert result.state is TrialState.COMPLETE
    assert result.slos[0].violation > 0
    assert not result.feasible


def test_what_check_refuses_is_never_launched(make: MakeEvaluator, tmp_path: Path) -> None:
    backend = FakeBackend(refuses=lambda _: True)
    result = make(backend).evaluate(3, DEFAULT, origin="probe")
    assert (result.state, result.failure) == (TrialState.REFUSED, FailureKind.REFUSED)
    assert result.reason == "too large for this machine"
    assert backend.launched == []
    assert (tmp_path / "trials/0003/result.json").exists()


def test_a_failed_launch_is_a_result_with_its_kind(make: MakeEvaluator) -> None:
    result = make(FakeBackend(cannot_launch=lambda _: True)).evaluate(0, DEFAULT, origin="default")
    assert (result.state, result.failure) == (TrialState.FAILED, FailureKind.OUT_OF_MEMORY)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [(Behaviour(hangs_after=8), FailureKind.HANG), (Behaviour(dies_after=8), FailureKind.DIED)],
)
def test_an_engine_that_fails_under_load_is_a_result_with_its_kind(
    make: MakeEvaluator, behaviour: Behaviour, kind: FailureKind
) -> None:
    result = make(FakeBackend(lambda _: behaviour)).evaluate(0, DEFAULT, origin="default")
    assert (result.state, result.failure) == (TrialState.FAILED, kind)
    assert result.duration_s > 0


def test_a_void_replay_is_told_and_is_not_feasible(make: MakeEvaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.replay.outcome.void_reason", lambda *_: "the load generator was late")
    result = make(FakeBackend()).evaluate(0, DEFAULT, origin="default")
    assert result.state is TrialState.COMPLETE
    assert result.reason == "the load generator was late"
    assert not result.feasible
    assert result.quality is not None
    told = (result.metrics, result.estimates, result.cost, result.slos, result.objective)
    assert told == ({}, {}, None, (), None)  # nothing that a console, a report, MLflow or a table could show


def test_a_quantized_default_gets_its_reference_beforehand(make: MakeEvaluator) -> None:
    backend = FakeBackend()
    evaluator = make(backend, default=INT4)
    evaluator.prepare(INT4)
    assert backend.launched == [DEFAULT]
    result = evaluator.evaluate(0, INT4, origin="default")
    assert result.quality is not None
    assert not result.quality.is_reference
    assert result.quality.quality.value < 1


def test_an_unquantized_default_makes_the_reference_itself(make: MakeEvaluator) -> None:
    backend = FakeBackend()
    make(backend).prepare(DEFAULT)
    assert backend.launched == []


def test_a_weighted_objective_is_relative_to_trial_zero(make: MakeEvaluator) -> None:
    evaluator = make(FakeBackend(), objective="balanced")
    assert evaluator.evaluate(0, DEFAULT, origin="default").objective == pytest.approx(1.0)
    other = evaluator.evaluate(1, DEFAULT.model_copy(update={"max_num_seqs": 8}), origin="probe")
    assert other.objective is not None
    assert 0.2 < other.objective < 5


def test_an_slo_on_what_was_not_measured_is_a_reason(make: MakeEvaluator) -> None:
    result = make(FakeBackend(), slos="acceptance_length>2").evaluate(0, DEFAULT, origin="default")
    assert "acceptance_length" in result.reason
    assert not result.feasible


SLOW = DEFAULT.model_copy(update={"max_num_seqs": 15})


def slow_at_15(config: EngineConfig, *, tpot_s: float = 0.03) -> Behaviour:
    return Behaviour(tpot_s=tpot_s if config.max_num_seqs == 15 else 0.0005, max_num_seqs=config.max_num_seqs)


@pytest.mark.parametrize(
    ("objective", "slos", "reason", "bound"),
    [
        ("output_throughput", "e2el:p50<100ms; quality>=0.8", "e2el:p50<100ms is violated: ", "p50_e2el_ms"),
        ("latency", "quality>=0.8", "dominated by trial 0: ", "p95_e2el_ms"),
    ],
)
def test_a_candidate_that_is_rejected_beyond_doubt_is_stopped_and_not_measured(
    make: MakeEvaluator, tmp_path: Path, objective: str, slos: str, reason: str, bound: str
) -> None:
    far_slower = partial(slow_at_15, tpot_s=0.3)  # than any pause of a busy machine
    evaluator = make(FakeBackend(far_slower), slos=slos, objective=objective)
    default = evaluator.evaluate(0, DEFAULT, origin="default")
    assert default.state is TrialState.COMPLETE
    phases: list[str] = []
    result = evaluator.evaluate(1, SLOW, origin="probe", report=phases.append)
    assert result.state is TrialState.STOPPED
    assert result.reason.startswith(reason)
    assert (result.metrics, result.estimates, result.cost, result.objective) == ({}, {}, None, None)
    assert not result.feasible
    assert result.bounds[bound] > default.estimates[bound].value
    assert default.cost is not None
    assert result.bounds["usd_per_million_tokens"] > default.cost.usd_per_million_tokens.value
    assert not any(phase.startswith("quality") for phase in phases)
    folder = tmp_path / result.directory
    assert TrialResult.model_validate_json((folder / "result.json").read_text()) == result
    assert "stopped early" in (folder / "notes.txt").read_text()
    assert len(read_records(folder / "records.parquet")) <= default.metrics["completed"]


def test_without_early_stopping_every_trial_is_replayed_to_its_end(make: MakeEvaluator) -> None:
    evaluator = make(FakeBackend(slow_at_15), slos="e2el:p50<100ms; quality>=0.8", early_stop=False)
    evaluator.evaluate(0, DEFAULT, origin="default")
    result = evaluator.evaluate(1, SLOW, origin="probe")
    assert result.state is TrialState.COMPLETE
    assert result.slos[0].violation > 0


def test_the_default_is_never_stopped(make: MakeEvaluator) -> None:
    evaluator = make(FakeBackend(slow_at_15), slos="e2el:p50<100ms; quality>=0.8", default=SLOW)
    assert evaluator.evaluate(0, SLOW, origin="default").state is TrialState.COMPLETE


def test_phases_are_told_in_order(make: MakeEvaluator) -> None:
    phases: list[str] = []
    make(FakeBackend()).evaluate(0, DEFAULT, origin="default", report=phases.append)
    first_words = list(dict.fromkeys(phase.split()[0] for phase in phases))
    assert first_words == ["launching", "probing", "warming", "replaying", "quality"]
