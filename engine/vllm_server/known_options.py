"""`KnownOptions`: which options an installed vLLM has, and what speaks against options it was not made for.

Does not run vLLM: the list is what its own parser said (`parser_probe.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from engine.backend import FailureKind, Refusal

_INT4_ON_CPU = "cpu_gemm_wna16"
_FP8_KV_ON_CPU = "cpu_attention_fp8"
_SUFFIX_MODULE = "arctic_inference"
_SUFFIX_PACKAGE = "arctic-inference"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Option(_Frozen):
    """A `flag` takes no value; a `switch` none either, and has a `no-` spelling; a `list` takes several."""

    kind: Literal["int", "float", "flag", "switch", "list", "any"]
    choices: tuple[str | int, ...] | None = None


class KnownOptions(_Frozen):
    """What one vLLM version takes on this machine."""

    version: str
    device: str  # `cpu`, `cuda`, ...
    options: dict[str, Option]
    speculative_methods: tuple[str, ...]
    modules: tuple[str, ...] = ()  # optional packages its environment has
    kernels: tuple[str, ...] = ()  # of those that some builds lack

    def refusals(self, options: Mapping[str, Any]) -> list[Refusal]:
        """Why this version would not start with these long options (`vllm_options`)."""
        reasons = [reason for name, value in options.items() for reason in self._against(name, value)]
        speculation = options.get("speculative-config")
        if isinstance(speculation, Mapping):
            reasons += self._against_method(str(speculation.get("method")))
        return [Refusal(reason=f"{self.title} {reason}", kind=FailureKind.UNSUPPORTED) for reason in reasons]

    @property
    def has_suffix_decoding(self) -> bool:
        """Whether the method is there and the package that it needs."""
        return "suffix" in self.speculative_methods and _SUFFIX_MODULE in self.modules

    @property
    def has_int4(self) -> bool:
        """Whether 4-bit integer weights run: on a CPU they need AVX-512."""
        return self.device != "cpu" or _INT4_ON_CPU in self.kernels

    @property
    def has_fp8_kv_cache(self) -> bool:
        """Whether the KV cache can be fp8: on a CPU that needs AVX-512 or AMX."""
        return self.device != "cpu" or _FP8_KV_ON_CPU in self.kernels

    @property
    def title(self) -> str:
        """`vLLM 0.32.0`."""
        return f"vLLM {self.version}"

    def _against(self, name: str, value: Any) -> Iterator[str]:
        is_off = name.startswith("no-") and name.removeprefix("no-") in self.options
        option = self.options.get(name.removeprefix("no-") if is_off else name)
        if option is None:
            close = get_close_matches(name, self.options, n=1)
            hint = f"Did you mean --{close[0]}?" if close else "See vllm serve --help=all for those it has"
            yield f"(this installation) has no option --{name}. {hint}"
        elif is_off and option.kind != "switch":
            yield f"cannot switch --{name.removeprefix('no-')} off. Leave it out"
        else:
            yield from _against_value(name, option, value)

    def _against_method(self, method: str) -> Iterator[str]:
        if method not in self.speculative_methods:
            close = get_close_matches(method, self.speculative_methods, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"It has: {', '.join(self.speculative_methods)}"
            yield f"has no speculative method {method}. {hint}"
        elif method == "suffix" and _SUFFIX_MODULE not in self.modules:
            yield f"needs the package {_SUFFIX_PACKAGE} for suffix decoding. Install it beside vLLM"


def _against_value(name: str, option: Option, value: Any) -> Iterator[str]:
    if option.kind in ("flag", "switch") and value is not True:
        yield f"takes no value for --{name}: it is a switch. Give true or false"
    values = value if option.kind == "list" and isinstance(value, list) else [value]
    if option.choices and (odd := [v for v in values if str(v) not in map(str, option.choices)]):
        yield f"takes no {odd[0]!r} for --{name}. It takes: {', '.join(map(str, option.choices))}"
    elif option.kind in ("int", "float") and not _is_number(value, option.kind):
        yield f"wants {'a whole number' if option.kind == 'int' else 'a number'} for --{name}, not {value!r}"


def _is_number(value: Any, kind: str) -> bool:
    """Text is left to vLLM, which reads `1k` and `auto`."""
    if isinstance(value, bool):
        return False
    return isinstance(value, str | int) or (kind == "float" and isinstance(value, float))
