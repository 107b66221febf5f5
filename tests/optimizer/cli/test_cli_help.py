"""What `fopt --help` says and what it costs."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from optimizer.cli import COMMANDS, cli

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "vllm", "mlflow", "optuna", "plotly", "pandas", "pyarrow", "numpy", "pydantic", "aiohttp", "rich")
GROUPS = ("artifacts",)  # commands with subcommands


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom optimizer.cli import main\n"
        "sys.argv = ['fopt', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output


def test_the_readme_names_only_commands_that_exist() -> None:
    words = [line.split() for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("    fopt ")]
    assert words
    assert {line[1] for line in words} <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_the_readme_shows_exists(name: str) -> None:
    for line in (ROOT / "README.md").read_text().splitlines():
        if line.startswith(f"    fopt {name} "):
            words = line.split("#")[0].split()
            path = words[1:3] if name in GROUPS else words[1:2]
            options = CliRunner().invoke(cli, [*path, "--help"]).output
            shown = [word for word in words if word.startswith("--")]
            assert all(word in options for word in shown), line
