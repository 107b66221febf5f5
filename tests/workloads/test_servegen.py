"""Traffic drawn from client models has their rates, gaps and lengths."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_cases import TRACES

from workloads.characterize import characterize, interarrival_cv
from workloads.errors import WorkloadError
from workloads.servegen import generate_servegen

CLIENTS = TRACES / "servegen" / "deepseek-r1"


def client(folder: Path, name: str, rows: list[str], **lengths: str) -> None:
    (folder / f"{name}-trace.csv").write_text("\n".join(rows))
    known = {
        "input_tokens": "{10: 0.5, 20: 0.5}",
        "output_tokens": "{100: 1.0}",
        "reason_ratio": "{0.5: 1.0}",
    } | lengths
    empty = dict.fromkeys(known, "{}")
    (folder / f"{name}-dataset.json").write_text(json.dumps({"0": known, "21600": empty}))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    client(tmp_path, "chunk-0", ["0,2.0,0.5,Gamma,4.0,0.125", "600,0,0,,0,0", "1200,1.0,1,,0,0"])
    client(tmp_path, "chunk-1", ["0,1.0,3.0,Gamma,0.111,9", "600,1.0,1.5,Weibull,0.7,0.8", "1200,0,0,,0,0"])
    return tmp_path


def test_every_interval_has_its_recorded_requests(models: Path) -> None:
    made = generate_servegen(models, seconds=1800, seed=3)
    arrivals, tenants = made.numbers("arrival_s"), made.table.column("tenant").to_pylist()
    counts = {
        name: np.histogram(arrivals[[t == name for t in tenants]], [0, 600, 1200, 1800])[0] for name in set(tenants)
    }
    assert counts["chunk-0"].tolist() == [1200, 0, 600]
    assert counts["chunk-1"].tolist() == [600, 600, 0]
    assert set(made.numbers("input_tokens")) == {10, 20}
    assert set(made.numbers("output_tokens")) == {100}
    assert made.table.column("extra")[0].as_py() == '{"reasoning_tokens":50}'
    assert made.capabilities == ("open_loop",)


def test_gaps_are_of_the_clients_family(tmp_path: Path) -> None:
    # a Gamma of shape k has a coefficient of variation of 1 / sqrt(k)
    for shape, cv in ((4.0, 0.5), (0.25, 2.0)):
        client(tmp_path, "chunk-0", [f"0,50,{cv},Gamma,{shape},1"])
        made = generate_servegen(tmp_path, seconds=600)
        assert interarrival_cv(made.numbers("arrival_s")) == pytest.approx(cv, rel=0.05)


@settings(max_examples=15, deadline=None)
@given(start=st.floats(0, 900), seconds=st.floats(60, 900), rate=st.floats(0.5, 20), seed=st.integers(0, 5))
def test_a_rate_is_met_and_a_seed_repeats(
    tmp_path_factory: pytest.TempPathFactory, start: float, seconds: float, rate: float, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("models")
    client(folder, "chunk-0", ["0,2.0,0.5,Gamma,4.0,0.125", "600,2.0,1,,0,0", "1200,1.0,1,Weibull,0.9,0"])
    asked = {"seconds": seconds, "start_s": start, "rate_rps": rate}
    made = generate_servegen(folder, seed=seed, **asked)
    assert made.numbers("arrival_s").max() < seconds
    assert abs(len(made) - rate * seconds) <= 5 + 4 * np.sqrt(rate * seconds)
    assert made.fingerprint == generate_servegen(folder, seed=seed, **asked).fingerprint


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("x", "not a row"),
        ("0,1,1,Pareto,1,1", "cannot be"),
        ("0,nan,1,Gamma,1,1", "cannot be"),
        ("0,1,1,Gamma,0,1", "be"),
    ],
)
def test_a_malformed_rate_names_its_line(tmp_path: Path, row: str, told: str) -> None:
    client(tmp_path, "chunk-0", [row])
    with pytest.raises(WorkloadError, match=f"{told}.*chunk-0-trace.csv:line 1"):
        generate_servegen(tmp_path, seconds=10)


def test_what_cannot_be_generated_is_refused(tmp_path: Path, models: Path) -> None:
    with pytest.raises(WorkloadError, match="Choose a time"):
        generate_servegen(models, seconds=10, start_s=1e6)
    with pytest.raises(WorkloadError, match="Correct the option"):
        generate_servegen(models, seconds=float("nan"))
    with pytest.raises(WorkloadError, match="no client models"):
        generate_servegen(tmp_path / "nowhere", seconds=10)
    client(models, "chunk-0", ["0,1,1,Gamma,1,1"], input_tokens="{1: -1}")
    with pytest.raises(WorkloadError, match="not a client's lengths"):
        generate_servegen(models, seconds=10)
    (models / "chunk-0-dataset.json").unlink()
    with pytest.raises(WorkloadError, match=r"no chunk-0-dataset\.json"):
        generate_servegen(models, seconds=10)


@pytest.mark.skipif(not CLIENTS.is_dir(), reason="the public traces are not here")
def test_the_published_models_give_their_recorded_rate() -> None:
    profile = characterize(generate_servegen(CLIENTS, seconds=600, start_s=36_000))
    rates = [
        float(line.split(",")[1])
        for path in CLIENTS.glob("*-trace.csv")
        for line in path.read_text().splitlines()
        if line.startswith("36000,")
    ]
    assert profile.arrivals is not None
    assert profile.arrivals.rate_rps == pytest.approx(sum(rates), rel=0.02)
