"""`fopt run --engine simulated`: an answer for hardware that is not here, marked predicted; and its error lines."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from simulated_cases import write_model, write_study, write_traffic

from engine.config import EngineConfig, Quantization
from engine.simulator.corrected import Correction
from optimizer.candidate import space_around
from optimizer.cli import main
from optimizer.cli.simulated_job import judged_limits
from optimizer.errors import OptimizerError
from optimizer.slo import parse_slos
from search_spaces.space import load_search_space

Fails = Callable[..., str]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def traffic(tmp_path: Path) -> Path:
    return write_traffic(tmp_path / "traffic.parquet")


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], traffic: Path, tmp_path: Path) -> Fails:
    """Runs a simulated `fopt run`, checks that it is a user error that leaves nothing behind, and returns its line."""

    def run(*arguments: object) -> str:
        options = ["--engine", "simulated", "--runs-dir", str(tmp_path / "runs")]
        monkeypatch.setattr(sys, "argv", ["fopt", "run", str(traffic), *options, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        told = capsys.readouterr()
        assert stop.value.code == 2, told.err
        assert not (tmp_path / "runs").exists()
        return told.err.removeprefix("fopt: error: ")

    return run


def test_a_run_answers_without_torch_and_marks_everything_predicted(traffic: Path, model: Path, tmp_path: Path) -> None:
    arguments = ["run", str(traffic), "--model", str(model), "--engine", "simulated", "--skus", "mi300x,l4"]
    arguments += ["--objective", "cost", "--slo", "ttft:p95<2s", "--budget", "6trials", "--name", "s"]
    arguments += ["--runs-dir", str(tmp_path / "runs")]
    program = f"import sys; sys.argv = ['fopt', *{arguments!r}]\nfrom optimizer.cli import main\n"
    program += "try:\n    main()\nfinally:\n    print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "Predicted by a simulator and not measured" in done.stdout
    assert "6 predicted by a simulator" in done.stdout
    assert "measured on a running engine" not in done.stdout
    study = tmp_path / "runs" / "s"
    best = yaml.safe_load((study / "best.yaml").read_text())
    assert best["provenance"] == "predicted"
    assert best["verified"] is False
    assert best["config"]["hardware"]["sku"] in ("mi300x", "l4")
    comment = (study / "best.yaml").read_text()
    assert "vllm serve --config best.vllm.yaml" in comment
    assert "step times: roofline: data sheet of" in " ".join(comment.replace("#", " ").split())
    assert "predicted by fopt's simulator" in (study / "best.vllm.yaml").read_text().replace("\n# ", " ")
    report = (study / "report.md").read_text()
    assert "quality is not predicted" in report.lower()
    results = [json.loads(path.read_text()) for path in study.glob("trials/*/result.json")]
    assert {result["provenance"] for result in results} == {"predicted"}
    quantization = Quantization().model_dump()
    assert all(result["config"]["quantization"] == quantization for result in results)


def test_without_a_quality_floor_weights_and_the_cache_are_quantized(
    traffic: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        "--engine",
        "simulated",
        "--skus",
        "mi300x",
        "--objective",
        "cost",
        "--budget",
        "12trials",
        "--name",
        "s",
    ]
    options += ["--slo", "ttft:p95<2s", "--slo", "quality>=0", "--runs-dir", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["fopt", "run", str(traffic), "--model", str(model), *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    trials = [json.loads(path.read_text()) for path in (tmp_path / "runs" / "s").glob("trials/*/result.json")]
    parts = [trial["config"]["quantization"] for trial in trials]
    assert {"bf16", "fp8"} <= {part["weights"] for part in parts}
    assert {part["kv_cache"] for part in parts} == {"bf16", "fp8"}
    assert all((part["activations"] == "fp8") == (part["weights"] == "fp8") for part in parts)


def test_a_measured_study_corrects_what_is_predicted_for_its_sku(
    traffic: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = [EngineConfig(model=str(model), engine="vllm", max_num_seqs=number) for number in (16, 64)]
    study = write_study(tmp_path / "mine", traffic, tried, sku="mi300x", truth=Correction(mixed_scale=2.0))
    options = ["--engine", "simulated", "--skus", "mi300x,l4", "--budget", "4trials", "--objective", "cost"]
    options += ["--measured", f"MI300X={study}", "--name", "s", "--runs-dir", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["fopt", "run", str(traffic), "--model", str(model), *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    report = (tmp_path / "runs" / "s" / "report.md").read_text().replace("\\", "")
    assert "tep times of mi300x are corrected by 2 trials of mine" in report
    trials = [json.loads(path.read_text()) for path in (tmp_path / "runs" / "s").glob("trials/*/result.json")]
    for trial in trials:
        assert ("corrected by a fit on" in trial["basis"]) == (trial["config"]["hardware"]["sku"] == "mi300x")


def test_an_unknown_sku_gets_the_closest(fails: Fails, model: Path) -> None:
    assert "no SKU is called 'h100_smx'. Did you mean" in fails("--model", model, "--skus", "mi300x,h100_smx")


def test_a_list_of_no_skus_says_how_to_write_one(fails: Fails, model: Path) -> None:
    assert "Write names such as h100_sxm,h200,l40s" in fails("--model", model, "--skus", ",")


def test_a_model_that_fits_no_sku_is_told_what_it_would_take(fails: Fails, model: Path) -> None:
    write_model(model, num_hidden_layers=2000)
    told = fails("--model", model, "--skus", "l4")
    assert "runs on none of these SKUs" in told
    assert "would hold" in told


def test_this_machine_needs_measured_steps(fails: Fails, model: Path) -> None:
    assert "--steps" in fails("--model", model, "--skus", "local")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--objective", "quality"], "quality, which is not predicted"),
        (["--slo", "kl<0.1"], "kl<0.1: quality is not predicted"),
        (["--acceptance", "ngram=high"], "is no list of numbers. Write for example ngram=0.7,0.5"),
        (["--acceptance", "eagle=0.5"], "no simulated method is called 'eagle'"),
        (["--acceptance", "ngram=1.5"], "between 0 and 1"),
        (["--steps", "none.parquet"], "cannot read none.parquet"),
        (["--model", "nobody/nothing"], "nobody/nothing"),
        (["--measured", "mi300x"], "write SKU=FOLDER, for example h100_sxm=runs/my-study"),
        (["--measured", "local=runs/x"], "--measured is for GPUs; steps of this machine are given with --steps FILE"),
        (["--measured", "l4=none"], "none is no study's folder"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(fails: Fails, model: Path, options: list[str], words: str) -> None:
    assert words in fails("--model", model, *options)


def test_a_base_that_is_no_text_is_one_line(fails: Fails, model: Path, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_bytes(b"\xff\xfe\x00bad")
    assert "base.yaml is not text. Give the path of a config file" in fails(
        "--model", model, "--base", tmp_path / "base.yaml"
    )


def test_options_of_the_simulator_are_refused_elsewhere(fails: Fails, model: Path) -> None:
    told = fails("--model", model, "--engine", "bundled", "--skus", "l4")
    assert "--skus belongs to --engine simulated" in told


def test_a_prediction_cannot_be_served(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"model": str(model), "engine": "simulated"}))
    monkeypatch.setattr(sys, "argv", ["fopt", "serve", str(config)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "there is nothing to launch" in capsys.readouterr().err


def test_a_quality_floor_keeps_to_unquantized_weights_and_zero_lets_the_others_in() -> None:
    by_default = judged_limits(parse_slos("ttft:p95<1s"))
    assert not by_default.quantized
    assert [slo.metric for slo in by_default.slos] == ["ttft"]
    assert "quality>=0.99 is kept by leaving quantized weights out" in by_default.note
    moved = judged_limits(parse_slos("quality>=0"))
    assert moved.quantized
    assert "is not known" in moved.note
    with pytest.raises(OptimizerError, match="quality is not predicted"):
        judged_limits(parse_slos("quality<0.5"))


def test_a_space_with_prefill_and_decode_apart_names_the_split_that_it_recommends(
    traffic: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "apart.yaml"
    space.write_text(
        "description: one split\nparameters:\n  hardware.sku: [b200, mi300x]\n  parallel:\n    options:\n"
        "      tp1: {tensor_parallel_size: 1, hardware.count: 1, disaggregation: null}\n"
        "      tp1_2p1d: {tensor_parallel_size: 1, hardware.count: 3, disaggregation.prefill_instances: 2,\n"
        "                 disaggregation.decode_instances: 1}\n"
    )
    options = ["--engine", "simulated", "--space", str(space), "--objective", "p99_itl_ms", "--budget", "9trials"]
    options += ["--model", str(model), "--name", "s", "--runs-dir", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["fopt", "run", str(traffic), *options])
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr().out
    assert stop.value.code == 0
    assert "Predicted by a simulator and not measured" in told
    study = tmp_path / "runs" / "s"
    best = yaml.safe_load((study / "best.yaml").read_text())
    assert best["provenance"] == "predicted"
    assert best["config"]["disaggregation"] == {"prefill_instances": 2, "decode_instances": 1}
    assert best["config"]["hardware"] == {"sku": "b200", "count": 3}
    report = (study / "report.md").read_text().replace("\\", "")
    assert "Prompts are read by 2 instances and answers written by 1 other of each replica." in report
    assert "eft out, as the model does not fit, or its steps or network are unknown: mi300x tp1_2p1d" in report
    results = [json.loads(path.read_text()) for path in study.glob("trials/*/result.json")]
    paid = {result["config"]["hardware"]["count"]: result["cost"] for result in results}
    assert paid[3]["usd_per_hour"] == pytest.approx(3 * 5.50 * paid[3]["replicas"])


def test_the_disaggregated_space_is_read_and_each_split_takes_its_devices() -> None:
    space = load_search_space("disaggregated")
    validated = space_around(space.resolve({}).space, EngineConfig(model="m", hardware={"sku": "h200", "count": 1}))
    for fields in (validated.parameters["parallel"].options or {}).values():
        instances = fields.get("disaggregation.prefill_instances", 1) + fields.get("disaggregation.decode_instances", 0)
        assert fields["hardware.count"] == fields["tensor_parallel_size"] * instances


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (16, "needs 16 mi300x in one machine, which has 8. tensor_parallel_size 1 would fit"),
        (3, "does not divide the model's 32 attention heads. Use 2"),
    ],
)
def test_a_base_whose_split_is_impossible_is_told_what_is_possible(
    fails: Fails, model: Path, tmp_path: Path, split: int, words: str
) -> None:
    base = tmp_path / "base.yaml"
    hardware = {"sku": "MI300X", "count": split}
    base.write_text(yaml.safe_dump({"model": str(model), "tensor_parallel_size": split, "hardware": hardware}))
    assert words in fails("--model", model, "--base", base, "--skus", "mi300x")
