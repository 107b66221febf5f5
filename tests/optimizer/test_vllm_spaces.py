"""vLLM's search spaces: their default is the engine's, what cannot be made is left out, and every option is known."""

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.config import EngineConfig
from engine.vllm_options import vllm_options
from engine.vllm_server.environment import VllmEnvironment
from engine.vllm_server.known_options import KnownOptions
from optimizer.candidate import make_config, space_around, with_fixed
from search_spaces.space import SearchSpace, load_search_space

OPTIONS = Path(__file__).parent.parent / "engine" / "vllm_server" / "options-0.32.0-cpu.json"
FOLDERS: dict[str, Any] = {name: name for name in ("draft", "medusa", "eagle", "eagle3", "suffix")}
FORMATS: dict[str, Any] = {name: name for name in ("int8", "int4_g128", "int4_g32", "nvfp4")} | {"fp8_kv": "fp8"}


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu"])
def test_the_default_is_the_engines_own_with_the_fixed_fields(name: str) -> None:
    asked = load_search_space(name)
    base = with_fixed(EngineConfig(model="m", engine="vllm"), asked)
    space = space_around(asked.resolve({**FOLDERS, **FORMATS, "cores": 4}).space, base)
    assert make_config(base, space, space.default_assignment) == base
    assert base.enforce_eager is (name == "vllm-cpu")


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu"])
def test_every_option_of_the_first_thousand_candidates_is_one_that_vllm_has(name: str) -> None:
    known = KnownOptions.model_validate_json(OPTIONS.read_text())
    known = known.model_copy(update={"modules": ("arctic_inference",)})
    asked = load_search_space(name)
    base = with_fixed(EngineConfig(model="m", engine="vllm"), asked)
    space = space_around(asked.resolve({**FOLDERS, **FORMATS, "cores": 4}).space, base)
    step = max(1, space.size() // 1000)
    for assignment in itertools.islice(space.enumerate(), 0, 20_000, min(step, 97)):
        options = vllm_options(make_config(base, space, assignment))
        assert known.refusals(options) == []


def test_without_drafts_and_checkpoints_what_needs_them_vanishes() -> None:
    resolution = load_search_space("vllm-cpu").resolve({"cores": 2})
    parameters = resolution.space.parameters
    assert parameters["weights"].values() == ("bf16",)
    assert parameters["quantization.kv_cache"].values() == ("bf16",)
    assert parameters["speculation"].values() == ("none", "ngram")
    assert "head_tokens" not in parameters
    assert parameters["num_threads"].values() == (None, 1)
    assert any("weights: w8a8, w4a16, w4a16_g32 left out" in note for note in resolution.notes)


# Reads every file with vLLM's own parser, as `vllm serve --config FILE` does.
PARSE = """
import json, sys
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser(prog="vllm")
ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
read = {}
for file in sys.argv[1:]:
    try:
        read[file] = {k: v for k, v in vars(parser.parse_args(["serve", "--config", file])).items()
                      if isinstance(v, (int, float, str, bool, dict, type(None)))}
    except SystemExit:
        read[file] = None
print(json.dumps(read))
"""


def each_choice_once(space: SearchSpace, base: EngineConfig) -> Iterator[EngineConfig]:
    """A config for every value of every parameter, the others at their defaults or at what makes it active."""
    for name, parameter in space.parameters.items():
        needed = {other: values[0] for other, values in parameter.when.items()}
        for value in parameter.values():
            assignment: dict[str, Any] = {}
            for other, its in space.parameters.items():
                if its.applies(assignment):
                    assignment[other] = {**needed, name: value}.get(other, its.default_value())
            assert assignment[name] == value
            yield make_config(base, space, assignment)


def test_every_choice_of_the_gpu_space_is_tried() -> None:
    asked = load_search_space("vllm")
    base = with_fixed(EngineConfig(model="m", engine="vllm"), asked)
    space = space_around(asked.resolve({**FOLDERS, **FORMATS, "cores": 4}).space, base)
    fingerprints = {config.fingerprint() for config in each_choice_once(space, base)}
    # all but the defaults, which are one and the same config
    num_others = sum(len(parameter.values()) - 1 for parameter in space.parameters.values())
    assert len(fingerprints) == num_others + 1, "the defaults of conditional parameters are their deciders' choices"


def test_parallel_splits_and_ray_reach_vllms_file() -> None:
    split = {"tensor_parallel_size": 4, "pipeline_parallel_size": 2, "data_parallel_size": 3}
    options = vllm_options(EngineConfig(model="m", engine="vllm", distributed_executor_backend="ray", **split))
    assert {name: value for name, value in options.items() if "parallel" in name or "distributed" in name} == {
        "tensor-parallel-size": 4,
        "pipeline-parallel-size": 2,
        "data-parallel-size": 3,
        "distributed-executor-backend": "ray",
    }


@pytest.mark.vllm
def test_vllms_own_parser_reads_every_choice_of_the_gpu_space(tmp_path: Path) -> None:
    python = os.environ.get("FOPT_VLLM_PYTHON")
    if not python:
        pytest.skip("FOPT_VLLM_PYTHON names no Python that has vLLM")
    asked = load_search_space("vllm")
    base = with_fixed(EngineConfig(model="m", engine="vllm"), asked)
    space = space_around(asked.resolve({**FOLDERS, **FORMATS, "cores": 4}).space, base)
    over_ray = base.model_copy(update={"distributed_executor_backend": "ray", "pipeline_parallel_size": 2})
    files = {}
    for number, config in enumerate([over_ray, *each_choice_once(space, base)]):
        file = tmp_path / f"{number}.yaml"
        files[str(file)] = vllm_options(config)
        file.write_text(yaml.safe_dump(files[str(file)], sort_keys=False))
    environment = {**os.environ, **VllmEnvironment(python, cache=tmp_path).variables}
    done = subprocess.run([python, "-c", PARSE, *files], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    for file, read in json.loads(done.stdout.splitlines()[-1]).items():
        assert read is not None, done.stderr[-2000:]
        for name, value in files[file].items():
            if name == "model":
                assert value in (read["model"], read.get("model_tag"))
            elif name.startswith("no-"):
                assert read[name.removeprefix("no-").replace("-", "_")] is False
            else:
                assert read[name.replace("-", "_")] == value, name
