"""The silicon tables against the package's own answers; skipped where the package is not installed."""

import pytest

from engine.simulator.errors import SimulatorError

pytest.importorskip("aiconfigurator_core", reason="needs the extra `silicon`")

from engine.simulator.oracle import Source
from engine.simulator.silicon import SiliconOracle, SiliconTarget, _compile, _table, known_systems

TARGET = SiliconTarget(model="Qwen/Qwen3-8B", system="l40s")


@pytest.fixture(scope="module")
def oracle() -> SiliconOracle:
    return SiliconOracle(TARGET, max_tokens=2048, max_seqs=64, max_context=8192)


def test_tables_repeat_what_the_package_says(oracle: SiliconOracle) -> None:
    handle = _compile(TARGET)
    for seqs, context in ((1, 100), (7, 900), (33, 5000), (64, 8000)):
        expected = handle.decode_step_latency(seqs, context, 2) / 1e3
        assert oracle.step_s(0, 0, 0, seqs, seqs * context, 0) == pytest.approx(expected, rel=0.05)
    for tokens in (100, 512, 1500):
        expected = handle.mixed_step_latency(tokens, 0, tokens, 2) / 1e3
        assert oracle.step_s(1, tokens, 0, 0, 0, 0) == pytest.approx(expected, rel=0.05)


def test_a_prompt_in_chunks_pays_its_attention_once(oracle: SiliconOracle) -> None:
    whole = oracle.step_s(1, 2048, 0, 0, 0, 0) - oracle._shared_s[2048]
    chunks = sum(oracle.step_s(1, 512, before, 0, 0, 0) - oracle._shared_s[512] for before in range(0, 2048, 512))
    assert chunks == pytest.approx(whole)


def test_a_batch_takes_no_longer_than_a_larger_one() -> None:
    slow = {1: 12.0, 2: 9.0, 3: 7.0, 4: 11.0, 5: 7.5}  # milliseconds, as one system's table has it
    assert _table(slow.__getitem__, 5) == pytest.approx([0.0, 7e-3, 7e-3, 7e-3, 7.5e-3, 7.5e-3])


def test_it_says_where_it_comes_from(oracle: SiliconOracle) -> None:
    provenance = oracle.provenance
    assert provenance.source is Source.SILICON
    assert "vLLM" in provenance.detail
    assert "aiconfigurator-core" in provenance.detail
    assert any("estimated" in gap for gap in provenance.gaps)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"system": "h100"}, "Choose one of .*h100_sxm"),
        ({"model": "nobody/nothing"}, "no known model is called 'nobody/nothing'.*Qwen/Qwen3-8B"),
        ({"tensor_parallel_size": 3}, "Use the roofline"),
    ],
)
def test_what_has_no_data_is_refused_with_the_nearest(fields: dict[str, object], words: str) -> None:
    target = SiliconTarget(**{"model": "Qwen/Qwen3-8B", "system": "l40s", **fields})  # type: ignore[arg-type]
    with pytest.raises(SimulatorError, match=words):
        SiliconOracle(target, max_tokens=512, max_seqs=8, max_context=1024)


def test_systems_without_vllm_data_are_not_listed() -> None:
    assert "l40s" in known_systems()
    assert "l4" not in known_systems()
