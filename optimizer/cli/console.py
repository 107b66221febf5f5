"""Tables for people on stdout: metrics of a replay, the outcome of a study.

Does not compute: every number comes from metrics or results.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from optimizer.results import StudyResult, Verification
from reports import table as written
from reports.numbers import times_better, with_interval
from reports.summary import summarize as summarize_study
from workloads.metrics import ServingMetrics

_LATENCIES = (("ttft", "time to first token"), ("tpot", "time per output token"), ("itl", "gap between tokens"),
              ("e2el", "end to end"), ("schedule_lag", "schedule lag of the client"))  # fmt: skip
_SUMMARIES = ("mean", "median", "p90", "p95", "p99")


def stdout_console() -> Console:
    """Wide and plain when stdout is not a terminal, so that lines are not folded."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140, color_system=None)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> Table:
    """First column left and folded where it is too long, all others right."""
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def metrics_table(metrics: ServingMetrics) -> Table:
    """Latencies in milliseconds by summary, with counts and rates in the title; undefined cells are empty."""
    flat = metrics.flat()
    rows = []
    for name, words in _LATENCIES:
        cells = [flat.get(f"{summary}_{name}_ms") for summary in _SUMMARIES]
        rows.append([f"{words} (ms)", *("" if cell is None else f"{cell:.4g}" for cell in cells)])
    return make_table(["", *_SUMMARIES], rows, title=_headline(flat))


def _headline(flat: dict[str, float]) -> str:
    parts = [f"{flat['completed']:.0f} requests completed", f"{flat['failed']:.0f} failed"]
    if flat.get("num_cut"):
        parts.append(f"{flat['num_cut']:.0f} cut")
    parts.append(f"{flat['request_throughput']:.3g} requests/s")
    parts.append(f"{flat['output_throughput']:.4g} output tokens/s")
    if "request_goodput" in flat:
        parts.append(f"goodput {flat['request_goodput']:.3g}/s")
    return " · ".join(parts)


def print_study(study: StudyResult, paths: Sequence[Path]) -> None:
    """The answer first, then what changes, what it buys, and the next command."""
    summary = summarize_study(study)
    console = stdout_console()
    console.print()
    console.print(Text(summary.headline.sentence, style="bold"))
    if summary.headline.trust:
        console.print(Text(summary.headline.trust))
    for table in summary.tables:
        console.print(draw(table))
    if summary.adapters:
        console.print(Text(summary.adapters))
    console.print(Text(summary.provenance))
    for path in paths:
        if path.name in ("best.yaml", "report.html"):
            console.print(Text(f"wrote {path}"))
    if summary.serve:
        console.print(Text(f"next:  {summary.serve}"))


def draw(table: written.Table) -> Table:
    """A report's table for the terminal."""
    drawn = Table(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    drawn.caption, drawn.caption_justify = table.note or None, "left"
    for column in table.columns:
        drawn.add_column(column.name, justify="right" if column.numeric else "left")
    for row in table.rows:
        drawn.add_row(*(Text(cell.text, style=_STYLES[cell.tone]) for cell in row))
    return drawn


_STYLES = {"": "", "good": "green", "bad": "red", "muted": "dim", "strong": "bold"}


def print_verification(verification: Verification) -> None:
    """Promised against measured now."""
    rows = [
        [c.metric, with_interval(c.default), with_interval(c.recommended), times_better(c.improvement)]
        for c in verification.comparisons
    ]
    console = stdout_console()
    console.print(make_table(["metric", "promised", "measured now", "times better"], rows))
    for outcome in verification.slos:
        console.print(
            Text(f"{outcome.slo}: {'met' if outcome.violation <= 0 else 'VIOLATED'} (measured {outcome.value:.4g})")
        )
    for note in verification.notes:
        console.print(Text(f"note: {note}"))
    console.print(Text("it holds" if verification.holds else "it does NOT hold", style="bold"))
