"""The import arrows of the design, as a table: an `ast` walk over every module."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"engine", "optimizer", "reports", "search_spaces", "workloads"}

# A module may import, of ours, only what the first matching row of its dotted name allows.
ALLOWED: list[tuple[str, set[str]]] = [
    ("workloads", {"workloads"}),
    ("search_spaces", {"search_spaces"}),
    ("engine.bundled_backend", {"engine", "search_spaces"}),
    ("engine.bundled", {"engine.bundled", "engine.config", "engine.checkpoint_tensors"}),
    ("engine.artifacts", {"engine.artifacts", "engine.bundled", "engine.config", "engine.backend", "engine.process"}),
    ("engine", {"engine", "search_spaces"}),
    ("optimizer.cli", OURS),
    ("optimizer", {"optimizer", "workloads", "search_spaces", "engine"}),
    # engine.vllm_options: best.vllm.yaml holds the very options that the vllm engine is launched with
    (
        "reports",
        {
            *("reports", "optimizer.results", "engine.config", "engine.backend", "engine.vllm_options", "workloads"),
            "search_spaces.unique_keys",
        },
    ),
]

# A third-party package may be imported only below these modules.
BORDERS: dict[str, tuple[str, ...]] = {
    "optuna": ("optimizer",),
    "mlflow": ("reports",),
    "torch": ("engine.bundled", "engine.artifacts"),
    "pyarrow": ("workloads", "reports", "engine.bundled.step_log"),  # telemetry is a parquet file
    "pandas": ("workloads", "reports"),
    "vllm": ("engine.vllm_server.parser_probe",),  # a script that vLLM's own Python runs
    "aiconfigurator_core": ("engine.simulator",),
    "plotly": ("reports",),
    "llmcompressor": ("engine.artifacts.quantize_worker",),  # runs in an environment of its own
    "llguidance": ("engine.bundled.grammar",),
}


def modules() -> list[tuple[str, Path]]:
    """Dotted name and path of every module of the five packages."""
    found = []
    for package in sorted(OURS):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def imported_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # `from engine import config` names a module, `from engine.config import X` a member of one.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def allowed_for(module: str) -> set[str]:
    return next(allowed for prefix, allowed in ALLOWED if below(module, prefix))


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_module_imports_only_what_its_folder_may(module: str, path: Path) -> None:
    for name in imported_names(path):
        top = name.split(".")[0]
        if top in OURS:
            assert any(below(name, allowed) for allowed in allowed_for(module)), f"{module} imports {name}"
        if top in BORDERS:
            assert any(below(module, border) for border in BORDERS[top]), f"{module} imports {name}"


def test_nothing_imports_the_command_line() -> None:
    for module, path in modules():
        if not below(module, "optimizer.cli"):
            assert not any(below(name, "optimizer.cli") for name in imported_names(path)), module


def test_relative_imports_are_not_used() -> None:
    for module, path in modules():
        relative = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) and n.level]
        assert not relative, module


def test_every_file_stays_one_noun() -> None:
    """A file is usually under 350 lines; 500 is where it has become two."""
    for module, path in modules():
        assert len(path.read_text().splitlines()) <= 500, module
