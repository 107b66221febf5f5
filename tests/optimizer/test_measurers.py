"""Every `Measurer` keeps the contract."""

from pathlib import Path

import pytest
from fakes.fake_backend import FakeBackend
from fakes.serving import UNPINNED
from measurer_contract import NUM_REQUESTS, MeasurerContract
from simulated_cases import write_model
from traffic_cases import chats

from engine.config import EngineConfig
from engine.simulated_backend import SimulatedBackend
from optimizer.cost import recorded_load
from optimizer.engine_measurer import EngineMeasurer
from optimizer.fidelity import Fidelity, choose_window
from optimizer.findings import Measurer
from optimizer.objective import parse_objective
from optimizer.results import Provenance
from optimizer.simulated_measurer import SimulatedMeasurer
from search_spaces.skus import load_skus

QUICK = Fidelity(
    window_s=NUM_REQUESTS / 40 + 1,
    warmup_requests=0,
    quality_requests=4,
    quality_requests_max=4,
    probe_s=0.2,
    verification_s=0.2,
)


class TestSimulatedMeasurer(MeasurerContract):
    provenance, is_deterministic = Provenance.PREDICTED, True

    @pytest.fixture
    def measurer(self, tmp_path: Path) -> Measurer:  # noqa: ARG002
        skus, wish = load_skus(), parse_objective("latency")
        backend = SimulatedBackend(skus)
        return SimulatedMeasurer(backend=backend, workload=chats(NUM_REQUESTS), skus=skus, objective=wish, slos=())

    @pytest.fixture
    def good(self, tmp_path: Path) -> EngineConfig:
        values = {"model": str(write_model(tmp_path / "model")), "engine": "simulated", "hardware": {"sku": "mi300x"}}
        return EngineConfig.model_validate(values)

    @pytest.fixture
    def refused(self, good: EngineConfig) -> EngineConfig:
        return good.model_copy(update={"max_model_len": 4_000_000})

    @pytest.fixture
    def failing(self, good: EngineConfig) -> EngineConfig:
        return good.model_copy(update={"max_model_len": 16, "kv_cache_memory_bytes": 2**21})


@pytest.mark.usefixtures("never_late")
class TestEngineMeasurer(MeasurerContract):
    provenance, is_deterministic = Provenance.MEASURED, False

    @pytest.fixture
    def measurer(self, tmp_path: Path) -> Measurer:
        workload = chats(NUM_REQUESTS, rate_rps=400.0)
        return EngineMeasurer(
            backend=FakeBackend(refuses=lambda c: c.max_num_seqs == 1, cannot_launch=lambda c: c.max_num_seqs == 2),
            study_dir=tmp_path,
            window=choose_window(workload, QUICK.window_s, num_warmup=QUICK.warmup_requests),
            fidelity=QUICK,
            load=recorded_load(workload),
            quality=None,
            objective=parse_objective("latency"),
            slos=(),
            skus=load_skus(),
            placement=UNPINNED,
            hang_s=2.0,
        )

    @pytest.fixture
    def good(self, tmp_path: Path) -> EngineConfig:  # noqa: ARG002
        return EngineConfig(model="none", max_num_seqs=16)

    @pytest.fixture
    def refused(self, good: EngineConfig) -> EngineConfig:
        return good.model_copy(update={"max_num_seqs": 1})

    @pytest.fixture
    def failing(self, good: EngineConfig) -> EngineConfig:
        return good.model_copy(update={"max_num_seqs": 2})
