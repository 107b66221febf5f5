"""Text to tokens and back, against transformers where it is the judge."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoint import write_tiny_checkpoint
from transformers import PreTrainedTokenizerFast

from engine.bundled.errors import CheckpointError, RequestError
from engine.bundled.tokenizer import Tokenizer

TEMPLATE = """{{ bos_token }}{% for message in messages %}
    {%- if message.role == 'bad' %}{{ raise_exception('no such role') }}{% endif %}
[{{ message['role'] }}] {{ message['content'] | trim }}
    {%- if loop.last %}{% break %}{% endif %}
{% endfor %}
{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}
{% if add_generation_prompt %}[assistant]{% endif %}{{ extra }}"""
MESSAGES = [{"role": "user", "content": " <b>Grüße</b> & 日本 "}, {"role": "assistant", "content": "ja"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("tokenizer") / "model")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tools", [None, [{"name": "f", "description": "<ö>"}]])
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_the_chat_template_renders_as_in_transformers(
    folder: Path, tokenizer: Tokenizer, tools: list[dict[str, Any]] | None, add_generation_prompt: bool
) -> None:
    arguments = {"tools": tools, "add_generation_prompt": add_generation_prompt}
    judge = PreTrainedTokenizerFast.from_pretrained(folder)
    expected = judge.apply_chat_template(MESSAGES, tokenize=False, extra="!", **arguments)
    assert tokenizer.apply_chat_template(MESSAGES, extra="!", **arguments) == expected


def test_a_template_that_refuses_is_the_clients_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(RequestError, match="no such role"):
        tokenizer.apply_chat_template([{"role": "bad", "content": ""}])


def test_a_template_cannot_reach_python(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(RequestError, match="unsafe"):
        Tokenizer(tmp_path).apply_chat_template(MESSAGES)


def test_a_folder_without_template_or_tokenizer_says_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        Tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(RequestError, match="no chat template"):
        Tokenizer(tmp_path).apply_chat_template(MESSAGES)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a readable tokenizer"):
        Tokenizer(tmp_path)


@given(text=st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_text_survives_encoding(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text(alphabet=st.sampled_from("aé日本🎉👩‍🚀 \n\ufffd"), max_size=30))
@settings(max_examples=200, deadline=None)
def test_incremental_text_adds_up_and_never_shows_half_a_character(tokenizer: Tokenizer, text: str) -> None:
    detokenizer = tokenizer.detokenizer()
    pieces = [detokenizer.append(token_id) for token_id in tokenizer.encode(text)]
    assert all("\ufffd" not in piece for piece in pieces if "\ufffd" not in text)
    assert "".join(pieces) + detokenizer.finish() == text


@given(token_ids=st.lists(st.integers(0, 300), max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_tokens_add_up_to_their_decoding(tokenizer: Tokenizer, token_ids: list[int]) -> None:
    token_ids = [token_id % tokenizer.vocab_size for token_id in token_ids]
    detokenizer = tokenizer.detokenizer()
    pieces = [detokenizer.append(token_id) for token_id in token_ids]
    assert "".join(pieces) + detokenizer.finish() == tokenizer.decode(token_ids)


def test_special_tokens_are_skipped_unless_wanted(tokenizer: Tokenizer) -> None:
    token_ids = tokenizer.encode("<|user|>fox</s>")
    assert tokenizer.decode(token_ids) == "fox"
    shown = tokenizer.detokenizer(skip_special_tokens=False)
    assert "".join(map(shown.append, token_ids)) == "<|user|>fox</s>"
