"""`fopt artifacts sensitivity` on a small model, as the user sees it."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from optimizer.cli import cli
from search_spaces.space import load_search_space

DEMO = Path("workloads/demo").resolve()


def test_layers_and_mixes_are_told_and_the_space_holds_the_mixes(tmp_path: Path) -> None:
    output = tmp_path / "mixed.yaml"
    arguments = [
        str(DEMO / "models" / "draft"), str(DEMO / "workload.parquet"), "--tokens", "100", "--formats",
        "int4_g32,int8", "--bits", "5,6", "--output", str(output),
    ]  # fmt: skip
    done = CliRunner().invoke(cli, ["artifacts", "sensitivity", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "mixed_5_bits" in done.stdout
    assert "answers that the choice did not see" in " ".join(done.stdout.split())
    assert "model.layers.1.mlp.down_proj" in done.stdout
    assert f"--space {output}" in done.stderr
    options = {str(value) for p in load_search_space(output).parameters.values() for value in p.values()}
    assert {"mixed_5_bits", "mixed_6_bits", "int8"} <= options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bits", "1"], "are not bits a weight"),
        (["--formats", "int5"], "'int5' is no weight format. Known are bf16"),
        (["--space", "endpoint"], "does not vary quantization.weights"),
    ],
)
def test_wishes_that_cannot_be_are_refused_before_anything_is_measured(options: list[str], words: str) -> None:
    arguments = [str(DEMO / "models" / "draft"), str(DEMO / "workload.parquet"), *options]
    done = CliRunner().invoke(cli, ["artifacts", "sensitivity", *arguments])
    assert done.exit_code != 0
    assert words in done.output + str(done.exception)


def test_a_format_that_no_layer_can_have_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    save_file({"model.layers.0.mlp.down_proj.weight": torch.zeros(96, 96)}, tmp_path / "model.safetensors")
    arguments = [str(tmp_path), str(DEMO / "workload.parquet"), "--formats", "int4_g128"]
    done = CliRunner().invoke(cli, ["artifacts", "sensitivity", *arguments])
    assert "no layer of the model can be stored as int4_g128: take smaller groups" in str(done.exception)
