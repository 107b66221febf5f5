"""The cache of artifacts: built once, found again, whole or not there, shared by processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_quantizer import FakeQuantizer

from engine.artifacts.checkpoint_record import CalibrationData
from engine.artifacts.content_hash import ContentHashes, file_sha256
from engine.artifacts.provenance import read_provenance
from engine.artifacts.store import ArtifactStore, default_directory
from engine.backend import EngineError, FailureKind
from engine.config import EngineConfig, Quantization

OTHER_PROCESS = """
import sys
from pathlib import Path
from engine.artifacts.store import ArtifactStore
from engine.config import EngineConfig, Quantization
directory, python, model = sys.argv[1:]
config = EngineConfig(model=model, quantization=Quantization(weights="int8", activations="int8"))
print(ArtifactStore(Path(directory), python=python).checkpoint(config), flush=True)
sys.stdin.read()
"""


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@contextmanager
def other_process(store: ArtifactStore, quantizer: FakeQuantizer, model: str) -> Iterator[subprocess.Popen[str]]:
    """Builds or finds the int8 checkpoint, prints its folder, and uses it until its stdin is closed."""
    command = [sys.executable, "-c", OTHER_PROCESS, str(store.directory), quantizer.python, model]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def leftovers(store: ArtifactStore) -> list[str]:
    return [path.name for path in store.directory.glob(".*ing-*")]


def test_an_unquantized_config_needs_nothing_built(store: ArtifactStore, tiny_model: Path) -> None:
    config = EngineConfig(model=str(tiny_model), quantization=Quantization(kv_cache="fp8"))
    assert store.checkpoint(config) == tiny_model
    assert not store.directory.exists()


def test_a_checkpoint_is_built_once_and_found_again(
    store: ArtifactStore, quantizer: FakeQuantizer, int8: EngineConfig
) -> None:
    phases: list[str] = []
    built = store.checkpoint(int8, report=phases.append)
    assert phases == ["quantizing"]
    again = ArtifactStore(store.directory, python=quantizer.python)
    assert again.checkpoint(int8.model_copy(update={"max_num_seqs": 8, "dtype": "float32"})) == built
    assert len(quantizer.builds) == 1
    assert not leftovers(store)


def test_a_checkpoint_brings_its_tokenizer_and_tells_where_it_is_from(store: ArtifactStore, int8: EngineConfig) -> None:
    folder = store.checkpoint(int8)
    assert (folder / "tokenizer.json").read_bytes() == (Path(int8.model) / "tokenizer.json").read_bytes()
    provenance = read_provenance(folder)
    assert provenance is not None
    assert provenance.key == folder.name == provenance.ingredients.key()
    assert provenance.source == int8.model
    assert provenance.ingredients.versions == {"llmcompressor": "9.9.9"}
    assert set(provenance.files) == {path.name for path in folder.iterdir()} - {"provenance.json"}
    assert provenance.bytes == sum((folder / name).stat().st_size for name in provenance.files)


def test_a_changed_source_gets_another_checkpoint(
    store: ArtifactStore, int8: EngineConfig, tmp_path: Path, quantizer: FakeQuantizer
) -> None:
    model = tmp_path / "model"
    shutil.copytree(int8.model, model)
    config = int8.model_copy(update={"model": str(model)})
    first = store.checkpoint(int8)
    assert store.checkpoint(config) == first  # another place, the same content
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    assert store.checkpoint(config) != first
    assert len(quantizer.builds) == 2


@pytest.mark.parametrize(
    "name", ["qwen.tiktoken", "modeling.py", "spiece.vocab", "additional_chat_templates/tool.jinja"]
)
def test_whatever_a_loader_could_read_decides_the_checkpoint_and_goes_with_it(
    name: str, store: ArtifactStore, int8: EngineConfig, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(int8.model, model)
    config = int8.model_copy(update={"model": str(model)})
    plain = store.checkpoint(config)
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("one")
    with_file = store.checkpoint(config)
    assert (with_file / name).read_text() == "one"
    (model / name).write_text("another")
    changed = store.checkpoint(config)
    assert (changed / name).read_text() == "another"
    assert len({plain, with_file, changed}) == 3
    (changed / name).write_text("damaged")
    store.checkpoint(config)
    assert (changed / name).read_text() == "another"


@pytest.mark.parametrize(
    "name", ["README.md", "pytorch_model.bin", ".cache/download.lock", "original/consolidated.00.pth"]
)
def test_what_no_loader_reads_changes_nothing_and_stays_behind(
    name: str, store: ArtifactStore, int8: EngineConfig, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(int8.model, model)
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("other")
    built = store.checkpoint(int8.model_copy(update={"model": str(model)}))
    assert built == store.checkpoint(int8)
    assert not (built / name).exists()


def damaged_byte(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def cut_short(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def missing_file(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def no_record(folder: Path) -> None:
    (folder / "provenance.json").write_text("{}")


@pytest.mark.parametrize("damage", [damaged_byte, cut_short, missing_file, no_record])
def test_a_damaged_checkpoint_is_built_again_with_a_warning(
    damage: Callable[[Path], None], store: ArtifactStore, quantizer: FakeQuantizer, int8: EngineConfig
) -> None:
    folder = store.checkpoint(int8)
    whole = (folder / "model.safetensors").read_bytes()
    damage(folder)
    told: list[str] = []
    assert store.checkpoint(int8, report=told.append) == folder
    assert told[0].startswith("warning: ")
    assert len(quantizer.builds) == 2
    assert (folder / "model.safetensors").read_bytes() == whole
    assert not leftovers(store)


def test_two_processes_that_want_the_same_checkpoint_build_it_once(
    store: ArtifactStore, quantizer: FakeQuantizer, int8: EngineConfig
) -> None:
    quantizer.behave("wait")
    with other_process(store, quantizer, int8.model) as other:
        wait_for(lambda: quantizer.builds)
        told: list[str] = []

        def report(text: str) -> None:
            told.append(text)
            quantizer.go()

        mine = store.checkpoint(int8, report=report)
        assert other.stdout is not None
        assert other.stdout.readline().strip() == str(mine)
    assert told == ["waiting for another process that builds this checkpoint"]
    assert len(quantizer.builds) == 1


def test_a_killed_build_leaves_nothing_and_the_next_one_goes_on(
    store: ArtifactStore, quantizer: FakeQuantizer, int8: EngineConfig
) -> None:
    quantizer.behave("wait")
    with other_process(store, quantizer, int8.model) as other:
        wait_for(lambda: quantizer.builds and list(store.directory.glob(".building-*/checkpoint/half*")))
        other.send_signal(signal.SIGKILL)
        other.wait()
    wait_for(lambda: not is_running(quantizer.builds[0]))
    assert leftovers(store)
    quantizer.behave("build")
    folder = store.checkpoint(int8)
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
    assert not leftovers(store)


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        ("fail out_of_memory", FailureKind.OUT_OF_MEMORY, "no such thing"),
        ("fail bad_checkpoint", FailureKind.BAD_CHECKPOINT, "no such thing"),
        ("killed", FailureKind.OUT_OF_MEMORY, "want of memory"),
        ("speechless", FailureKind.UNSUPPORTED, "its last words"),
    ],
)
def test_a_failure_says_its_kind_and_leaves_nothing_half_made(
    behaviour: str, kind: FailureKind, words: str, store: ArtifactStore, quantizer: FakeQuantizer, int8: EngineConfig
) -> None:
    quantizer.behave(behaviour)
    with pytest.raises(EngineError, match=words) as failure:
        store.checkpoint(int8)
    assert failure.value.kind is kind
    assert failure.value.log_path is not None
    assert "words of a library" in failure.value.log_path.read_text()
    assert not leftovers(store)
    quantizer.behave("build")
    assert store.checkpoint(int8).is_dir()
    assert not failure.value.log_path.exists()


def test_a_python_without_llm_compressor_is_refused_with_what_to_do(tmp_path: Path, int8: EngineConfig) -> None:
    store = ArtifactStore(tmp_path / "store", python=str(tmp_path / "nothing"))
    with pytest.raises(EngineError, match="--quantizer-python") as failure:
        store.checkpoint(int8)
    assert failure.value.kind is FailureKind.UNSUPPORTED


def test_a_quantized_or_missing_source_is_refused(store: ArtifactStore, int8: EngineConfig, tmp_path: Path) -> None:
    built = store.checkpoint(int8)
    for source, words in ((built, "already quantized"), (tmp_path / "nowhere", "unquantized Hugging Face folder")):
        with pytest.raises(EngineError, match=words) as failure:
            store.checkpoint(int8.model_copy(update={"model": str(source)}))
        assert failure.value.kind is FailureKind.BAD_CHECKPOINT


def test_calibration_matters_to_gptq_alone(
    tmp_path: Path, quantizer: FakeQuantizer, int8: EngineConfig, tiny_model: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"text": "a"}\n')
    plain = ArtifactStore(tmp_path / "store", python=quantizer.python)
    calibrated = ArtifactStore(tmp_path / "store", python=quantizer.python, calibration=CalibrationData(path=data))
    int4 = EngineConfig(model=str(tiny_model), quantization=Quantization(weights="int4_g32"))
    assert plain.checkpoint(int8) == calibrated.checkpoint(int8)
    rounded, first = plain.checkpoint(int4), calibrated.checkpoint(int4)
    data.write_text('{"text": "b"}\n')
    second = calibrated.checkpoint(int4)
    assert len({rounded, first, second}) == 3
    provenance = read_provenance(second)
    assert provenance is not None
    assert [group.method for group in provenance.ingredients.recipe.groups] == ["gptq"]
    assert '"b"' not in (second / "provenance.json").read_text()


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOPT_ARTIFACTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_directory() == Path("/caches/fireoptimizer/artifacts")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert default_directory() == Path.home() / ".cache/fireoptimizer/artifacts"
    monkeypatch.setenv("FOPT_ARTIFACTS", "/elsewhere")
    assert default_directory() == Path("/elsewhere")


def test_a_file_is_read_again_only_when_size_or_time_changed(tmp_path: Path) -> None:
    path, hashes = tmp_path / "weights", ContentHashes(tmp_path / "hashes.json")
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    first = hashes.of_files({"weights": path})["weights"]
    path.write_bytes(b"two")
    os.utime(path, (1, 1))
    moved = path.rename(tmp_path / "moved")
    assert hashes.of_files({"moved": moved}) == {"moved": first}  # what is not seen
    os.utime(moved, (2, 2))
    assert hashes.of_files({"moved": moved}) == {"moved": file_sha256(moved)} != {"moved": first}
