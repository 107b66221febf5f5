"""Bad input: one clear line on stderr, exit code 2, nothing half-written."""

import gzip
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from optimizer.cli import main
from workloads.metadata import Source, WorkloadMetadata
from workloads.parquet import read_workload, write_workload
from workloads.request import Request
from workloads.schema import METADATA_KEY

Fail = Callable[..., str]


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fail:
    """Runs `fopt ARGUMENTS`, checks that it is a user error of one line, and returns the line."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["fopt", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        told = capsys.readouterr()
        assert stop.value.code == 2, told.err
        assert told.out == ""
        assert told.err.startswith("fopt: error: ")
        return told.err.removeprefix("fopt: error: ").rstrip("\n")

    return run


@pytest.fixture
def traffic(tmp_path: Path) -> Path:
    """A workload of lengths only, good in itself."""
    requests = [
        Request(request_id=f"r{i}", arrival_s=i * 0.1, input_tokens=20, output_tokens=5, status="ok") for i in range(40)
    ]
    path = tmp_path / "traffic.parquet"
    write_workload(path, requests, WorkloadMetadata(name="traffic", source=Source(format="test")))
    return path


@pytest.fixture
def demo_model() -> Path:
    return Path(__file__).parents[3] / "workloads/demo/models/target"


def edited(path: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    """The workload file with its table changed behind the writer's back."""
    pq.write_table(change(pq.read_table(path)), path)
    return path


def test_a_missing_workload_is_named(fails: Fail, tmp_path: Path) -> None:
    assert str(tmp_path / "nope.parquet") in fails("run", tmp_path / "nope.parquet")


def test_a_truncated_workload_is_named(fails: Fail, traffic: Path) -> None:
    traffic.write_bytes(traffic.read_bytes()[:-200])
    assert "truncated" in fails("run", traffic)


def test_another_schema_version_is_refused(fails: Fail, traffic: Path) -> None:
    key = METADATA_KEY.encode() if isinstance(METADATA_KEY, str) else METADATA_KEY

    def newer(table: pa.Table) -> pa.Table:
        stored = table.schema.metadata[key].replace(b"workload/1", b"workload/9")
        return table.replace_schema_metadata({key: stored})

    assert "workload/9" in fails("inspect", edited(traffic, newer))


def test_a_row_with_negative_tokens_is_pointed_at(fails: Fail, traffic: Path) -> None:
    def negative(table: pa.Table) -> pa.Table:
        values = table.column("input_tokens").to_pylist()
        values[3] = -4
        place = table.schema.get_field_index("input_tokens")
        return table.set_column(place, table.schema.field(place), pa.array(values, pa.int32()))

    bad = edited(traffic, negative)
    for command in ("run", "inspect"):
        told = fails(command, bad)
        assert "row 3" in told
        assert "input_tokens" in told


def test_an_unknown_objective_names_the_known_ones(fails: Fail, traffic: Path) -> None:
    assert "latency" in fails("run", traffic, "--objective", "latncy")


def test_a_typo_in_an_slo_is_pointed_at(fails: Fail, traffic: Path) -> None:
    assert "300mss" in fails("run", traffic, "--slo", "ttft:p95<300mss")


def test_a_wrong_budget_says_how_to_write_one(fails: Fail, traffic: Path) -> None:
    assert "30trials" in fails("run", traffic, "--budget", "soon")


def test_a_workload_without_a_model_asks_for_one(fails: Fail, traffic: Path) -> None:
    assert "--model" in fails("run", traffic)


