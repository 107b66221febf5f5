"""Our own replayer as a `LoadGenerator`.

Does not know the truth.
"""

from __future__ import annotations

import os

import numpy as np

from tests.benchmarks.replayer.load_generator import MODEL, PROMPT_TOKENS, Floats, Job, Said, ToolError
from tests.benchmarks.replayer.mock_server import NUM_CHUNKS
from workloads.metadata import Source, WorkloadMetadata
from workloads.replay.replayer import Replayer
from workloads.request import Request
from workloads.workload import Workload


def ours(job: Job) -> Said:
    """At a constant rate."""
    return _replay(job, np.arange(job.count) / job.rate)


def ours_poisson(job: Job) -> Said:
    """At Poisson arrivals whose number gives the rate exactly."""
    arrivals = np.sort(np.random.default_rng(0).uniform(0, job.count / job.rate, job.count))
    return _replay(job, arrivals - arrivals[0])


def _replay(job: Job, arrivals: Floats) -> Said:
    before = os.sched_getaffinity(0)
    if job.core is not None:
        os.sched_setaffinity(0, {job.core})
    try:
        replayer = Replayer(base_url=job.base_url, model=MODEL, warmup=_workload(np.zeros(100)))
        records = replayer.replay(_workload(arrivals)).records
    finally:
        os.sched_setaffinity(0, before)
    failed = [record for record in records if record.status != "ok"]
    if failed:
        raise ToolError(f"{len(failed)} requests failed: {failed[0].error}")
    start, first, end, sent = np.array(
        [(r.intended_start_s, r.first_token_s, r.end_s, r.sent_s) for r in records], dtype=np.float64
    ).T
    return Said(first - start, end - start, sent - start, start)


def _workload(arrivals: Floats) -> Workload:
    ids = tuple(range(1, PROMPT_TOKENS + 1))
    requests = [
        Request(
            request_id=str(i),
            arrival_s=float(arrival),
            prompt_token_ids=ids,
            input_tokens=len(ids),
            output_tokens=NUM_CHUNKS,
        )
        for i, arrival in enumerate(arrivals)
    ]
    return Workload.from_requests(requests, WorkloadMetadata(name="truth", source=Source(format="synthetic")))
