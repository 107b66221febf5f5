"""Samples are whole sessions in windows, like the whole, and scaled by sessions."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_cases import chat, metadata

from workloads.errors import WorkloadError
from workloads.metadata import PrefixHashing
from workloads.parquet import WorkloadFile, write_workload
from workloads.prefix_sharing import PrefixChains, PrefixMeter
from workloads.representative_sample import Sample, SampleSize, sample_file
from workloads.request import Request
from workloads.traffic_statistics import TrafficStatistics, differences, distance
from workloads.workload import Workload

HASHING = PrefixHashing(block_size=4, tail_hashed=False)


def sessions_file(folder: Path, *, num_sessions: int = 400, timed: bool = True) -> WorkloadFile:
    """Sessions of two turns 5 s apart, at random; the second half of the recording is three times as busy."""
    rng = np.random.default_rng(1)
    starts = np.sort(
        np.concatenate([rng.uniform(0, 500, num_sessions // 4), rng.uniform(500, 1000, num_sessions * 3 // 4)])
    )
    requests = []
    for number, start in enumerate(starts.tolist()):
        for turn in (0, 1):
            parents = (f"{number}.0",) if turn else ()
            arrival = start + 5 * turn if timed else None
            size = int(rng.integers(1, 2000))
            requests.append(
                chat(
                    f"{number}.{turn}",
                    arrival,
                    session_id=f"s{number}",
                    turn=turn,
                    parent_ids=parents,
                    input_tokens=size,
                )
            )
    path = folder / "whole.parquet"
    write_workload(path, requests, metadata(start_time="2026-01-01T00:00:00"))
    return WorkloadFile(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> WorkloadFile:
    return sessions_file(tmp_path_factory.mktemp("sample"))


def told(sample: Sample, what: str) -> tuple[float, float]:
    return next((d.whole, d.sample) for d in sample.differences if d.what == what)


def whole_sessions(workload: Workload) -> set[str]:
    """The sessions, every one with both its turns 5 s apart."""
    turns: dict[str, list[float]] = {}
    for request in workload:
        assert request.session_id is not None
        assert request.arrival_s is not None
        turns.setdefault(request.session_id, []).append(request.arrival_s)
    assert all(len(times) == 2 and times[1] - times[0] == pytest.approx(5) for times in turns.values())
    return set(turns)


@settings(max_examples=5, deadline=None)
@given(seconds=st.floats(20, 900), windows=st.integers(1, 5), scale=st.floats(0.2, 2.5), seed=st.integers(0, 9))
def test_whatever_is_asked_sessions_stay_whole(
    whole: WorkloadFile, seconds: float, windows: int, scale: float, seed: int
) -> None:
    size = SampleSize(seconds=seconds, num_windows=windows, scale=scale)
    sample = sample_file(whole, size, seed=seed)
    whole_sessions(sample.workload)
    assert sample.workload.numbers("arrival_s").min() >= 0
    assert sample.workload.fingerprint == sample_file(whole, size, seed=seed).workload.fingerprint


def test_every_regime_of_load_gives_its_share(whole: WorkloadFile) -> None:
    sample = sample_file(whole, SampleSize(seconds=200, num_windows=4))
    rate, found = told(sample, "requests/s")
    assert found == pytest.approx(rate, rel=0.1)
    first = "sampled: "
    assert sample.notes[0].startswith(first)
    assert sample.workload.metadata.losses[0] == sample.notes[0]
    assert any(line.startswith("requests/s: ") for line in sample.workload.metadata.losses)


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.5])
def test_load_is_scaled_by_whole_sessions(whole: WorkloadFile, scale: float) -> None:
    sample = sample_file(whole, SampleSize(seconds=250, num_windows=2, scale=scale))
    whole_sessions(sample.workload)
    rate, found = told(sample, "requests/s")
    assert rate == pytest.approx(0.8 * scale, rel=0.02)
    assert found == pytest.approx(rate, rel=0.3)


def test_layers_of_a_short_recording_repeat_sessions_under_other_names(whole: WorkloadFile) -> None:
    sample = sample_file(whole, SampleSize(seconds=5000, scale=2))
    sessions = whole_sessions(sample.workload)
    assert len(sample.workload) == 1600
    assert {f"{name}~2" for name in sessions if "~" not in name} == {name for name in sessions if "~" in name}
    assert any("occur in an earlier layer" in note for note in sample.notes)


def test_all_of_it_is_the_whole(whole: WorkloadFile) -> None:
    sample = sample_file(whole, SampleSize(seconds=5000))
    assert len(sample.workload) == 800
    assert all(d.sample == pytest.approx(d.whole) for d in sample.differences)


def test_about_so_many_requests_are_kept(whole: WorkloadFile) -> None:
    assert 120 <= len(sample_file(whole, SampleSize(num_requests=160, num_windows=2)).workload) <= 200


def test_without_arrivals_requests_are_counted(tmp_path: Path) -> None:
    file = sessions_file(tmp_path, timed=False)
    sample = sample_file(file, SampleSize(num_requests=100, num_windows=2))
    assert 98 <= len(sample.workload) <= 104
    assert sample.workload.table.column("arrival_s").null_count == len(sample.workload)
    with pytest.raises(WorkloadError, match="--requests"):
        sample_file(file, SampleSize(seconds=100))


@pytest.mark.parametrize(
    "size", [SampleSize(), SampleSize(1.0, 1), SampleSize(-1.0), SampleSize(5.0, scale=float("nan"))]
)
def test_impossible_sizes_are_refused(whole: WorkloadFile, size: SampleSize) -> None:
    with pytest.raises(WorkloadError, match=r"one of them|Correct the option"):
        sample_file(whole, size)


def test_requests_that_share_a_prefix_of_their_own_stay_together(tmp_path: Path) -> None:
    # 150 conversations of four turns 40 s apart, all behind one common block; no session ids
    rng = np.random.default_rng(0)
    requests = []
    for number, start in enumerate(np.sort(rng.uniform(0, 3000, 150)).tolist()):
        for turn in range(4):
            hashes = (0, *(100 * number + block for block in range(1, 3 + 2 * turn)))
            requests.append(
                Request(
                    request_id=f"{number}.{turn}",
                    arrival_s=start + 40.0 * turn,
                    input_tokens=4 * len(hashes),
                    output_tokens=3,
                    prefix_hashes=hashes,
                )
            )
    write_workload(tmp_path / "w.parquet", requests, metadata(prefix=HASHING))
    sample = sample_file(WorkloadFile(tmp_path / "w.parquet"), SampleSize(seconds=300))
    ids = {request.request_id for request in sample.workload}
    assert ids == {f"{name.split('.')[0]}.{turn}" for name in ids for turn in range(4)}
    assert sample.workload.numbers("arrival_s").max() <= 300
    ratio, found = told(sample, "ideal prefix-hit ratio")
    assert found == pytest.approx(ratio, abs=0.02)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=20), st.data())
def test_kept_blocks_give_the_meters_ratio_of_any_requests(hashes: list[list[int]], data: st.DataObject) -> None:
    requests = [
        Request(request_id=str(i), input_tokens=4 * len(h) + 2, prefix_hashes=tuple(h)) for i, h in enumerate(hashes)
    ]
    chains = PrefixChains(HASHING)
    chains.feed(Workload.from_requests(requests, metadata(prefix=HASHING)).table)
    blocks = chains.blocks()
    assert blocks is not None
    rows = sorted(data.draw(st.sets(st.integers(0, len(hashes) - 1), min_size=1)))
    meter = PrefixMeter(HASHING)
    meter.feed(Workload.from_requests([requests[row] for row in rows], metadata(prefix=HASHING)).table)
    result = meter.result()
    assert result is not None
    assert blocks.hit_ratio(np.array(rows)) == pytest.approx(result.ideal_hit_ratio)


def test_distance_adds_what_differs() -> None:
    one = TrafficStatistics(rate_rps=2.0, prefix_hit_ratio=0.5, input_tokens=(1.0, 1.0, 2.0, 3.0))
    other = TrafficStatistics(rate_rps=2.0, prefix_hit_ratio=0.4, input_tokens=(1.0, 1.0, 2.0, 3.0))
    assert distance(one, one) == 0
    assert distance(one, other) == pytest.approx((0.1 / 0.005) ** 2)  # in units of half a point
    longer = TrafficStatistics(rate_rps=2.0, prefix_hit_ratio=0.5, input_tokens=(1.0, 1.0, 2.0, 3.0 * np.exp(0.2)))
    assert distance(one, longer) == pytest.approx(2**2)  # in units of 0.1
    assert distance(one, TrafficStatistics(rate_rps=2.0)) == 4 * 5  # five numbers lacking
    assert [d.told for d in differences(one, other)][-1] == "-10.0 points"


def drifting(folder: Path) -> WorkloadFile:
    """An hour whose rate drifts between 1 and 3 requests/s in 20 minutes: minutes' counts vary, seconds' do not."""
    rng = np.random.default_rng(5)
    times = np.sort(rng.uniform(0, 3600, 40_000))
    kept = times[rng.random(len(times)) < (2 + np.sin(times * 2 * np.pi / 1200)) / 12]
    write_workload(folder / "drift.parquet", [chat(str(i), t) for i, t in enumerate(kept.tolist())], metadata())
    return WorkloadFile(folder / "drift.parquet")


@pytest.mark.parametrize("seconds", [900, 1800])
def test_slow_drift_is_kept_at_every_scale(tmp_path: Path, seconds: float) -> None:
    sample = sample_file(drifting(tmp_path), SampleSize(seconds=seconds))
    for scale in ("1 s", "10 s", "60 s"):
        whole, found = told(sample, f"dispersion of counts at {scale}")
        assert found == pytest.approx(whole, rel=0.2)


def test_what_a_short_sample_cannot_keep_is_said(tmp_path: Path) -> None:
    notes = sample_file(drifting(tmp_path), SampleSize(seconds=600)).notes
    assert any(note.startswith("burstiness at 60 s rests on 10 stretches: by chance alone") for note in notes)
    assert any(note.startswith("burstiness at 300 s: 600 s are too short for it") for note in notes)
    assert not any("burstiness at 1 s" in note for note in notes)


def test_windows_without_room_to_choose_lie_evenly(tmp_path: Path) -> None:
    sample = sample_file(drifting(tmp_path), SampleSize(seconds=2500, num_windows=5))
    assert sample.workload.numbers("arrival_s").max() > 2300
    assert len(sample.workload) == pytest.approx(2500 / 3600 * 2 * 3600, rel=0.25)
