"""`/v1/completions` over the fake engine, which always recites `hello world`."""

import time

import pytest
from fake_engine import FakeEngine
from served import Client, served


def complete(server: Client, **fields: object) -> dict:
    status, answer = server.post("/v1/completions", {"prompt": "say", "max_tokens": 50, **fields})
    assert status == 200, answer
    return answer


def chunks(server: Client, **fields: object) -> list[dict]:
    events = server.stream("/v1/completions", {"prompt": "say", "max_tokens": 50, **fields})
    assert events[-1] == "[DONE]"
    return events[:-1]


def test_a_text_prompt_gets_text_and_usage(server: Client) -> None:
    answer = complete(server)
    assert answer["object"] == "text_completion"
    assert answer["model"] == "fake"
    assert answer["choices"] == [
        {"index": 0, "text": "hello world", "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    ]
    # 3 prompt characters; 11 of the text and the end token.
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == 12
    assert answer["usage"]["total_tokens"] == 15
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}


def test_a_list_of_texts_and_n_give_choices_in_order(server: Client) -> None:
    answer = complete(server, prompt=["one", "two!"], n=2, seed=7)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert answer["usage"]["prompt_tokens"] == 7
    assert answer["usage"]["completion_tokens"] == 48
    assert [params.seed for params in server.engine.seen[-4:]] == [7, 8, 7, 8]


def test_token_ids_and_lists_of_them_are_prompts(server: Client) -> None:
    assert complete(server, prompt=[104, 105])["usage"]["prompt_tokens"] == 2
    assert len(complete(server, prompt=[[104], [105, 106]])["choices"]) == 2


def test_the_default_length_is_sixteen_tokens(server: Client) -> None:
    status, answer = server.post("/v1/completions", {"prompt": "say", "ignore_eos": True})
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


def test_pinned_lengths_reach_the_engine(server: Client) -> None:
    answer = complete(server, min_tokens=20, max_tokens=20, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 20


def test_every_step_is_one_event_and_carries_its_tokens(speculating_server: Client) -> None:
    events = chunks(speculating_server, return_token_ids=True)
    choices = [event["choices"][0] for event in events]
    assert [len(choice["token_ids"]) for choice in choices] == [4, 4, 4]
    assert choices[0]["prompt_token_ids"] == [115, 97, 121]
    assert "prompt_token_ids" not in choices[1]
    assert "".join(choice["text"] for choice in choices) == "hello world"
    assert [choice["finish_reason"] for choice in choices] == [None, None, "stop"]


def test_a_stream_ends_with_usage_when_asked(server: Client) -> None:
    events = chunks(server, stream_options={"include_usage": True})
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 12
    assert all(event["usage"] is None for event in events[:-1])
    assert "usage" not in chunks(server)[0]


def test_usage_can_run_along(server: Client) -> None:
    events = chunks(server, stream_options={"include_usage": True, "continuous_usage_stats": True}, max_tokens=3)
    assert [event["usage"]["completion_tokens"] for event in events] == [1, 2, 3, 3]


def test_streamed_choices_say_which_they_are(server: Client) -> None:
    events = chunks(server, n=2)
    for index in (0, 1):
        own = [event["choices"][0] for event in events if event["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in own) == "hello world"


@pytest.mark.parametrize("name", ["server", "speculating_server"])
def test_a_stop_string_ends_the_text_wherever_steps_end(name: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(name)
    answer = complete(server, stop=["wor", "zzz"], return_token_ids=True)
    [choice] = answer["choices"]
    assert choice["text"] == "hello "
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "wor")
    assert len(choice["token_ids"]) == answer["usage"]["completion_tokens"] == 9
    streamed = chunks(server, stop="wor")
    assert "".join(event["choices"][0]["text"] for event in streamed) == "hello "
    assert streamed[-1]["choices"][0]["stop_reason"] == "wor"


def test_text_that_only_began_a_stop_string_is_shown_after_all(server: Client) -> None:
    assert complete(server, stop="world!")["choices"][0]["text"] == "hello world"


def test_the_stop_string_stays_when_asked(server: Client) -> None:
    assert complete(server, stop="wor", include_stop_str_in_output=True)["choices"][0]["text"] == "hello wor"


def test_stop_strings_wait_for_min_tokens(server: Client) -> None:
    assert complete(server, stop="l", min_tokens=5)["choices"][0]["text"] == "hello wor"


def test_the_engine_is_told_when_a_stop_string_ended_a_request() -> None:
    with served(FakeEngine(step_s=0.01, max_model_len=10**6)) as server:  # never done by itself
        answer = complete(server, stop="e", ignore_eos=True, max_tokens=10**5)
        while not server.engine.aborted:
            time.sleep(0.01)
        assert server.engine.aborted == [answer["id"] + "-0"]


def test_a_stop_token_is_named_and_its_text_not_shown(server: Client) -> None:
    [choice] = complete(server, stop_token_ids=[ord("o")])["choices"]
    assert (choice["text"], choice["stop_reason"]) == ("hell", ord("o"))


def test_logprobs_have_the_completion_form(server: Client) -> None:
    logprobs = complete(server, max_tokens=2, logprobs=1)["choices"][0]["logprobs"]
    assert logprobs == {
        "text_offset": [0, 1],
        "token_logprobs": [-1.5, -1.5],
        "tokens": ["h", "e"],
        "top_logprobs": [{"i": -0.25, "h": -1.5}, {"f": -0.25, "e": -1.5}],
    }
    assert complete(server, max_tokens=1, logprobs=0)["choices"][0]["logprobs"]["top_logprobs"] == [{"h": -1.5}]


def test_streamed_logprobs_continue_the_offsets(server: Client) -> None:
    events = chunks(server, max_tokens=3, logprobs=0)
    assert [event["choices"][0]["logprobs"]["text_offset"] for event in events] == [[0], [1], [2]]


def test_minus_infinity_becomes_a_number(server: Client) -> None:
    logprobs = complete(server, max_tokens=1, logprobs=3)["choices"][0]["logprobs"]
    assert logprobs["top_logprobs"][0]["j"] == -9999.0


def test_echo_scores_the_prompt_without_generating(server: Client) -> None:
    answer = complete(server, max_tokens=0, echo=True, logprobs=0)
    [choice] = answer["choices"]
    assert choice["text"] == "say"
    assert choice["logprobs"]["tokens"] == ["s", "a", "y"]
    assert choice["logprobs"]["token_logprobs"] == [None, -1.5, -1.5]
    assert answer["usage"]["completion_tokens"] == 0
    assert choice["finish_reason"] == "length"


def test_echo_comes_before_the_answer_also_in_a_stream(server: Client) -> None:
    [choice] = complete(server, echo=True, logprobs=0, max_tokens=2)["choices"]
    assert choice["text"] == "sayhe"
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3, 4]
    events = chunks(server, echo=True, max_tokens=2)
    assert [event["choices"][0]["text"] for event in events] == ["sayh", "e"]


def test_prompt_logprobs_have_vllms_form(server: Client) -> None:
    [choice] = complete(server, max_tokens=1, prompt_logprobs=1)["choices"]
    first, second, _third = choice["prompt_logprobs"]
    assert first is None
    assert second == {
        "97": {"logprob": -1.5, "rank": 2, "decoded_token": "a"},
        "98": {"logprob": -0.25, "rank": 1, "decoded_token": "b"},
    }


def test_inert_fields_and_harmless_values_are_accepted(server: Client) -> None:
    complete(
        server,
        user="u",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        priority=0,
        presence_penalty=0,
        frequency_penalty=0.0,
        repetition_penalty=1.0,
        logit_bias={},
        best_of=1,
        suffix=None,
        top_k=-1,
        min_p=0,
    )
