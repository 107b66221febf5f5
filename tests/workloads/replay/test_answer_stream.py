"""Server-sent events become token times however the bytes are cut."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.replay.stream import AnswerStream, EventParser, error_message


def event(**choice: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}, separators=(",", ":")).encode() + b"\n\n"


STREAM = b"".join(
    (
        b": keep-alive\n\n",
        event(delta={"role": "assistant", "content": ""}, token_ids=None, finish_reason=None),
        event(delta={"content": "a"}, token_ids=[1], finish_reason=None),
        event(
            delta={"content": 'tricky "token_ids":[1,2,3] "finish_reason":null'}, token_ids=[2, 3], finish_reason=None
        ),
        event(delta={"content": ""}, token_ids=[4], finish_reason="length"),
        b'data:{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}\r\n\r\n',
        b"data: [DONE]\n\n",
    )
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12), st.booleans())
def test_any_cut_of_the_bytes_gives_the_same_answer(cuts: list[int], keep_text: bool) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    answer = AnswerStream(keep_text=keep_text)
    for begin, end in itertools.pairwise(edges):
        answer.feed(STREAM[begin:end], 1.0)
    assert len(answer.token_times()) == 4
    assert (answer.done, answer.finish_reason, answer.prompt_tokens) == (True, "length", 9)
    assert not answer.is_estimated
    if keep_text:
        assert answer.token_ids == [1, 2, 3, 4]
        assert "".join(answer.text).startswith("atricky")


def test_the_first_token_is_not_the_role_chunk() -> None:
    answer = AnswerStream(keep_text=False)
    answer.feed(event(delta={"role": "assistant", "content": ""}, finish_reason=None), 1.0)
    assert answer.first_token_s is None
    answer.feed(event(delta={"content": "a"}, finish_reason=None), 2.0)
    assert answer.first_token_s == 2.0


def test_tokens_known_only_in_total_are_spread_over_the_chunks() -> None:
    answer = AnswerStream(keep_text=False)
    for when in (1.0, 2.0):
        answer.feed(event(text="ab", finish_reason=None), when)
    answer.feed(b'data: {"choices":[],"usage":{"completion_tokens":5}}\n\n', 3.0)
    # token i of 5 goes to chunk floor(i * 2 / 5): 0 0 0 1 1
    assert answer.token_times() == (1.0, 1.0, 1.0, 2.0, 2.0)
    assert answer.is_estimated


def test_reasoning_and_tool_calls_count_as_tokens() -> None:
    answer = AnswerStream(keep_text=True)
    answer.feed(event(delta={"reasoning_content": "hm"}, finish_reason=None), 1.0)
    first = {"index": 0, "function": {"name": "f", "arguments": '{"x"'}}
    answer.feed(event(delta={"tool_calls": [first]}, finish_reason=None), 2.0)
    rest = {"index": 0, "function": {"arguments": ":1}"}}
    answer.feed(event(delta={"tool_calls": [rest]}, finish_reason="tool_calls"), 3.0)
    assert answer.token_times() == (1.0, 2.0, 3.0)
    assert answer.tool_calls == {0: {"name": "f", "arguments": '{"x":1}'}}


def test_an_event_that_is_not_json_is_an_error_of_the_answer() -> None:
    answer = AnswerStream(keep_text=False)
    answer.feed(b"data: {oops\n\n", 1.0)
    assert answer.error == "the stream holds an event that is not JSON"


@pytest.mark.parametrize("event", [b"5", b'{"choices":[7]}', b'{"choices":{"a":1}}', b'{"choices":[{"delta":3}]}'])
def test_an_event_of_another_form_is_an_error_of_the_answer(event: bytes) -> None:
    answer = AnswerStream(keep_text=True)
    answer.feed(b"data: " + event + b"\n\n", 1.0)
    assert answer.error is not None
    assert answer.error.startswith("the stream holds an event that is not")


def test_lines_without_data_are_skipped() -> None:
    assert EventParser().feed(b"event: x\nid: 1\n: comment\n\ndata: {}\n") == [b"{}"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "too long"}}, "too long"),
        ({"error": "busy"}, "busy"),
        ({"object": "error", "message": "no model"}, "no model"),
        ({"detail": [{"loc": ["body", "x"], "msg": "missing", "input": "secret"}]}, "body.x: missing"),
        ({"error": {"message": "1 error: {'type': 'x', 'input': 'secret'}"}}, "1 error: {'type': 'x', "),
    ],
)
def test_error_bodies_are_told_without_the_input_they_repeat(body: dict[str, Any], words: str) -> None:
    assert error_message(body) == words
