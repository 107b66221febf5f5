"""best.vllm.yaml: what `vllm serve --config` reads, or a comment that says why it cannot."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import study_cases
import yaml

from engine.config import EngineConfig
from engine.vllm_options import vllm_obstacles, vllm_options
from reports.vllm_config import write_vllm

PARSE = """
import json, sys
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser(prog="vllm")
ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
parsed = parser.parse_args(["serve", "--config", sys.argv[1]])
parsed.model = parsed.model_tag or parsed.model
keys = ["model", "max_num_seqs", "max_num_batched_tokens", "enable_prefix_caching"]
keys += ["kv_cache_memory_bytes", "block_size"]
print(json.dumps({key: getattr(parsed, key) for key in keys} | {"speculative": parsed.speculative_config}))
"""


def test_best_vllm_yaml_is_the_golden_one(tmp_path: Path, is_golden: Callable[[str, str], None]) -> None:
    config = study_cases.config(
        speculative_config=study_cases.DRAFT, max_num_seqs=32, enable_prefix_caching=False, num_threads=2
    )
    is_golden("best.vllm.yaml", write_vllm(config, tmp_path).read_text())


def test_quantization_at_load_gives_a_file_of_comments_that_says_why(
    tmp_path: Path, is_golden: Callable[[str, str], None]
) -> None:
    text = write_vllm(study_cases.config(quantization=study_cases.INT8), tmp_path).read_text()
    assert yaml.safe_load(text) is None
    assert all(line.startswith("#") for line in text.splitlines())
    is_golden("best.vllm.refused.yaml", text)


def test_mixed_weights_are_named_in_the_reason(tmp_path: Path) -> None:
    config = study_cases.config(quantization={"overrides": {"*.down_proj": "int8"}})
    assert "Weights in int8 are made by" in write_vllm(config, tmp_path).read_text()


def test_instances_apart_share_their_settings_and_are_started_one_by_one(tmp_path: Path) -> None:
    apart = {"prefill_instances": 2, "decode_instances": 1}
    hardware = {"sku": "h100_sxm", "count": 6}
    config = EngineConfig.model_validate(
        {"model": "m", "engine": "simulated", "tensor_parallel_size": 2, "disaggregation": apart, "hardware": hardware}
    )
    text = write_vllm(config, tmp_path).read_text()
    assert yaml.safe_load(text)["kv-transfer-config"]["kv_connector"] == "NixlConnector"
    assert yaml.safe_load(text)["tensor-parallel-size"] == 2
    told = text.replace("\n# ", " ")
    assert "start 2 for prefill and 1 for decode per replica" in told
    assert "Hardware per replica: 6 x h100_sxm" in told


def test_options_have_hyphens_and_no_nulls() -> None:
    options = vllm_options(EngineConfig(model="m"))
    assert options["max-num-seqs"] == 64
    assert None not in options.values()
    assert not any("_" in name for name in options)
    assert "speculative-config" not in options


def test_speculation_stays_a_nested_map_of_what_its_method_reads() -> None:
    ngram = vllm_options(study_cases.config(speculative_config=study_cases.NGRAM))["speculative-config"]
    assert ngram == {"method": "ngram", "num_speculative_tokens": 6, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
    draft = vllm_options(study_cases.config(speculative_config=study_cases.DRAFT))["speculative-config"]
    assert draft == {"method": "draft_model", "num_speculative_tokens": 4, "model": "models/draft"}


def test_what_is_off_is_said_in_the_only_way_vllm_hears() -> None:
    options = vllm_options(study_cases.config(enable_prefix_caching=False))
    assert options["no-enable-prefix-caching"] is True
    assert "enable-prefix-caching" not in options
    assert False not in [value for value in options.values() if isinstance(value, bool)]


def test_block_size_is_handed_on_only_where_vllm_measured_it() -> None:
    assert "block-size" not in vllm_options(study_cases.config(block_size=32))
    assert vllm_options(study_cases.config(block_size=32, engine="vllm"))["block-size"] == 32


def test_threads_become_an_environment_variable_in_a_comment(tmp_path: Path) -> None:
    text = write_vllm(study_cases.config(num_threads=4, tensor_parallel_size=2), tmp_path).read_text()
    assert "VLLM_CPU_OMP_THREADS_BIND='0-3|4-7'" in text


def test_quantized_weights_stand_in_the_way_until_there_is_a_checkpoint(tmp_path: Path) -> None:
    assert not vllm_obstacles(study_cases.config(speculative_config=study_cases.DRAFT))
    config = study_cases.config(quantization=study_cases.INT4, engine="vllm")
    assert "already quantized" in write_vllm(config, tmp_path).read_text().replace("\n# ", " ")
    options = yaml.safe_load(write_vllm(config, tmp_path, checkpoint=Path("models/int4")).read_text())
    assert options["model"] == "models/int4"
    assert "quantization" not in options, "the checkpoint says it"


@pytest.mark.vllm
def test_vllms_own_parser_reads_the_file_as_meant(tmp_path: Path) -> None:
    python = os.environ.get("FOPT_VLLM_PYTHON")
    if not python:
        pytest.skip("FOPT_VLLM_PYTHON names no Python that has vLLM")
    config = study_cases.config(
        speculative_config=study_cases.DRAFT,
        enable_prefix_caching=False,
        kv_cache_memory_bytes=2**29,
        engine="vllm",
        block_size=32,
    )
    path = write_vllm(config, tmp_path)
    done = subprocess.run([python, "-c", PARSE, str(path)], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout.splitlines()[-1])
    speculative = read.pop("speculative")
    assert read == {
        "model": "models/demo",
        "max_num_seqs": 64,
        "max_num_batched_tokens": 2048,
        "enable_prefix_caching": False,
        "kv_cache_memory_bytes": 2**29,
        "block_size": 32,
    }
    assert speculative == {"method": "draft_model", "num_speculative_tokens": 4, "model": "models/draft"}
