"""Every importer runs the contract, and every format that is both read and written is checked for its round trip."""

import importlib
from pathlib import Path

import pytest
from importer_contract import ImporterContract

from workloads.importers import IMPORTERS


def contract_names() -> list[str]:
    for path in sorted(Path(__file__).parent.glob("test_*importers.py")):
        importlib.import_module(path.stem)
    return [case.name for case in ImporterContract.__subclasses__()]


@pytest.mark.parametrize("name", IMPORTERS)
def test_every_importer_runs_the_contract_once(name: str) -> None:
    assert contract_names().count(name) == 1
