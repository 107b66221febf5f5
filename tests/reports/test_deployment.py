"""best.yaml: what it says, and that it reads back as exactly the config that was measured."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import study_cases
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import EngineConfig, dump_engine_config
from optimizer.results import StudyResult
from reports.deployment import artifact_sha256, make_deployment, read_deployment, write_best
from reports.errors import ReportError

QUANTIZATIONS = st.fixed_dictionaries({"weights": st.sampled_from(["bf16", "int8", "int4_g32", "int4_g64"])})
SPECULATIONS = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "method": st.just("ngram"),
            "num_speculative_tokens": st.integers(1, 32),
            "prompt_lookup_max": st.integers(3, 8),
            "prompt_lookup_min": st.integers(1, 3),
        }
    ),
    st.fixed_dictionaries(
        {
            "method": st.just("draft_model"),
            "num_speculative_tokens": st.integers(1, 32),
            "model": st.just("models/draft"),
        }
    ),
)
CONFIGS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["models/demo", "meta-llama/Llama-3.2-1B", "no", "1e3"]),
        "engine": st.sampled_from(["bundled", "vllm"]),
        "dtype": st.sampled_from(["auto", "bfloat16", "float32"]),
        "quantization": QUANTIZATIONS,
        "speculative_config": SPECULATIONS,
        "tensor_parallel_size": st.integers(1, 8),
        "max_model_len": st.none() | st.integers(16, 10**6),
        "max_num_seqs": st.integers(1, 512),
        "max_num_batched_tokens": st.integers(512, 10**5),
        "enable_prefix_caching": st.booleans(),
        "enable_chunked_prefill": st.booleans(),
        "block_size": st.integers(1, 256),
        "kv_cache_memory_bytes": st.none() | st.integers(1, 2**40),
        "num_threads": st.none() | st.integers(1, 128),
        "seed": st.integers(0, 2**31),
    }
).map(EngineConfig.model_validate)


def with_recommended(config: EngineConfig) -> StudyResult:
    study = study_cases.study()
    trials = tuple(t.model_copy(update={"config": config}) if t.number == 7 else t for t in study.trials)
    return study.model_copy(update={"trials": trials})


def folder_of_weights(path: Path, content: bytes = b"weights") -> Path:
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(content)
    return path


@given(config=CONFIGS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_exported_config_reads_back_as_itself(config: EngineConfig, tmp_path: Path) -> None:
    path = write_best(with_recommended(config), tmp_path)
    assert read_deployment(path).config == config


def test_the_deployment_reads_back_whole(study: StudyResult, tmp_path: Path) -> None:
    read = read_deployment(write_best(study, tmp_path))
    made = make_deployment(study)
    assert read.model_dump(exclude={"evidence"}) == made.model_dump(exclude={"evidence"})
    assert read.evidence.keys() == made.evidence.keys()
    assert read.evidence["p95_e2el_ms"].value == pytest.approx(826)  # of the verification, not of the search
    assert read.evidence["p95_e2el_ms_times_better"].low == pytest.approx(1.71)
    assert read.verified


def test_best_yaml_is_the_golden_one(
    study: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_golden: Callable[[str, str], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reports.deployment.metadata.version", lambda _: "0.0.0")
    is_golden("best.yaml", write_best(study, Path("runs") / study.name).read_text())


def test_the_comment_says_when_no_config_meets_the_limits(tmp_path: Path) -> None:
    text = write_best(study_cases.infeasible(), tmp_path).read_text()
    assert "# Beware:   no configuration met every limit" in text
    assert "did NOT hold" in text


def test_every_kind_of_study_with_a_recommendation_can_be_exported(any_study: StudyResult, tmp_path: Path) -> None:
    if any_study.recommendation is None:
        with pytest.raises(ReportError, match="recommends nothing"):
            write_best(any_study, tmp_path)
    else:
        read = read_deployment(write_best(any_study, tmp_path))
        assert read.config == any_study.trial(any_study.recommendation.trial).config


def test_paths_below_the_working_directory_become_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = folder_of_weights(tmp_path / "models" / "m")
    path = write_best(with_recommended(EngineConfig(model=str(model))), tmp_path / "runs")
    assert yaml.safe_load(path.read_text())["config"]["model"] == "models/m"


def test_relative_paths_are_found_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = folder_of_weights(tmp_path / "models" / "m")
    path = write_best(with_recommended(EngineConfig(model="models/m")), tmp_path / "runs" / "s")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Path(read_deployment(path, verify=True).config.model).samefile(model)


def test_weights_that_changed_are_refused_when_asked(tmp_path: Path) -> None:
    model = folder_of_weights(tmp_path / "m")
    path = write_best(with_recommended(EngineConfig(model=str(model))), tmp_path)
    read_deployment(path, verify=True)
    (model / "model.safetensors").write_bytes(b"other weights")
    read_deployment(path)
    with pytest.raises(ReportError, match=r"weights of the model in .* are not the ones that were measured"):
        read_deployment(path, verify=True)


def test_weights_that_are_gone_are_refused(tmp_path: Path) -> None:
    model = folder_of_weights(tmp_path / "m")
    path = write_best(with_recommended(EngineConfig(model=str(model))), tmp_path)
    (model / "model.safetensors").unlink()
    model.rmdir()
    with pytest.raises(ReportError, match=r"the model folder .* is gone"):
        read_deployment(path)


def test_one_file_of_weights_is_named_by_its_own_hash_and_shards_by_all_of_theirs(tmp_path: Path) -> None:
    model = folder_of_weights(tmp_path / "m")
    assert artifact_sha256(model) == hashlib.sha256(b"weights").hexdigest()
    (model / "model-2.safetensors").write_bytes(b"more")
    both = artifact_sha256(model)
    (model / "model-2.safetensors").write_bytes(b"changed")
    assert artifact_sha256(model) != both
    assert artifact_sha256(tmp_path / "nowhere") is None


def test_a_bare_engine_config_reads_as_an_unproved_deployment(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_engine_config(study_cases.trials()[7].config))
    read = read_deployment(path, verify=True)
    assert read.config == study_cases.trials()[7].config
    assert not read.verified
    assert not read.evidence


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds nothing but comments"),
        ("# only this\n", "holds nothing but comments"),
        ("- a\n- b\n", "is not a mapping"),
        ("a: [", "is not YAML"),
        ("model: m\nlora_modules: {a: x, a: y}\n", "line 2, column 22: the key 'a' is given twice"),
        ("schema_version: deployment/9\n", "deployment/9 is not known here"),
        ("schema_version: deployment/1\n", "config: an engine config is a mapping"),
        ("schema_version: deployment/1\nconfig: {model: m}\n", "artifacts: field required"),
        ("schema_version: deployment/1\nconfig: {model: m, max_seqs: 3}\n", "max_seqs: unknown option"),
        ("model: m\nmax_num_seq: 3\n", "max_num_seq: unknown option"),
        ("max_num_seqs: 3\n", "model: Field required"),
    ],
)
def test_what_is_no_deployment_is_told_in_a_sentence(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    path.write_text(content)
    with pytest.raises(ReportError, match=message) as told:
        read_deployment(path)
    assert str(path) in str(told.value)


def test_a_file_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"cannot read .*No such file"):
        read_deployment(tmp_path / "best.yaml")
