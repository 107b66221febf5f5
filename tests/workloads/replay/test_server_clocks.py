"""The server's clock beside ours."""

from __future__ import annotations

import pytest
from mock_server import MockServer
from replay_cases import lagging, replay
from workload_cases import chat, workload

from workloads.replay.server_clocks import ServerClocks

METRICS = """\
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{model_name="m",le="+Inf"} %d
vllm:time_to_first_token_seconds_count{model_name="m"} %d
vllm:time_to_first_token_seconds_sum{model_name="m"} %s
vllm:request_queue_time_seconds_count{model_name="m"} %d
vllm:request_queue_time_seconds_sum{model_name="m"} %s
"""


@pytest.mark.parametrize(
    ("count", "ttft_s", "words"),
    [
        (12, 0.016, "mean TTFT is 10.00 ms by the client's clock, 8.00 ms by the server's (queue 1.00)"),
        (12, 0.024, "12.00 ms by the server's (queue 1.00): the server claims more than there was"),
        (15, 0.05, "began 3 answers to others"),
        (10, 0.0, None),
        (3, 0.02, None),  # started anew meanwhile
    ],
)
def test_the_servers_clock_is_held_against_ours(count: int, ttft_s: float, words: str | None) -> None:
    before = ServerClocks((METRICS % (10, 10, "3.5", 10, "0.5")).encode())
    after = ServerClocks((METRICS % (count, count, 3.5 + ttft_s, count, "0.502")).encode())
    notes = after.notes(before, lagging(2, num_late=0))
    assert len(notes) == (words is not None)
    assert words is None or words in notes[0]


def test_a_server_without_metrics_is_not_spoken_of(server: MockServer) -> None:
    result = replay(server, workload(chat("a", 0.0)))
    assert not any("clock" in note for note in result.notes)
