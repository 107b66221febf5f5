"""The command line, `fopt`: the composition root. Commands live one a file and are imported when called.

Knows every folder; nothing imports it. `fopt --help` imports nothing but click.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType

import click

__all__ = ["cli", "main"]

# command: (module, one line for --help)
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("optimizer.cli.run", "Search the space for the config that serves a workload best."),
    "serve": ("optimizer.cli.serve", "Start the engine from a best.yaml, or a model with the default config."),
    "verify": ("optimizer.cli.verify", "Measure a best.yaml again and say whether it still holds."),
    "replay": ("optimizer.cli.replay", "Replay a workload against any OpenAI endpoint and print its metrics."),
    "inspect": ("optimizer.cli.inspect", "Print what is in a workload and which replays it can drive."),
    "import": ("optimizer.cli.import_", "Turn a log you already have into a workload file."),
    "sample": ("optimizer.cli.sample", "Write a short workload that is like a long one."),
    "anonymize": ("optimizer.cli.anonymize", "Write a workload without its contents, to hand on."),
    "generate": ("optimizer.cli.generate", "Draw traffic from recorded models of clients (ServeGen)."),
    "export": ("optimizer.cli.export", "Write a workload for another load generator, to cross-check."),
    "plan": ("optimizer.cli.plan", "Size fleets for a recorded load on hardware you do not have (predicted)."),
    "artifacts": ("optimizer.cli.artifacts", "List, build and remove quantized checkpoints that studies reuse."),
    "ui": ("optimizer.cli.ui", "Compare the trials of all studies in the MLflow UI."),
}


class LazyGroup(click.Group):
    """Imports a command's module when it is called, so that --help stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command = importlib.import_module(module).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with:  fopt run workloads/demo/workload.parquet --objective latency",
)
@click.version_option(package_name="fireoptimizer", prog_name="fopt")
def cli() -> None:
    """FireOptimizer: from a recorded LLM inference workload and an objective to the deployment config that
    serves it best, with the evidence."""


def main() -> None:
    """Entry point of the command `fopt`. Exit codes: 0 done, 1 bug, 2 user error, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        code = _say(_click_sentence(error))
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("fopt: interrupted", err=True)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `fopt inspect | head`
        code = 0
    except Exception as error:
        from optimizer.cli.errors import sentence

        text = sentence(error)
        if text is None:
            raise
        code = _say(text)
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> int:
    click.echo(f"fopt: error: {text}", err=True)
    return 2


def _click_sentence(error: click.ClickException) -> str:
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" See `{error.ctx.command_path} --help`."
    return " ".join(error.format_message().split()) + hint
