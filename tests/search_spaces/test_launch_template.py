"""Commands with places: what is filled in, what is left out, and which mistakes are found before anything starts."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import SearchSpaceError
from search_spaces.launch_template import LaunchTemplate, flags
from search_spaces.space import bundled_spaces, load_search_space

VALUES = {"model": "models/a", "model_name": "a", "host": "127.0.0.1", "port": 8001, "max_num_seqs": 16}
HEAD = 'launch:\n  command: [serve, "{model}", "--port={port}", "{flags}"]\n'


def template(*command: str, **fields: object) -> LaunchTemplate:
    return LaunchTemplate.model_validate({"command": list(command), **fields})


def read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    load_search_space(path)


def test_places_are_filled_in_and_flags_take_the_rest() -> None:
    launch = template("serve", "{model}/{engine_args.file}", "--url={host}:{port}", "-n", "{max_num_seqs}", "{flags}")
    started = launch.fill(VALUES, {"file": "x.bin", "batch-size": 8, "metrics": True})
    expected = ["serve", "models/a/x.bin", "--url=127.0.0.1:8001", "-n", "16", "--batch-size", "8", "--metrics"]
    assert started.command == expected


def test_null_and_false_leave_a_flag_out_true_gives_it_alone() -> None:
    found = flags({"a": None, "b": False, "c": True, "-d": 0, "e": [1, 2], "f": {"k": 1}, "g": "x y; rm"})
    assert found == ["--c", "-d", "0", "--e", "1", "2", "--f", '{"k": 1}', "--g", "x y; rm"]


def test_an_environment_variable_vanishes_with_its_value() -> None:
    environment = {"THREADS": "{engine_args.threads}", "BRACES": "{{a}}"}
    launch = template("serve", "{port}", environment=environment)
    assert launch.fill(VALUES, {"threads": 2}).environment == {"THREADS": "2", "BRACES": "{a}"}
    assert launch.fill(VALUES, {"threads": None}).environment == {"BRACES": "{a}"}
    assert launch.takes("threads")
    assert not launch.takes("other")


def test_a_place_of_the_command_without_a_value_is_an_error_that_points_at_it() -> None:
    launch = template("serve", "{port}", "{engine_args.file}")
    with pytest.raises(SearchSpaceError, match=r"launch.command\[2\]: engine_args.file has no value"):
        launch.fill(VALUES, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('launch: {command: [serve, "{prot}"]}', r"launch: command\[1\]: '{prot}' names the unknown place {prot}. Did"),
        ('launch: {command: [serve, "{port}", "{}"]}', "names the unknown place {}"),
        ('launch: {command: [serve, "{port}", "--x={flags}"]}', "make it an item of its own"),
        ('launch: {command: [serve, "{port}"], environment: {A: "{flags}"}}', "make it an item of its own"),
        ('launch: {command: [serve, "{port:5}"]}', "a place has no format. Write {port}"),
        ('launch: {command: [serve, "{port"]}', "Write {{ and }} for braces"),
        ('launch: {command: [serve, "{model}"]}', r"no {port} in command or environment"),
        ('launch: {command: [serve, "{port}"], health: health}', "is no path"),
        ('launch: {command: [serve, "{port}"], shell: true}', "launch.shell: unknown key 'shell'"),
        ("launch: {command: []}", "launch.command"),
        ("launch: {command: serve --port 1}", "launch.command"),
    ],
)
def test_a_wrong_template_is_an_error_that_points_at_the_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SearchSpaceError) as caught:
        read(tmp_path, f"{text}\nparameters: {{}}\n")
    assert words.replace("\\", "") in str(caught.value)


def test_a_parameter_that_cannot_reach_the_server_is_an_error(tmp_path: Path) -> None:
    text = 'launch: {command: [serve, "{port}"]}\nparameters: {engine_args.batch: [1, 2]}\n'
    with pytest.raises(SearchSpaceError, match=r'engine_args.batch does not reach the server. Add "{flags}"'):
        read(tmp_path, text)


def test_quality_names_parameters_of_the_space(tmp_path: Path) -> None:
    text = f"{HEAD}  quality: {{dtyp: auto}}\nparameters: {{engine_args.dtype: [auto, float16]}}\n"
    with pytest.raises(SearchSpaceError, match=r"launch.quality.dtyp: no parameter sets .* Did you mean 'dtype'"):
        read(tmp_path, text)


def test_a_space_is_another_one_when_its_command_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    prints = []
    for program in ("serve", "other"):
        path.write_text(HEAD.replace("serve", program) + "parameters: {engine_args.a: [1, 2]}\n")
        space = load_search_space(path)
        assert space.resolve({}).space.launch == space.launch
        prints.append(space.fingerprint())
    assert prints[0] != prints[1]


def test_the_shipped_examples_start_their_servers_with_every_parameter() -> None:
    shipped = {name: load_search_space(name) for name in bundled_spaces()}
    launched = {name: space for name, space in shipped.items() if space.launch is not None}
    assert set(launched) == {"llama-cpp", "sglang"}
    for space in launched.values():
        assert space.launch is not None
        arguments = {f.removeprefix("engine_args."): 1 for f in space.fields() if f.startswith("engine_args.")}
        command = " ".join(space.launch.fill(VALUES, arguments).command)
        assert all(f"--{name} 1" in command or "models/a/1" in command for name in arguments)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True), st.text(max_size=12) | st.integers()))
def test_whatever_a_value_holds_it_is_one_argument(values: dict[str, object]) -> None:
    launch = template("serve", "{port}", "{flags}")
    command = launch.fill(VALUES, values).command
    assert command[2:] == [part for name, value in values.items() for part in (f"--{name}", str(value))]
