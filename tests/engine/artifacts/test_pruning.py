"""Removal from the cache by age and size; what is in use stays."""

import os
from pathlib import Path

import pytest
from fake_quantizer import FakeQuantizer

from engine.artifacts.pruning import prune, stored_artifacts
from engine.artifacts.store import ArtifactStore, use_lock
from engine.config import EngineConfig, Quantization, WeightFormat

FORMATS: tuple[WeightFormat, ...] = ("int8", "fp8", "int4_g32")


@pytest.fixture
def keys(store: ArtifactStore, tiny_model: Path) -> list[str]:
    """Three artifacts, last used 300, 200 and 100 seconds after the epoch, in use no more."""
    found = []
    for number, weights in enumerate(FORMATS):
        config = EngineConfig(model=str(tiny_model), quantization=Quantization(weights=weights))
        found.append(store.checkpoint(config).name)
        os.utime(use_lock(store.directory, found[-1]), (300 - 100 * number,) * 2)
    store.close()
    return found


def test_artifacts_are_listed_by_last_use(store: ArtifactStore, keys: list[str]) -> None:
    artifacts = stored_artifacts(store.directory)
    assert [artifact.key for artifact in artifacts] == keys
    assert [artifact.last_used for artifact in artifacts] == [300, 200, 100]
    labels = [artifact.provenance.ingredients.recipe.label() for artifact in artifacts if artifact.provenance]
    assert labels == ["int8", "fp8", "int4_g32"]
    assert stored_artifacts(store.directory / "nowhere") == []


def test_the_old_are_removed(store: ArtifactStore, keys: list[str]) -> None:
    pruning = prune(store.directory, now=1000, older_than_s=850, max_bytes=None)
    assert [artifact.key for artifact in pruning.removed] == [keys[2]]
    assert [artifact.key for artifact in stored_artifacts(store.directory)] == keys[:2]


def test_the_longest_unused_make_room(store: ArtifactStore, keys: list[str]) -> None:
    room = sum(artifact.bytes for artifact in stored_artifacts(store.directory)[:2])
    prune(store.directory, now=1000, older_than_s=None, max_bytes=room)
    assert [artifact.key for artifact in stored_artifacts(store.directory)] == keys[:2]


def test_a_dry_run_removes_nothing(store: ArtifactStore, keys: list[str]) -> None:
    pruning = prune(store.directory, now=1000, older_than_s=0, max_bytes=None, dry_run=True)
    assert [artifact.key for artifact in pruning.removed] == keys[::-1]
    assert len(stored_artifacts(store.directory)) == 3


def test_what_is_in_use_stays(
    store: ArtifactStore, keys: list[str], quantizer: FakeQuantizer, tiny_model: Path
) -> None:
    user = ArtifactStore(store.directory, python=quantizer.python)
    user.checkpoint(EngineConfig(model=str(tiny_model), quantization=Quantization(weights="fp8")))
    pruning = prune(store.directory, now=1e12, older_than_s=0, max_bytes=0)
    assert [artifact.key for artifact in pruning.in_use] == [keys[1]]
    assert [artifact.key for artifact in stored_artifacts(store.directory)] == [keys[1]]
    user.close()
    assert not prune(store.directory, now=1e12, older_than_s=0, max_bytes=None).in_use
    assert stored_artifacts(store.directory) == []


def test_a_pruned_artifact_is_built_again(
    store: ArtifactStore, keys: list[str], quantizer: FakeQuantizer, tiny_model: Path
) -> None:
    prune(store.directory, now=1e12, older_than_s=0, max_bytes=None)
    config = EngineConfig(model=str(tiny_model), quantization=Quantization(weights="int8"))
    assert store.checkpoint(config).name == keys[0]
    assert len(quantizer.builds) == 4


def test_a_damaged_artifact_is_listed_and_can_be_removed(store: ArtifactStore, keys: list[str]) -> None:
    (store.directory / keys[0] / "provenance.json").unlink()
    assert stored_artifacts(store.directory)[0].provenance is None
    prune(store.directory, now=1e12, older_than_s=0, max_bytes=None)
    assert stored_artifacts(store.directory) == []
