"""Checks: score a response between 0 and 1 against what the request says a right answer is.

Does not know engines or how responses were made. Spec forms (JSON text):

    exact        "text" | {"text": ..., "ignore_case": bool, "strip": bool} | {"json": any value, compared parsed}
    contains     "text" | ["text", ...] | {"texts": [...], "ignore_case": bool}: the share of texts found
    regex        "pattern" | {"pattern": ..., "full": bool}: searched, or matched whole
    numeric      number | {"value": number, "abs_tol": number, "rel_tol": number}: the last number in the response
    json_schema  a JSON Schema; the response is JSON, alone or in one code fence
    tool_call    {"name": ..., "arguments": {...}?}: half for the name, half for the share of arguments equal
    python       "module:function": called with the response, gives 0..1; refused unless allowed
"""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workloads.errors import WorkloadError
from workloads.request import Check

Scorer = Callable[[str], float]

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_FENCE = re.compile(r"^```[a-zA-Z]*\n(.*?)\n?```$", re.DOTALL)


def parse_check(kind: str, spec: str) -> Scorer:
    """The scorer that a check's spec describes; imports nothing named in it.

    Raises:
        WorkloadError: an unknown kind, or a spec that does not parse.
    """
    if kind not in _PARSERS:
        raise WorkloadError(f"unknown check kind {kind!r}", fix=f"Use one of {', '.join(_PARSERS)}")
    try:
        value = json.loads(spec)
    except ValueError as error:
        fix = 'Write the spec as JSON, e.g. "text" in quotes'
        raise WorkloadError(f"the spec of a {kind} check is not JSON: {error}", fix=fix) from None
    return _PARSERS[kind](value)


def score_check(check: Check, response: str, *, allow_python: bool = False) -> float:
    """The check's score of a response, 0..1.

    Raises:
        WorkloadError: the spec does not parse, or a python check without `allow_python`.
    """
    if check.kind == "python":
        return _python_score(json.loads(check.spec), response, allow_python)
    return parse_check(check.kind, check.spec)(response)


def score_response(checks: Sequence[Check], response: str, *, allow_python: bool = False) -> float:
    """Weighted mean of the checks' scores: Σ weight · score / Σ weight.

    Raises:
        WorkloadError: no checks, or one that cannot be scored.
    """
    if not checks:
        raise WorkloadError("a response without checks has no score", fix="Score only requests that carry checks")
    scores = [check.weight * score_check(check, response, allow_python=allow_python) for check in checks]
    return sum(scores) / sum(check.weight for check in checks)


def _exact(spec: Any) -> Scorer:
    options = spec if isinstance(spec, dict) else {"text": spec}
    _known_keys("exact", options, {"text", "json", "ignore_case", "strip"})
    if "json" in options:
        expected = options["json"]
        return lambda response: float(_same_json(parse_json(response), expected))
    text = _string("exact", options.get("text"))
    strip, fold = bool(options.get("strip", True)), bool(options.get("ignore_case", False))
    return lambda response: float(_plain(response, strip, fold) == _plain(text, strip, fold))


def _plain(text: str, strip: bool, fold: bool) -> str:
    text = text.strip() if strip else text
    return text.casefold() if fold else text


