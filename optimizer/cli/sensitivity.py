"""`fopt artifacts sensitivity`: which layers bear few bits, and a search space with the mixes that follow.

Does not measure or choose: `optimizer.sensitivity` and `optimizer.mixed_precision` do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import click

from engine.artifacts.quantization_recipe import group_size, linear_layers
from engine.bundled_backend import BundledBackend
from engine.config import EngineConfig, Quantization, WeightFormat
from engine.warm_backend import WarmBackend
from optimizer.atomic_file import write_text
from optimizer.cli.console import make_table, stdout_console
from optimizer.cli.job import HELDOUT_FRACTION
from optimizer.cli.progress import Phases
from optimizer.errors import OptimizerError
from optimizer.mixed_precision import LayerSensitivity, MixedPrecision, average_bits, least_divergence
from optimizer.mixed_space import space_yaml, with_mixes
from optimizer.placement import placement_for
from optimizer.quality.meter import QualityMeter
from optimizer.sensitivity import measure_sensitivities
from search_spaces.space import load_search_space
from workloads.estimate import Estimate
from workloads.parquet import read_workload
from workloads.sampling import split_by_session
from workloads.workload import Workload

_FORMATS: tuple[WeightFormat, ...] = ("int4_g128", "int4_g32", "int8")
FILE = click.Path(path_type=Path, dir_okay=False)


class Bits(click.ParamType[tuple[float, ...]]):
    """Parses `4.5,6` to average bits a weight."""

    name = "bits"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            found = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            found = ()
        if not found or not all(2 <= bits <= 16 for bits in found):
            self.fail(f"{value!r} are not bits a weight. Write them as 4.5,5,6", param, ctx)
        return found


class Formats(click.ParamType[tuple[WeightFormat, ...]]):
    """Parses `int4_g32,int8`."""

    name = "formats"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[WeightFormat, ...]:
        if isinstance(value, tuple):
            return value
        known: dict[str, WeightFormat] = {name: name for name in get_args(WeightFormat)}
        names = str(value).split(",")
        if unknown := [name for name in names if name not in known]:
            self.fail(f"{unknown[0]!r} is no weight format. Known are {', '.join(known)}", param, ctx)
        return tuple(known[name] for name in names)


@click.command("sensitivity", epilog="Example:  fopt artifacts sensitivity model/ log.parquet --output mixed.yaml")
@click.argument("model", type=click.Path(path_type=Path, file_okay=False))
@click.argument("workload", type=FILE)
@click.option("--bits", type=Bits(), default="4.5,5,6", show_default=True, metavar="A,B",
              help="Average stored bits a weight, scales included, to make a mix for.")  # fmt: skip
@click.option("--formats", type=Formats(), default=",".join(_FORMATS), show_default=True, metavar="A,B",
              help="What a layer may be stored as.")  # fmt: skip
@click.option("--tokens", type=click.IntRange(min=100), default=2000, show_default=True,
              help="Tokens of answers that each measurement compares.")  # fmt: skip
@click.option("--space", default="bundled", show_default=True, metavar="NAME|FILE", help="Space to add the mixes to.")
@click.option("--output", type=FILE, metavar="FILE", help="Write that space here, for `fopt run --space FILE`.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which requests are taken.")
def command(
    model: Path,
    workload: Path,
    bits: tuple[float, ...],
    formats: tuple[WeightFormat, ...],
    tokens: int,
    space: str,
    output: Path | None,
    seed: int,
) -> None:
    """Measure how much each layer of MODEL loses in each format on WORKLOAD's requests, and mix formats accordingly.

    The mixes themselves are measured on WORKLOAD's last sessions, which the choice did not see. Runs on the bundled
    engine, layer by layer; the mixes run on vLLM too, where checkpoints can be made."""
    asked = load_search_space(space)
    with_mixes(asked, {})  # a space that has no place for them is told before anything is measured
    found = _measured(
        _Wish(model=model, traffic=read_workload(workload), formats=formats, tokens=tokens, seed=seed), bits
    )
    stdout_console().print(_layers_table(found.sensitivities, formats))
    stdout_console().print(_mixes_table(found.rows, found.num_tokens))
    if output is not None:
        text = space_yaml(with_mixes(asked, found.mixes))
        write_text(output, f"# {space} with mixes for {model}, by the losses of its layers on {workload.name}\n{text}")
        click.echo(f"next:  fopt run {workload} --model {model} --space {output}", err=True)


@dataclass(frozen=True, kw_only=True)
class _Wish:
    model: Path
    traffic: Workload
    formats: Sequence[WeightFormat]
    tokens: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One set of weights, uniform or mixed; `expected` is the sum of single layers' losses."""

    name: str
    bits: float
    expected: float
    measured: Estimate


