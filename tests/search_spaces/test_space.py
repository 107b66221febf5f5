from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import SearchSpaceError
from search_spaces.parameter import Parameter, Value
from search_spaces.space import SearchSpace, bundled_spaces, load_search_space

SPECULATION = Parameter.model_validate(
    {
        "options": {
            "none": {"speculative_config": None},
            "ngram": {"speculative_config.method": "ngram"},
            "draft": {"speculative_config.method": "draft_model", "speculative_config.model": "$draft"},
        }
    }
)


def space(**parameters: object) -> SearchSpace:
    return SearchSpace.model_validate({"name": "test", "parameters": parameters})


SPECULATIVE = space(
    dtype=["auto", "float32"],
    speculation=SPECULATION,
    k={"sets": "speculative_config.num_speculative_tokens", "choices": [2, 4], "when": {"speculation": ["ngram"]}},
    draft_k={"sets": "speculative_config.num_speculative_tokens", "choices": [3], "when": {"speculation": ["draft"]}},
)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Small spaces whose conditions name earlier parameters."""
    parameters: dict[str, object] = {}
    for i in range(draw(st.integers(1, 5))):
        choices = draw(st.lists(st.one_of(st.integers(0, 9), st.booleans(), st.none()), min_size=1, max_size=3))
        when: dict[str, list[Value]] = {}
        if i and draw(st.booleans()):
            other = draw(st.sampled_from(sorted(parameters)))
            values = Parameter.model_validate(parameters[other]).values()
            when = {other: [draw(st.sampled_from(values))]}
        unique = [c for n, c in enumerate(choices) if not any(type(c) is type(d) and c == d for d in choices[:n])]
        parameters[f"p{i}"] = {"choices": unique, "when": when}
    return space(**parameters)


@given(spaces())
def test_the_size_is_the_number_of_assignments_and_each_is_contained_once(space: SearchSpace) -> None:
    assignments = list(space.enumerate())
    assert len(assignments) == space.size()
    assert len({repr(sorted(a.items())) for a in assignments}) == len(assignments)
    assert all(space.contains(a) for a in assignments)
    assert space.default_assignment in assignments


def test_conditions_hold_in_every_assignment() -> None:
    resolved = SPECULATIVE.resolve({"draft": "d"}).space
    for assignment in resolved.enumerate():
        assert ("k" in assignment) == (assignment["speculation"] == "ngram")
    assert resolved.size() == 2 * (1 + 2 + 1)


def test_linked_fields_are_set_together_and_nested() -> None:
    resolved = SPECULATIVE.resolve({"draft": "folder"}).space
    overrides = resolved.overrides({"dtype": "auto", "speculation": "draft", "draft_k": 3})
    assert overrides == {
        "dtype": "auto",
        "speculative_config": {"method": "draft_model", "model": "folder", "num_speculative_tokens": 3},
    }


def test_choices_that_need_a_missing_draft_vanish_with_a_note() -> None:
    resolved, notes = SPECULATIVE.resolve({"draft": None})
    assert resolved.size() == 2 * (1 + 2)
    assert "draft_k" not in resolved.parameters
    assert notes == ("speculation: draft left out, because there is no draft",)


def test_a_placeholder_nobody_filled_in_is_an_error() -> None:
    assert SPECULATIVE.unresolved() == {"draft"}
    with pytest.raises(SearchSpaceError, match=r"speculative_config\.model needs \$draft"):
        SPECULATIVE.overrides({"dtype": "auto", "speculation": "draft", "draft_k": 3})


def test_an_assignment_of_another_space_is_refused() -> None:
    with pytest.raises(SearchSpaceError, match="is not in the space test"):
        SPECULATIVE.overrides({"dtype": "auto"})


def test_true_and_one_are_different_choices() -> None:
    flags = space(flag=[True, 1])
    assert flags.size() == 2
    assert not flags.contains({"flag": 1.0})


def test_numbers_at_or_above_the_machines_cores_are_cut() -> None:
    threads = space(num_threads={"choices": [None, 1, 2, 4], "below": "$cores"})
    assert threads.resolve({"cores": 2}).space.parameters["num_threads"].values() == (None, 1)
    assert threads.resolve({"cores": None}).space.parameters["num_threads"].values() == (None, 1, 2, 4)


def test_int_ranges_step_or_double() -> None:
    ranges = space(a={"range": {"low": 2, "high": 9, "step": 3}}, b={"range": {"low": 8, "high": 64, "log": True}})
    assert ranges.parameters["a"].values() == (2, 5, 8)
    assert ranges.parameters["b"].values() == (8, 16, 32, 64)


def test_the_base_config_becomes_the_default_even_when_no_choice_named_it() -> None:
    around = SPECULATIVE.resolve({"draft": "d"}).space.including(
        {"dtype": "bfloat16", "speculative_config.method": "ngram", "speculative_config.num_speculative_tokens": 5}
    )
    assert around.default_assignment == {"dtype": "bfloat16", "speculation": "ngram", "k": 5}
    assert around.parameters["k"].values() == (5, 2, 4)
    assert around.contains({"dtype": "auto", "speculation": "none"})


def test_a_base_config_that_no_option_can_express_is_refused() -> None:
    with pytest.raises(SearchSpaceError, match=r"parameters\.speculation: no option has the base config's"):
        SPECULATIVE.including({"dtype": "auto", "speculative_config.method": "medusa"})


def test_the_fingerprint_follows_the_values_and_not_the_description() -> None:
    one = space(a=[1, 2])
    assert one.fingerprint() == one.model_copy(update={"description": "words"}).fingerprint()
    assert one.fingerprint() != space(a=[2, 1]).fingerprint()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parameter: {}", r"unknown key 'parameter'\. Did you mean 'parameters'"),
        ("parameters: {a: {choises: [1]}}", r"parameters\.a\.choises: unknown key 'choises'\. Did you mean 'choices'"),
        ("parameters: {a: {range: {low: 1, hi: 2}}}", r"parameters\.a\.range\.hi: .*Did you mean 'high'"),
        ("parameters: {a: {choices: [1], options: {}}}", r"parameters\.a: give exactly one of"),
        ("parameters: {a: []}", r"parameters\.a: has no value"),
        ("parameters: {a: [1, 1]}", r"parameters\.a: lists a value twice"),
        ("parameters: {a: {choices: [1], default: 2}}", r"parameters\.a: the default 2 is not among"),
        ("parameters: {a: {choices: [1], when: {b: [1]}}, b: [1]}", r"parameters\.a\.when: 'b' is not an earlier"),
        ("parameters: {b: [1], a: {choices: [1], when: {b: [2]}}}", r"parameters\.a\.when: 2 is not a value of b"),
        ("parameters: {a: [1]}\nfixed: {a: 1}", r"fixed\.a: the parameter a varies it"),
        ("parameters: {a: [1], a: [2]}", "the key 'a' is given twice"),
        ("parameters: {a: {range: {low: 3, high: 2}}}", r"low \(3\) is larger than high \(2\)"),
        ("- a", "is not a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_faulty_file_is_refused_naming_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SearchSpaceError, match=message) as error:
        load_search_space(path)
    assert "mine.yaml" in str(error.value)


def test_unknown_fields_are_refused_with_the_closest_known_one() -> None:
    with pytest.raises(SearchSpaceError, match=r"parameters\.max_num_seq: .*Did you mean 'max_num_seqs'"):
        space(max_num_seq=[1]).validate_names({"max_num_seqs", "dtype"})


def test_bundled_spaces_are_found_by_name_and_a_typo_gets_the_closest() -> None:
    assert "bundled" in bundled_spaces()
    assert "skus" not in bundled_spaces()
    with pytest.raises(SearchSpaceError, match="Did you mean 'bundled'"):
        load_search_space("bundle")
    with pytest.raises(SearchSpaceError, match="cannot read"):
        load_search_space("absent.yaml")


def test_the_bundled_space_is_large_enough_with_and_without_a_draft() -> None:
    bundled = load_search_space("bundled")
    assert bundled.resolve({"draft": "d", "cores": 2}).space.size() == 11520
    assert bundled.resolve({"draft": "d", "medusa": "m", "eagle": "e", "cores": 2}).space.size() == 19840
    assert bundled.resolve({"draft": None, "cores": 1}).space.size() >= 500
    full = load_search_space("bundled-full").resolve({"draft": "d", "cores": 2}).space
    assert full.size() == 11520 // 5 * 3 * (9 + 2)  # three cache formats; int8 and fp8 with activations of theirs
