"""`fopt artifacts sensitivity` on a small model, as the user sees it."""

from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import save_file

from optimizer.cli import cli
from optimizer.results import TrialResult, TrialState
from reports.deployment import read_deployment
from search_spaces.space import load_search_space
from workloads.metadata import Source, WorkloadMetadata
from workloads.parquet import read_workload, write_workload

DEMO = Path("workloads/demo").resolve()


def test_layers_and_mixes_are_told_and_a_study_measures_a_mix_of_the_space(
    tmp_path: Path,
    never_late: None,  # noqa: ARG001
) -> None:
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
    trial = measured_default(output, "mixed_5_bits", tmp_path)
    assert trial.state is TrialState.COMPLETE, trial.reason
    assert trial.config.quantization.overrides
    assert trial.quality is not None
    assert trial.quality.kl_nats is not None
    best = read_deployment(tmp_path / "runs" / "s" / "best.yaml", verify=True)
    assert best.config.quantization == trial.config.quantization


def measured_default(space: Path, weights: str, folder: Path) -> TrialResult:
    """Trial 0 of a study on the space whose default has these weights."""
    options = load_search_space(space).parameters["quantization.weights"].options
    assert options is not None
    mix = {name.removeprefix("quantization."): value for name, value in options[weights].items()}
    (folder / "base.yaml").write_text(yaml.safe_dump({"model": str(DEMO / "models" / "draft"), "quantization": mix}))
    requests = list(read_workload(DEMO / "heldout.parquet"))[:60]
    write_workload(folder / "short.parquet", requests, WorkloadMetadata(name="short", source=Source(format="test")))
    arguments = [
        "run",
        folder / "short.parquet",
        "--space",
        space,
        "--base",
        folder / "base.yaml",
        "--budget",
        "1trials",
    ]
    arguments += ["--slo", "quality>=0", "--no-verify", "--runs-dir", folder / "runs", "--name", "s"]
    done = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return TrialResult.model_validate_json((folder / "runs" / "s" / "trials" / "0000" / "result.json").read_text())


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
