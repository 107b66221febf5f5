"""`fopt run --devices`: what may be chosen, and each wrong choice in one line before anything is written."""

import sys
from pathlib import Path

import pytest

from engine import devices
from optimizer.cli import main
from optimizer.cli.device_choice import chosen_devices
from optimizer.errors import OptimizerError


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for number in range(2):
        (tmp_path / "gpus" / str(number)).mkdir(parents=True)
    monkeypatch.setattr(devices, "NVIDIA_GPUS", tmp_path / "gpus")


@pytest.mark.usefixtures("two_gpus")
def test_devices_are_taken_in_the_order_that_was_asked() -> None:
    assert chosen_devices(None, "simulated") is None
    assert chosen_devices("1", "vllm") == ("1",)
    assert chosen_devices(" 1, 0", "command") == ("1", "0")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("text", "engine", "words"),
    [
        ("0", "simulated", "for engines that are launched here (bundled, vllm, command). Leave it out"),
        ("0", "endpoint", "for engines that are launched here"),
        ("", "vllm", "give each device once, with commas between, such as 0,1"),
        ("0,,1", "vllm", "give each device once"),
        ("1,1", "vllm", "give each device once"),
        ("0,2", "vllm", "--devices 2: none of those that may be used here (0, 1)"),
    ],
)
def test_a_wrong_choice_says_what_is_right(text: str, engine: str, words: str) -> None:
    with pytest.raises(OptimizerError) as caught:
        chosen_devices(text, engine)
    assert words in str(caught.value)


@pytest.mark.usefixtures("two_gpus")
def test_the_users_own_variable_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-7")
    assert chosen_devices("GPU-7", "vllm") == ("GPU-7",)
    with pytest.raises(OptimizerError, match=r"--devices 0: none of those that may be used here \(1, GPU-7\)"):
        chosen_devices("0", "vllm")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(OptimizerError, match="no NVIDIA GPU is visible here"):
        chosen_devices("0", "bundled")


@pytest.mark.usefixtures("two_gpus")
def test_the_command_line_says_it_in_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--engine", "simulated", "--devices", "0", "--runs-dir", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["fopt", "run", str(tmp_path / "log.parquet"), *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("fopt: error: --devices is for engines")
    assert not (tmp_path / "runs").exists()
