"""Checks score what they say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.checks import CHECK_KINDS, parse_check, score_check, score_response
from workloads.errors import WorkloadError
from workloads.request import Check

OPENAI_CALL = json.dumps({"tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}]})

CASES = [
    ("exact", "yes", " yes\n", 1.0),
    ("exact", "yes", "Yes", 0.0),
    ("exact", {"text": "yes", "ignore_case": True}, "YES", 1.0),
    ("exact", {"text": "yes", "strip": False}, "yes ", 0.0),
    ("exact", {"json": {"a": 1, "b": [2]}}, '```json\n{"b": [2], "a": 1.0}\n```', 1.0),
    ("exact", {"json": {"a": 1}}, '{"a": true}', 0.0),
    ("exact", {"json": None}, "nothing", 0.0),
    ("contains", "cat", "a cat sat", 1.0),
    ("contains", ["cat", "dog"], "a cat sat", 0.5),
    ("contains", {"texts": ["CAT"], "ignore_case": True}, "a cat sat", 1.0),
    ("regex", r"\d{3}", "call 911 now", 1.0),
    ("regex", {"pattern": r"\d{3}", "full": True}, "call 911 now", 0.0),
    ("numeric", 42, "it is 41, no, 42", 1.0),
    ("numeric", 1234.5, "total: 1,234.5", 1.0),
    ("numeric", {"value": 3.14, "abs_tol": 0.01}, "3.145", 1.0),
    ("numeric", {"value": 100, "rel_tol": 0.1}, "111", 1.0),
    ("numeric", 1, "no number", 0.0),
    ("json_schema", {"type": "object", "required": ["a"]}, '{"a": 1}', 1.0),
    ("json_schema", {"type": "object", "required": ["a"]}, '{"b": 1}', 0.0),
    ("json_schema", {"type": "object"}, "not json", 0.0),
    ("tool_call", {"name": "f"}, '{"name": "f", "arguments": {"x": 1}}', 1.0),
    ("tool_call", {"name": "f", "arguments": {"x": 1}}, OPENAI_CALL, 1.0),
    ("tool_call", {"name": "f", "arguments": {"x": 1, "y": 2}}, '[{"name": "f", "arguments": {"x": 1, "y": 3}}]', 0.75),
    ("tool_call", {"name": "f"}, '{"name": "g"}', 0.0),
    ("tool_call", {"name": "f"}, "no call", 0.0),
]


@pytest.mark.parametrize(("kind", "spec", "response", "score"), CASES)
def test_a_check_scores(kind: str, spec: object, response: str, score: float) -> None:
    assert parse_check(kind, json.dumps(spec))(response) == pytest.approx(score)


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("vibes", "1", "unknown check kind"),
        ("exact", "{", "not JSON"),
        ("exact", "3", "must be a text"),
        ("exact", '{"txt": "a"}', "no option 'txt'"),
        ("contains", "[]", "list of texts"),
        ("regex", '"("', "does not compile"),
        ("numeric", '"3"', "must be a number"),
        ("numeric", '{"value": 3, "abs_tol": -1}', "tolerances"),
        ("json_schema", '{"type": "thing"}', "not a JSON Schema"),
        ("json_schema", "[]", "JSON Schema object"),
        ("tool_call", '{"arguments": {}}', "must be a text"),
        ("python", '"os.system"', "module:function"),
    ],
)
def test_a_bad_spec_is_one_clear_line(kind: str, spec: str, words: str) -> None:
    with pytest.raises(WorkloadError, match=words) as caught:
        parse_check(kind, spec)
    assert "\n" not in str(caught.value)


def test_a_python_check_runs_only_when_allowed() -> None:
    check = Check(kind="python", spec='"builtins:len"')
    with pytest.raises(WorkloadError, match="workloads you trust"):
        score_check(check, "x")
    assert score_check(check, "x", allow_python=True) == 1.0
    with pytest.raises(WorkloadError, match="gave 2"):
        score_check(check, "xx", allow_python=True)
    with pytest.raises(WorkloadError, match="cannot be imported"):
        score_check(Check(kind="python", spec='"nowhere:f"'), "x", allow_python=True)


def test_a_schema_never_fetches_a_reference() -> None:
    with pytest.raises(WorkloadError, match="refers elsewhere"):
        parse_check("json_schema", '{"$ref": "http://example.invalid/schema"}')("{}")


def test_a_response_scores_the_weighted_mean_of_its_checks() -> None:
    # (3 * 1 + 1 * 0) / 4
    checks = [Check(kind="contains", spec='"a"', weight=3.0), Check(kind="contains", spec='"z"', weight=1.0)]
    assert score_response(checks, "abc") == pytest.approx(0.75)
    with pytest.raises(WorkloadError, match="without checks"):
        score_response([], "abc")


@given(st.sampled_from(CHECK_KINDS), st.text(max_size=20))
def test_every_score_lies_between_zero_and_one(kind: str, response: str) -> None:
    specs = {"numeric": "1", "json_schema": "{}", "tool_call": '{"name":"f"}', "python": '"builtins:bool"'}
    check = Check(kind=kind, spec=specs.get(kind, '"a"'))
    assert 0.0 <= score_check(check, response, allow_python=True) <= 1.0