@dataclass(frozen=True, kw_only=True)
class _Found:
    sensitivities: Sequence[LayerSensitivity]
    mixes: dict[str, MixedPrecision]
    rows: Sequence[_Row]
    num_tokens: int


def _measured(wish: _Wish, bits: Iterable[float]) -> _Found:
    shapes = linear_layers(wish.model)
    _refuse_useless(wish.formats, shapes)
    placement = placement_for(wish.traffic)
    cpus = frozenset(placement.engine_cores) if placement.engine_cores else None
    with (
        tempfile.TemporaryDirectory(prefix="fopt-sensitivity-") as folder,
        Phases("measuring layers") as phases,
        WarmBackend(BundledBackend(cpus=cpus, devices=placement.devices, reconfigurable=True)) as backend,
    ):
        parts = split_by_session(wish.traffic, HELDOUT_FRACTION)
        choosing, judging = (
            QualityMeter(
                backend=backend,
                base=EngineConfig(model=str(wish.model)),
                workload=part,
                num_tokens=wish.tokens,
                directory=Path(folder),
                seed=wish.seed,
                report=phases.show,
            )
            for part in (parts.train, parts.heldout)
        )
        sensitivities = measure_sensitivities(choosing, shapes, wish.formats, report=phases.show)
        mixes = _mixes(sensitivities, bits)
        uniform = [
            (form, _uniform(sensitivities, form))
            for form in wish.formats
            if all(form in unit.divergences for unit in sensitivities)
        ]
        rows = [_row(judging, name, mix) for name, mix in (*uniform, *mixes.items())]
        return _Found(sensitivities=sensitivities, mixes=mixes, rows=rows, num_tokens=judging.num_tokens)


def _refuse_useless(formats: Sequence[WeightFormat], shapes: Mapping[str, tuple[int, int]]) -> None:
    """Raises OptimizerError for a format that no layer can be stored in."""
    for form in formats:
        if not any(inputs % (group_size(form) or 1) == 0 for _, inputs in shapes.values()):
            raise OptimizerError(f"no layer of the model can be stored as {form}: take smaller groups with --formats")


def _mixes(sensitivities: Sequence[LayerSensitivity], bits: Iterable[float]) -> dict[str, MixedPrecision]:
    return {
        f"mixed_{each:g}_bits": least_divergence(sensitivities, max_bits_per_weight=each, base=Quantization())
        for each in bits
    }


def _uniform(sensitivities: Sequence[LayerSensitivity], weights: WeightFormat) -> MixedPrecision:
    return MixedPrecision(
        quantization=Quantization(weights=weights),
        bits_per_weight=average_bits(sensitivities, weights),
        expected_divergence=sum(unit.divergences[weights] for unit in sensitivities),
    )


def _row(meter: QualityMeter, name: str, mix: MixedPrecision) -> _Row:
    measured = meter.kl(mix.quantization)
    return _Row(name=name, bits=mix.bits_per_weight, expected=mix.expected_divergence, measured=measured)


def _layers_table(sensitivities: Sequence[LayerSensitivity], formats: Sequence[WeightFormat]) -> object:
    rows = [
        (_unit_name(unit), f"{unit.num_parameters / 1e6:.3g} M", *(_milli(unit.divergences.get(f)) for f in formats))
        for unit in sensitivities
    ]
    return make_table(["layers", "weights", *formats], rows, title="KL of each alone, 1/1000 nats a token")


def _unit_name(unit: LayerSensitivity) -> str:
    more = f" and {len(unit.layers) - 1} more" if len(unit.layers) > 1 else ""
    return f"{unit.layers[0]}{more}"


def _mixes_table(rows: Sequence[_Row], num_tokens: int) -> object:
    told = [
        (
            row.name,
            f"{row.bits:.3f}",
            _milli(row.expected),
            f"{_milli(row.measured.value)} ({_milli(row.measured.low)} to {_milli(row.measured.high)})",
        )
        for row in rows
    ]
    title = f"KL in 1/1000 nats a token, on {num_tokens:,} tokens of answers that the choice did not see"
    return make_table(["weights", "bits", "sum of layers", "measured"], told, title=title)


def _milli(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:.3g}"
