"""The hardware catalogue: what a SKU can hold and do, and what an hour of it costs.

Does not know how many of it a deployment needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from pydantic import Field

from search_spaces.errors import SearchSpaceError, did_you_mean
from search_spaces.parameter import Frozen
from search_spaces.reading import read_mapping, validate

CATALOGUE = Path(__file__).parent / "skus.yaml"


class Network(Frozen):
    """What joins machines of a SKU: nominal figures of one device's link, one direction."""

    gb_s: float = Field(gt=0, allow_inf_nan=False)
    latency_us: float = Field(ge=0, allow_inf_nan=False)
    as_of: str
    source: str


class Sku(Frozen):
    """One kind of accelerator (or `local`, this machine), with the vintage of its price."""

    name: str
    vendor: str
    memory_gib: float | None = Field(default=None, gt=0)  # usable by an engine; None: not stated
    bandwidth_tb_s: float | None = Field(default=None, gt=0)
    bf16_tflops: float | None = Field(default=None, gt=0)  # dense
    link_gb_s: float | None = Field(default=None, gt=0)  # between two of one machine, one direction
    network: Network | None = None  # None: not stated
    devices_per_node: int = Field(default=8, ge=1)  # of one machine, which tensor parallelism does not leave
    aliases: tuple[str, ...] = ()  # other names; case, vendor and what is between letters and digits never matter
    silicon: str | None = None  # what aiconfigurator-core calls it; None: it has no measurements of it
    usd_per_hour: float = Field(ge=0, allow_inf_nan=False)  # of one, not of a node
    as_of: str
    source: str


class _Catalogue(Frozen):
    skus: dict[str, dict[str, object]]


def load_all_skus(private: Iterable[Path] = (), overrides: Mapping[str, float] | None = None) -> dict[str, Sku]:
    """The shipped catalogue, rows of private files over it, and the user's prices over both.

    Raises:
        SearchSpaceError: as `load_skus`.
    """
    skus = load_skus()
    for path in private:
        skus |= load_skus(path)
    return with_prices(skus, overrides or {})


def load_skus(path: Path | None = None, overrides: Mapping[str, float] | None = None) -> dict[str, Sku]:
    """The catalogue by name, with the user's prices over the listed ones.

    Raises:
        SearchSpaceError: unreadable or invalid file, or an override for a SKU that is not listed.
    """
    file = path or CATALOGUE
    rows = validate(_Catalogue, read_mapping(file), where=str(file)).skus
    skus = {name: validate(Sku, {"name": name} | row, where=f"{file}: skus.{name}") for name, row in rows.items()}
    return with_prices(skus, overrides or {})


def with_prices(skus: Mapping[str, Sku], overrides: Mapping[str, float]) -> dict[str, Sku]:
    """The user's dollars per hour over the listed ones.

    Raises:
        SearchSpaceError: a price for a SKU that is not listed.
    """
    priced = dict(skus)
    for name, usd in overrides.items():
        sku = find_sku(skus, name)
        row = sku.model_dump() | {"usd_per_hour": usd, "source": "given by the user", "as_of": "now"}
        priced[sku.name] = validate(Sku, row, where=f"price of {name}")
    return priced


def find_sku(skus: Mapping[str, Sku], name: str) -> Sku:
    """By its name here, in the silicon data (`a100_sxm`), or another spelling (`H100-SXM`, `NVIDIA H100 80GB HBM3`).

    Raises:
        SearchSpaceError: it is not listed, or could be several; with the closest names.
    """
    if name in skus:
        return skus[name]
    spellings = {_plain(known): sku for sku in skus.values() for known in _names(sku)}
    wanted = _plain(name)
    if wanted in spellings:
        return spellings[wanted]
    longer = sorted({sku.name for known, sku in spellings.items() if wanted and known.startswith(wanted)})
    if longer:
        raise SearchSpaceError(f"no SKU is called {name!r}. Did you mean {' or '.join(map(repr, longer))}?")
    close = get_close_matches(wanted, spellings, n=1, cutoff=0.7)
    hint = f"Did you mean {spellings[close[0]].name!r}?" if close else did_you_mean("", skus)
    raise SearchSpaceError(f"no SKU is called {name!r}. {hint}")


def _names(sku: Sku) -> tuple[str, ...]:
    return (sku.name, *([sku.silicon] if sku.silicon else []), *sku.aliases)


def _plain(name: str) -> str:
    """Letters and digits, without the vendor and the generation of a socket (`SXM5`)."""
    letters = re.sub(r"[^a-z0-9]", "", re.sub(r"\b(nvidia|amd|instinct|tesla)\b", "", name.lower()))
    return re.sub(r"sxm\d?(?=\d\dgb?$|$)", "sxm", letters)


def parse_prices(texts: Iterable[str]) -> dict[str, float]:
    """`NAME=USD` texts, dollars per hour of one SKU; the last one given for a name holds.

    Raises:
        SearchSpaceError: not of that form, or not a price.
    """
    return dict(_parse_price(text) for text in texts)


def _parse_price(text: str) -> tuple[str, float]:
    name, equals, number = text.partition("=")
    if not equals or not name.strip():
        raise SearchSpaceError(f"{text!r} is not a price. Write NAME=USD per hour, for example h100_sxm=2.10")
    try:
        usd = float(number.strip().removeprefix("$"))
    except ValueError:
        raise SearchSpaceError(
            f"{text!r}: {number!r} is not a number. Write dollars per hour, for example 2.10"
        ) from None
    if not 0 <= usd < float("inf"):
        raise SearchSpaceError(f"{text!r}: a price is zero or more. Write dollars per hour, for example 2.10")
    return name.strip(), usd
