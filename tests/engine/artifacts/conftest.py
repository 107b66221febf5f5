"""A store whose llm-compressor is a stand-in."""

from pathlib import Path

import pytest
from fake_quantizer import FakeQuantizer

from engine.artifacts.store import ArtifactStore
from engine.config import EngineConfig, Quantization


@pytest.fixture
def quantizer(tmp_path: Path) -> FakeQuantizer:
    return FakeQuantizer(tmp_path / "quantizer")


@pytest.fixture
def store(tmp_path: Path, quantizer: FakeQuantizer) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store", python=quantizer.python)


@pytest.fixture
def int8(tiny_model: Path) -> EngineConfig:
    return EngineConfig(model=str(tiny_model), quantization=Quantization(weights="int8", activations="int8"))
