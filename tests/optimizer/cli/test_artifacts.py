"""`fopt artifacts`: what the cache holds, and its removal, as the user sees it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import save_file

from optimizer.cli import cli

PROGRAM = """#!{python}
import json, sys
from pathlib import Path
if "-c" in sys.argv:
    print(json.dumps({{"llmcompressor": "9.9.9"}}))
    sys.exit()
output = Path(json.loads(Path(sys.argv[-1]).read_text())["output"])
output.mkdir()
(output / "model.safetensors").write_bytes(bytes(2000))
print(json.dumps({{"event": "done"}}))
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    save_file({"model.layers.0.mlp.down_proj.weight": np.zeros((4, 64), np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def python(tmp_path: Path) -> str:
    path = tmp_path / "python"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


def run(tmp_path: Path, *arguments: object) -> Result:
    command = ["artifacts", *map(str, arguments), "--directory", str(tmp_path / "cache")]
    return CliRunner().invoke(cli, command, catch_exceptions=False)


def test_what_is_built_is_listed_and_removed(tmp_path: Path, model: Path, python: str) -> None:
    assert "holds no artifacts" in run(tmp_path, "list").stderr
    built = run(tmp_path, "build", model, "--weights", "int4_g32", "--quantizer-python", python)
    folder = Path(built.stdout.strip())
    assert folder.parent == tmp_path / "cache"
    assert (folder / "model.safetensors").is_file()
    listed = run(tmp_path, "list").stdout
    for word in (folder.name[:12], "int4_g32", "kB", "0 s ago"):
        assert word in listed
    assert "would be removed" in run(tmp_path, "prune", "--max-size", "1kB", "--dry-run").stdout
    assert folder.exists()
    assert "nothing to remove" in run(tmp_path, "prune", "--older-than", "30d").stdout
    assert folder.name[:12] in run(tmp_path, "prune", "--max-size", "1kB").stdout
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("prune",), "say what to remove"),
        (("prune", "--older-than", "soon"), "not an age"),
        (("prune", "--max-size", "20"), "not a size"),
        (("build", "nowhere", "--weights", "int3"), "int3"),
    ],
)
def test_a_wrong_option_is_one_clear_line(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = run(tmp_path, *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert not (tmp_path / "cache").exists()
