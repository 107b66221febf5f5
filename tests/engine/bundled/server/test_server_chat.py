"""`/v1/chat/completions` over the fake engine, whose template is `[role]content`."""

from served import Client

HELLO = [{"role": "user", "content": "hi"}]


def chat(server: Client, **fields: object) -> dict:
    status, answer = server.post("/v1/chat/completions", {"messages": HELLO, "max_tokens": 20, **fields})
    assert status == 200, answer
    return answer


def chunks(server: Client, **fields: object) -> list[dict]:
    return server.stream("/v1/chat/completions", {"messages": HELLO, "max_tokens": 20, **fields})[:-1]


def test_messages_get_a_message(server: Client) -> None:
    answer = chat(server)
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hello world"}
    assert answer["usage"]["prompt_tokens"] == len("[user]hi[assistant]")


def test_content_parts_and_other_fields_reach_the_template(server: Client) -> None:
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    answer = chat(server, messages=[{"role": "user", "content": parts, "name": "x", "refusal": None}])
    assert answer["usage"]["prompt_tokens"] == len("[user]h\ni[assistant]")
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert chat(server, tools=tools)["usage"]["prompt_tokens"] == len("[user]hi[tools]1[assistant]")


def test_a_stream_opens_with_the_role(server: Client) -> None:
    first, second, *_, last = chunks(server)
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert second["choices"][0]["delta"] == {"content": "h"}
    assert last["choices"][0]["finish_reason"] == "stop"


def test_each_choice_opens_with_its_role(server: Client) -> None:
    opened = [event["choices"][0]["index"] for event in chunks(server, n=2) if "role" in event["choices"][0]["delta"]]
    assert sorted(opened) == [0, 1]


def test_token_ids_come_along_when_asked(speculating_server: Client) -> None:
    first, second, *_ = chunks(speculating_server, return_token_ids=True)
    assert first["prompt_token_ids"] == [ord(character) for character in "[user]hi[assistant]"]
    assert second["choices"][0]["token_ids"] == [ord(character) for character in "hell"]
    whole = chat(speculating_server, return_token_ids=True)
    assert len(whole["prompt_token_ids"]) == 19
    assert len(whole["choices"][0]["token_ids"]) == 12


def test_logprobs_have_the_chat_form(server: Client) -> None:
    entries = chat(server, max_tokens=1, logprobs=True, top_logprobs=1)["choices"][0]["logprobs"]["content"]
    assert entries == [
        {
            "token": "h",
            "logprob": -1.5,
            "bytes": [104],
            "top_logprobs": [{"token": "i", "logprob": -0.25, "bytes": [105]}],
        }
    ]


def test_without_a_limit_the_context_is_the_limit(server: Client) -> None:
    status, answer = server.post("/v1/chat/completions", {"messages": HELLO, "ignore_eos": True})
    assert status == 200
    assert answer["usage"]["total_tokens"] == 100


def test_max_completion_tokens_is_the_newer_name(server: Client) -> None:
    status, answer = server.post("/v1/chat/completions", {"messages": HELLO, "max_completion_tokens": 2})
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 2
