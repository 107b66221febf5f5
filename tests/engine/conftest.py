"""Checkpoints every engine test may share."""

from pathlib import Path

import pytest
from tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama with random weights."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="session")
def tiny_draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer draft with the same tokenizer."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "draft", seed=1, num_layers=1)