def _same_json(left: Any, right: Any) -> bool:
    """JSON equality: unlike Python's, true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same_json(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same_json, left, right))
    return bool(left == right)


def _contains(spec: Any) -> Scorer:
    options = spec if isinstance(spec, dict) else {"texts": spec if isinstance(spec, list) else [spec]}
    _known_keys("contains", options, {"texts", "ignore_case"})
    fold = bool(options.get("ignore_case", False))
    given = options.get("texts")
    if not isinstance(given, list) or not given:
        raise _bad_spec("contains", "a text or a list of texts")
    texts = [_plain(_string("contains", text), False, fold) for text in given]
    return lambda response: sum(text in _plain(response, False, fold) for text in texts) / len(texts)


def _regex(spec: Any) -> Scorer:
    options = spec if isinstance(spec, dict) else {"pattern": spec}
    _known_keys("regex", options, {"pattern", "full"})
    try:
        pattern = re.compile(_string("regex", options.get("pattern")))
    except re.error as error:
        raise WorkloadError(f"the pattern of a regex check does not compile: {error}", fix="Correct it") from None
    match = pattern.fullmatch if options.get("full") else pattern.search
    return lambda response: float(match(response) is not None)


def _numeric(spec: Any) -> Scorer:
    options = spec if isinstance(spec, dict) else {"value": spec}
    _known_keys("numeric", options, {"value", "abs_tol", "rel_tol"})
    value = _number(options.get("value"))
    absolute, relative = _number(options.get("abs_tol", 0.0)), _number(options.get("rel_tol", 1e-9))
    if absolute < 0 or relative < 0:
        raise _bad_spec("numeric", "tolerances >= 0")

    def score(response: str) -> float:
        found = _NUMBER.findall(response)
        number = float(found[-1].replace(",", "")) if found else math.nan
        return float(math.isclose(number, value, rel_tol=relative, abs_tol=absolute))

    return score


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _bad_spec("numeric", "a number, or an object with value, abs_tol and rel_tol")
    return float(value)


def _json_schema(spec: Any) -> Scorer:
    import jsonschema
    import referencing.exceptions

    if not isinstance(spec, dict):
        raise _bad_spec("json_schema", "a JSON Schema object")
    kind = jsonschema.validators.validator_for(spec, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(spec)
    except jsonschema.SchemaError as error:
        raise WorkloadError(f"not a JSON Schema: {error.message}", fix="Correct the check's spec") from None
    validator = kind(spec, registry=referencing.Registry())  # an empty registry: never fetches a $ref

    def score(response: str) -> float:
        value = parse_json(response)
        try:
            return 0.0 if value is NOT_JSON else float(validator.is_valid(value))
        except referencing.exceptions.Unresolvable as error:
            fix = "Put everything the schema refers to into the check"
            raise WorkloadError(f"a json_schema check refers elsewhere: {error}", fix=fix) from None

    return score


def _tool_call(spec: Any) -> Scorer:
    if not isinstance(spec, dict) or not isinstance(spec.get("arguments", {}), dict):
        raise _bad_spec("tool_call", "an object with name and arguments")
    _known_keys("tool_call", spec, {"name", "arguments"})
    name, arguments = _string("tool_call", spec.get("name")), spec.get("arguments")
    return lambda response: max(
        (_tool_call_score(call, name, arguments) for call in called_tools(response)), default=0.0
    )


def _tool_call_score(call: tuple[str, Any], name: str, arguments: Mapping[str, Any] | None) -> float:
    called, given = call
    if called != name:
        return 0.0
    if arguments is None:
        return 1.0
    if not isinstance(given, dict):
        return 0.5
    keys = arguments.keys() | given.keys()
    equal = sum(k in arguments and k in given and _same_json(given[k], arguments[k]) for k in keys)
    return 0.5 + 0.5 * (equal / len(keys) if keys else 1.0)


def called_tools(response: str) -> list[tuple[str, Any]]:
    """(name, arguments) of each call in a response that is JSON: one call, a list, or `{"tool_calls": [...]}`."""
    value = parse_json(response)
    if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        value = value["tool_calls"]
    calls = value if isinstance(value, list) else [value]
    functions = [call.get("function", call) for call in calls if isinstance(call, dict)]
    named = [f for f in functions if isinstance(f, dict) and isinstance(f.get("name"), str)]
    return [(function["name"], _arguments(function.get("arguments", {}))) for function in named]


def _arguments(given: Any) -> Any:
    return parse_json(given) if isinstance(given, str) else given


class _NotJson:
    """Stands for a text that is not JSON; equal to nothing."""


NOT_JSON = _NotJson()


def parse_json(text: str) -> Any:
    """The text as JSON, bare or in one code fence; `NOT_JSON` when it is neither."""
    text = text.strip()
    fenced = _FENCE.match(text)
    try:
        return json.loads(fenced.group(1) if fenced else text)
    except (ValueError, RecursionError):
        return NOT_JSON


_PYTHON_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _python(spec: Any) -> Scorer:
    if not isinstance(spec, str) or not _PYTHON_PATH.fullmatch(spec):
        raise _bad_spec("python", '"module:function"')
    return lambda response: _python_score(spec, response, False)


def _python_score(spec: str, response: str, allowed: bool) -> float:
    _python(spec)
    if not allowed:
        fix = "Allow python checks only for workloads you trust: they import and run the named function"
        raise WorkloadError(f"the workload asks to run python check {spec!r}", fix=fix)
    module, _, name = spec.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        fix = "Put the module on PYTHONPATH"
        raise WorkloadError(f"python check {spec!r} cannot be imported: {error}", fix=fix) from None
    score = float(function(response))
    if not 0.0 <= score <= 1.0:
        raise WorkloadError(f"python check {spec!r} gave {score}", fix="A check returns a number from 0 to 1")
    return score


def _string(kind: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _bad_spec(kind, "a text")
    return value


def _known_keys(kind: str, options: Mapping[str, Any], known: set[str]) -> None:
    unknown = options.keys() - known
    if unknown:
        raise _bad_spec(kind, f"no option {min(unknown)!r}; known are {', '.join(sorted(known))}")


def _bad_spec(kind: str, wanted: str) -> WorkloadError:
    return WorkloadError(f"the spec of a {kind} check must be {wanted}", fix="See workloads/checks.py for the forms")


_PARSERS: Mapping[str, Callable[[Any], Scorer]] = {
    "exact": _exact,
    "contains": _contains,
    "regex": _regex,
    "numeric": _numeric,
    "json_schema": _json_schema,
    "tool_call": _tool_call,
    "python": _python,
}

CHECK_KINDS = tuple(_PARSERS)
