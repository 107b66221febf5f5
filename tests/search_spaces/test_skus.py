from pathlib import Path

import pytest

from search_spaces.errors import SearchSpaceError
from search_spaces.skus import find_sku, load_all_skus, load_skus, parse_prices


def test_the_catalogue_has_a_source_and_a_vintage_for_every_price() -> None:
    skus = load_skus()
    assert {"local", "h100_sxm", "h200", "mi300x"} <= skus.keys()
    assert all(sku.source and sku.as_of and sku.usd_per_hour > 0 for sku in skus.values())
    assert "placeholder" in skus["local"].source


def test_a_network_has_a_source_and_a_vintage() -> None:
    networks = {name: sku.network for name, sku in load_skus().items() if sku.network}
    assert networks["h100_sxm"].gb_s == 50
    assert "local" not in networks
    assert all(network.source and network.as_of for network in networks.values())


def test_a_users_price_replaces_the_listed_one_and_says_so() -> None:
    sku = load_skus(overrides={"h100_sxm": 2.1})["h100_sxm"]
    assert (sku.usd_per_hour, sku.source) == (2.1, "given by the user")
    assert sku.bandwidth_tb_s == 3.35


def test_an_unknown_sku_gets_the_closest_name() -> None:
    with pytest.raises(SearchSpaceError, match=r"no SKU is called 'h100smx'\. Did you mean 'h100_sxm'"):
        load_skus(overrides={"h100smx": 2.1})
    with pytest.raises(SearchSpaceError, match="no SKU"):
        find_sku({}, "l4")


def test_prices_are_read_from_name_and_dollars() -> None:
    assert parse_prices(["l4=0.5", "local=$0", "l4 = 0.6"]) == {"l4": 0.6, "local": 0.0}


@pytest.mark.parametrize("text", ["l4", "=2", "l4=cheap", "l4=-1", "l4=nan", "l4=inf"])
def test_what_is_not_a_price_is_refused(text: str) -> None:
    with pytest.raises(SearchSpaceError, match="Write"):
        parse_prices([text])


def test_a_users_catalogue_is_checked_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("skus: {tpu: {vendor: G, usd_per_hr: 1, as_of: now, source: me}}")
    with pytest.raises(SearchSpaceError, match=r"skus\.tpu: usd_per_hr: unknown key .*Did you mean 'usd_per_hour'"):
        load_skus(path)


def test_a_private_catalogue_adds_to_the_shipped_one_and_prices_go_over_both(tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text("skus: {rack: {vendor: us, memory_gib: 96, usd_per_hour: 1.2, as_of: '2026-11', source: contract}}")
    skus = load_all_skus([path], {"rack": 1.0, "h200_sxm": 3.0})
    assert (skus["rack"].usd_per_hour, skus["h200"].usd_per_hour) == (1.0, 3.0)
    assert "h100_sxm" in skus


def test_the_silicon_datas_names_are_understood() -> None:
    assert find_sku(load_skus(), "a100_sxm").name == "a100_80g"


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("h100sxm", "h100_sxm"),
        ("H100-SXM", "h100_sxm"),
        ("H100 SXM5", "h100_sxm"),
        ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("NVIDIA H100 PCIe", "h100_pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100_80g"),
        ("a100-80gb", "a100_80g"),
        ("H200", "h200"),
        ("h200-sxm", "h200"),
        ("L40S", "l40s"),
        ("AMD Instinct MI300X", "mi300x"),
    ],
)
def test_common_spellings_are_understood(spelling: str, name: str) -> None:
    assert find_sku(load_skus(), spelling).name == name


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("h100", "Did you mean 'h100_pcie' or 'h100_sxm'?"),
        ("A100", "Did you mean 'a100_80g'?"),
        ("mi300", "Did you mean 'mi300x'?"),
        ("tpu", "Known are: a100_80g, b200"),
        ("", "Known are: a100_80g, b200"),
    ],
)
def test_a_name_that_could_be_several_or_none_is_told_what_there_is(spelling: str, words: str) -> None:
    with pytest.raises(SearchSpaceError) as error:
        find_sku(load_skus(), spelling)
    assert words in str(error.value)


def test_no_two_skus_share_a_spelling() -> None:
    skus = load_skus()
    for sku in skus.values():
        for name in (sku.name, sku.silicon, *sku.aliases):
            assert name is None or find_sku(skus, name.upper()).name == sku.name
