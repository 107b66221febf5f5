"""What the server says to wrong requests: a status, a sentence, the field, and it goes on serving."""

import pytest
from served import Client

COMPLETION = {"prompt": "say", "max_tokens": 5}
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


def refused(server: Client, path: str, body: object, *, status: int = 400) -> dict:
    found, answer = server.post(path, body)
    assert found == status, answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert server.post("/v1/completions", COMPLETION)[0] == 200, "the server goes on"
    return answer["error"]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temprature": 1}, "temprature", "unknown field temprature. Did you mean temperature?"),
        ({"qqqq": 1}, "qqqq", "unknown field qqqq. Remove it or correct its name"),
        ({"stream": True, "stream_options": {"include_usge": True}}, "include_usge", "Did you mean include_usage?"),
        ({"stream_options": {"include_usage": True}}, None, "stream_options needs stream: true"),
        ({"stream": True, "prompt_logprobs": 1}, None, "prompt_logprobs is not available with stream"),
        ({"max_tokens": "five"}, "max_tokens", "valid integer"),
        ({"max_tokens": 5.5}, "max_tokens", "valid integer"),
        ({"max_tokens": True}, "max_tokens", "valid integer"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens: 0 needs echo"),
        ({"max_tokens": 98}, "max_tokens", "context is 100 tokens, but 101 were asked for (3 in the prompt, 98"),
        ({"prompt": "x" * 200}, "max_tokens", "200 in the prompt"),
        ({"min_tokens": 9}, None, "min_tokens must be between 0 and max_tokens (5)"),
        ({"prompt": []}, "prompt", "prompt is empty"),
        ({"prompt": ""}, "prompt", "prompt is empty"),
        ({"prompt": [[]]}, "prompt", "prompt is empty"),
        ({"prompt": [1, 256]}, "prompt", "token id 256 is outside the vocabulary (0 to 255)"),
        ({"prompt": [-1]}, "prompt", "token id -1"),
        ({"prompt": {"a": 1}}, "prompt", "must be a text, a list of texts"),
        ({"prompt": [13]}, None, "the engine does not like 13"),
        ({"temperature": -1}, None, "temperature must be between"),
        ({"temperature": "hot"}, "temperature", "valid number"),
        ({"top_p": 0}, None, "top_p must be above 0"),
        ({"top_k": -2}, None, "top_k must be 0"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"logprobs": 2000}, None, "logprobs must be between"),
        ({"stop": ""}, "stop", "an empty text stops at once"),
        ({"stop": [1]}, "stop", "must be a text or a list of texts"),
        ({"presence_penalty": 0.5}, None, "presence_penalty is not supported by this engine"),
        ({"logit_bias": {"5": 1}}, None, "logit_bias is not supported"),
        ({"best_of": 3}, None, "best_of is not supported"),
        ({"suffix": "end"}, None, "suffix is not supported"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "belong together"),
    ],
)
def test_a_wrong_completion_is_refused_in_words(
    server: Client, fields: dict[str, object], param: str | None, words: str
) -> None:
    error = refused(server, "/v1/completions", {**COMPLETION, **fields})
    assert words in error["message"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages: must be a list"),
        ({"messages": [{"content": "hi"}]}, "messages.0.role is missing"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "type image_url are not supported"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs: true"),
        ({"max_completion_tokens": 6}, "max_tokens and max_completion_tokens differ"),
        ({"tool_choice": "required"}, "tool_choice is not supported"),
        ({"prompt": "x"}, "unknown field prompt"),
    ],
)
def test_a_wrong_chat_is_refused_in_words(server: Client, fields: dict[str, object], words: str) -> None:
    assert words in refused(server, "/v1/chat/completions", {**CHAT, **fields})["message"]


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"[]", b'"x"', b"\xff\xfe", b'{"prompt": "a", "temperature": NaN}', b'{"prompt": "a", "seed": 1e99}'],
)
def test_a_body_that_is_no_request_is_refused(server: Client, body: bytes) -> None:
    assert refused(server, "/v1/completions", body)["message"]


def test_a_refusal_comes_with_its_status_also_for_a_stream(server: Client) -> None:
    assert "13" in refused(server, "/v1/completions", {"prompt": [13], "stream": True})["message"]


def test_another_model_is_not_found(server: Client) -> None:
    error = refused(server, "/v1/completions", {**COMPLETION, "model": "gpt"}, status=404)
    assert error["message"] == "the model 'gpt' does not exist. This server serves 'fake'"
    assert error["code"] == "model_not_found"


def test_an_unknown_path_and_a_wrong_method_answer_in_the_same_form(server: Client) -> None:
    assert "/v2/x" in refused(server, "/v2/x", {}, status=404)["message"]
    assert "does not answer POST" in refused(server, "/health", {}, status=405)["message"]
