"""`fopt replay`: measure any OpenAI endpoint with a recorded workload.

Does not launch anything.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import click

from optimizer.cli.console import metrics_table, stdout_console
from optimizer.cli.progress import Counter, stderr_console
from optimizer.errors import OptimizerError
from optimizer.placement import available_cores
from workloads.metrics import ServingMetrics, summarize
from workloads.parquet import read_workload
from workloads.records import RequestRecord, write_records
from workloads.replay.client import StreamingClient
from workloads.replay.dialect import served_models
from workloads.replay.num_clients import num_clients
from workloads.replay.replayer import Replayer
from workloads.replay.result import ReplayResult
from workloads.slo import SloThresholds
from workloads.workload import Workload


@click.command("replay", epilog="Example:  fopt replay workload.parquet --url http://127.0.0.1:8000 --speedup 2")
@click.argument("workload", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--url", required=True, help="Base URL of the server, with or without /v1.")
@click.option("--model", help="What requests call the model. Default: the only one the server lists.")
@click.option("--mode", type=click.Choice(["auto", "open_loop", "sessions", "concurrency"]), default="auto",
              show_default=True, help="auto: session-aware where turns depend on replies, else open loop.")  # fmt: skip
@click.option("--speedup", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True)
@click.option("--concurrency", type=click.IntRange(min=1), help="Requests in flight in mode concurrency.")
@click.option("--limit", "limit_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help="End after this long; requests in flight are counted as cut.")  # fmt: skip
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), default=600.0, show_default=True,
              help="Seconds one request may take.")  # fmt: skip
@click.option("--clients", type=click.IntRange(min=1), metavar="N",
              help="Processes to send from, each with whole sessions. Default: what the busiest 10 s of the recording "
                   "need (500 requests/s or 8000 tokens/s a process), at most one for every four cores.")  # fmt: skip
@click.option(
    "--vocab-size", type=click.IntRange(min=2), help="Of the model, to make prompts for a trace without text."
)
@click.option("--free-lengths", is_flag=True, help="Let the model end its answers instead of pinning recorded lengths.")
@click.option("--records", "records_path", type=click.Path(path_type=Path, dir_okay=False),
              help="Write the raw request records here (parquet).")  # fmt: skip
@click.option("--api-key-env", metavar="VAR", help="Environment variable that holds the API key.")
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as JSON.")
def command(
    workload: Path,
    url: str,
    model: str | None,
    mode: str,
    speedup: float,
    concurrency: int | None,
    limit_s: float | None,
    timeout_s: float,
    clients: int | None,
    vocab_size: int | None,
    free_lengths: bool,
    records_path: Path | None,
    api_key_env: str | None,
    as_json: bool,
) -> None:
    """Replay WORKLOAD against an OpenAI endpoint and print its metrics.

    Latencies start at the intended (recorded) arrival, so queueing in the client counts; `vllm bench serve`, whose
    metric names these are, starts its clock at send time. When the load generator itself was late no figures are
    printed: they would be its own."""
    if mode == "concurrency" and concurrency is None:
        raise click.UsageError("--mode concurrency needs --concurrency N.")
    traffic = read_workload(workload)
    api_key = _api_key(api_key_env)
    name = model or _only_model(url, api_key)
    with Counter(f"replaying {len(traffic)} requests", total=len(traffic), quiet=as_json) as counter:
        replayer = Replayer(
            base_url=url,
            model=name,
            mode=mode,  # type: ignore[arg-type]
            speedup=speedup,
            concurrency=concurrency,
            pin_lengths=not free_lengths,
            limit_s=limit_s,
            timeout_s=timeout_s,
            api_key=api_key,
            vocab_size=vocab_size,
            on_record=lambda record: counter.advance(),
            clients=clients
            or num_clients(
                traffic,
                num_cores=len(available_cores()),
                mode=mode,  # type: ignore[arg-type]
                speedup=speedup,
                concurrency=concurrency,
            ),
        )
        result = replayer.replay(traffic)
    if records_path is not None:
        write_records(records_path, result.records)
    _refuse_void(result, records_path)
    _report(traffic, result, as_json=as_json)


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise OptimizerError(f"--api-key-env {variable}: that environment variable is empty. Set it to the key")
    return key


def _only_model(url: str, api_key: str | None) -> str:
    names = asyncio.run(_models(url, api_key))
    if not names:
        raise OptimizerError(
            f"nothing at {url} lists models. Is the server running? Give its base URL, as http://host:port"
        )
    if len(names) != 1:
        raise OptimizerError(f"{url} lists {len(names)} models ({', '.join(names)}). Name one with --model")
    return names[0]


async def _models(url: str, api_key: str | None) -> tuple[str, ...]:
    async with StreamingClient(url, timeout_s=10, api_key=api_key) as client:
        return (await served_models(client, "")).names


def _refuse_void(result: ReplayResult, records_path: Path | None) -> None:
    """No figure of a void replay is shown: whoever copied it would copy the load generator's own lateness."""
    if result.void_reason is None:
        return
    kept = f" (the records are in {records_path})" if records_path is not None else ""
    raise OptimizerError(
        f"the replay is void, its figures are not shown: {result.void_reason}{kept}. Stop what else runs on this "
        "machine, send from more processes (--clients N), replay slower (--speedup), or from another machine"
    )


def _report(workload: Workload, result: ReplayResult, *, as_json: bool) -> None:
    if not any(record.status == "ok" for record in result.records):
        raise OptimizerError(f"no request succeeded: {_first_error(result.records)}")
    slos = {name: SloThresholds.from_class(slo) for name, slo in workload.metadata.slo_classes.items()}
    metrics: ServingMetrics = summarize(result.records, slos or None)
    if as_json:
        body = {"metrics": metrics.flat(), "notes": list(result.notes)}
        click.echo(json.dumps(body, indent=2))
        return
    stdout_console().print(metrics_table(metrics))
    for line in result.notes:
        stderr_console().print(f"note: {line}")


def _first_error(records: tuple[RequestRecord, ...]) -> str:
    errors = [record.error or str(record.http_status) for record in records if record.status != "ok"]
    return f"{errors[0]} ({len(errors)} such)" if errors else "nothing was sent"