def test_a_space_with_an_unknown_parameter_is_refused(fails: Fail, traffic: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    space = tmp_path / "space.yaml"
    space.write_text("name: mine\nparameters:\n  max_num_seq: [8, 16]\n")
    told = fails("run", traffic, "--model", tmp_path / "model", "--space", space)
    assert "max_num_seq" in told
    assert "max_num_seqs" in told


def test_a_model_folder_without_weights_is_refused(
    fails: Fail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    fails("serve", "--model", tmp_path / "model")


def test_a_default_config_that_cannot_run_leaves_no_study(fails: Fail, traffic: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    told = fails("run", traffic, "--model", tmp_path / "model", "--runs-dir", tmp_path / "runs")
    assert "the default config cannot run here" in told
    assert not (tmp_path / "runs").exists()


def test_a_runs_folder_that_cannot_be_written_is_named(
    fails: Fail, traffic: Path, tmp_path: Path, demo_model: Path
) -> None:
    (tmp_path / "file").write_text("")
    runs = tmp_path / "file" / "runs"
    assert str(runs) in fails("run", traffic, "--model", demo_model, "--runs-dir", runs)


def test_a_port_in_use_is_refused(fails: Fail, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "in use" in fails("ui", "--runs-dir", tmp_path, "--port", taken.getsockname()[1])


def test_import_does_not_overwrite(fails: Fail, traffic: Path) -> None:
    before = traffic.read_bytes()
    assert "--force" in fails("import", traffic, traffic)
    assert traffic.read_bytes() == before


def test_an_endpoint_that_is_not_there_is_told(fails: Fail, traffic: Path) -> None:
    assert "Is the server running" in fails("replay", traffic, "--url", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "Give --seconds or --requests"),
        (("--seconds", "5", "--requests", "3"), "one of them"),
        (("--seconds", "0"), "Correct the option"),
        (("--seconds", "5", "--scale", "nan"), "Correct the option"),
        (("--seconds", "5", "--windows", "-1"), "Correct the option"),
    ],
)
def test_an_impossible_sample_is_refused_and_nothing_is_written(
    fails: Fail, traffic: Path, options: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimizer.cli.sample.Counter", Quiet)
    output = traffic.with_name("out.parquet")
    assert told in fails("sample", traffic, output, *options)
    assert not output.exists()


def test_a_result_is_not_overwritten_unasked(fails: Fail, traffic: Path, tmp_path: Path) -> None:
    before = traffic.read_bytes()
    for command in (("sample", traffic, traffic, "--seconds", "1"), ("anonymize", traffic, traffic)):
        assert "--force" in fails(*command)
    assert "--force" in fails("generate", tmp_path, traffic, "--seconds", "1")
    assert traffic.read_bytes() == before


def test_a_missing_salt_is_named(fails: Fail, traffic: Path) -> None:
    line = fails("anonymize", traffic, traffic.with_name("out.parquet"), "--salt-file", traffic.with_name("salt"))
    assert "salt" in line
    assert "leave --salt-file out" in line


def test_a_folder_without_client_models_is_named(fails: Fail, tmp_path: Path) -> None:
    assert "no client models" in fails("generate", tmp_path, tmp_path / "out.parquet", "--seconds", "60")


class Quiet:
    """A progress counter that says nothing."""

    def __init__(self, text: str, *, total: int) -> None: ...

    def __enter__(self) -> "Quiet":
        return self

    def advance(self, by: int = 1) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (gzip.compress(b'{"timestamp":0,"input_length":3,"output_length":2}\n' * 99)[:-9], "truncated gzip"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n".encode("utf-16"), "UTF-16"),
        (b"\x7fELF" + bytes(99), "is binary"),
        (b"PAR1" + bytes(99), "not parquet"),
        (b'{"timestamp":NaN,"input_length":3,"output_length":2}\n' * 2, "line 1, column timestamp"),
        (b'{"timestamp":0,"input_length":3,"output_length":2}\n{"timestamp":NaN}\n', "line 2, column timestamp"),
        (b"TIMESTAMP,ContextTokens,GeneratedTokens\n", "has no requests"),
        (b"arrived_at,num_prefill_tokens,num_decode_tokens\n1,2,3\nnan,2,3\n", "line 3, column arrived_at"),
        (b"arrived_at,num_prefill_tokens,num_decode_tokens\n1,2,3\n2,2", "line 3, column num_decode_tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "content",
)
def test_an_import_that_fails_leaves_nothing(fails: Fail, tmp_path: Path, content: bytes, told: str) -> None:
    source = tmp_path / "trace.log"
    source.write_bytes(content)
    assert told in fails("import", source, tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["trace.log"]


def test_a_repaired_import_tells_and_keeps_what_it_repaired(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fails: Fail, tmp_path: Path
) -> None:
    source, output = tmp_path / "trace.log", tmp_path / "out.parquet"
    rows = [f'{{"timestamp":{n}.5,"input_length":3,"output_length":2}}\n' for n in range(9)]
    source.write_text("".join([*rows, "{\n", '{"timestamp":9.5,"input_length":-3,"output_length":2}\n']))
    assert "line 10). Correct the line" in (told := fails("import", source, output))
    assert told.endswith(", or import with --repair, which drops the line")
    monkeypatch.setattr(sys, "argv", ["fopt", "import", str(source), str(output), "--repair"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    told = capsys.readouterr().err
    assert "repaired: lines that are no JSON, CSV or UTF-8: 1 (drops the line; first: not JSON" in told
    assert "trace.log:line 11, column input_length" in told
    assert "WARNING: 2 of 11 rows (18.2%) were dropped" in told
    assert read_workload(output).metadata.repairs == {"line_unreadable": 1, "row_impossible": 1}
