"""How many recorded requests name a LoRA adapter, how many go to it, and where that is told."""

from dataclasses import replace

import pytest
from traffic_cases import chats

from optimizer.adapter_use import AdapterUse, adapter_use
from workloads.workload import Workload


def naming(*adapters: str | None) -> Workload:
    plain = chats(len(adapters), rate_rps=10.0)
    requests = [replace(r, adapter=a) for r, a in zip(plain, adapters, strict=True)]
    return Workload.from_requests(requests, plain.metadata)


def test_requests_are_counted_over_all_parts_of_the_recording() -> None:
    use = adapter_use([naming("a", "b", None), naming("b", "c")], {"a", "b", "base"})
    assert use == AdapterUse(num_requests=5, num_named=4, num_served=3, missing=("c",))


def test_a_workload_without_adapters_has_none() -> None:
    assert adapter_use([naming(None, None)], {"a"}) is None


@pytest.mark.parametrize(
    ("served", "words"),
    [
        ({"a", "b"}, "3 of 4 recorded requests name a LoRA adapter, and every one of them is served with it"),
        ({"a"}, "but only 1 of them are served with it: the server has no b, so the base model answers"),
        ((), "but none of them is served with it: the server has no b, a, so the base model answers. Give adapters"),
    ],
)
def test_the_sentence_says_who_answers(served: set[str], words: str) -> None:
    use = adapter_use([naming("a", "b", "b", None)], served)
    assert use is not None
    assert words in use.sentence()


def test_a_long_list_of_missing_adapters_is_cut() -> None:
    use = adapter_use([naming("a", "b", "c", "d", "e")], ())
    assert use is not None
    assert "no a, b, c and 2 more" in use.sentence()
