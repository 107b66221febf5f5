"""A script for vLLM's own Python: prints, as JSON on the last line, which `vllm serve` options this version has,
and which kernels there are for this machine.

Runs outside our package and imports nothing of it: vLLM's environment need not have us.
"""

import argparse
import importlib.util
import json
import sys
import typing
from pathlib import Path

# The script's folder must not lend its module names to vLLM's imports.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

KERNELS = ("cpu_gemm_wna16",)  # of 4-bit weights on CPUs; builds for AVX2 lack it
FP8_ATTENTION = "cpu_attention_fp8"  # our name for attention over an fp8 KV cache, which vLLM refuses on other CPUs
MODULES = ("arctic_inference", "triton", "ray")
KINDS = {"int": "int", "human_readable_int": "int", "human_readable_int_or_auto": "int", "float": "float"}


def main() -> None:
    """Ask the parser; two imports, as the parser's module moved between versions."""
    import vllm
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    try:
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
    except ImportError:
        from vllm.entrypoints.openai.cli_args import make_arg_parser
    parser = make_arg_parser(FlexibleArgumentParser(prog="vllm serve"))
    print(
        json.dumps(
            {
                "version": vllm.__version__,
                "device": device_type(),
                "options": {name: described for action in parser._actions for name, described in options_of(action)},
                "speculative_methods": speculative_methods(),
                "kernels": kernels(),
                "modules": [name for name in MODULES if importlib.util.find_spec(name)],
            }
        )
    )


def options_of(action: argparse.Action) -> list[tuple[str, dict[str, object]]]:
    """(long name, {kind, choices}) of each spelling; a switch's `no-` spelling is not listed."""
    is_switch = isinstance(action, argparse.BooleanOptionalAction)
    names = [flag[2:].replace("_", "-") for flag in action.option_strings if flag.startswith("--")]
    if is_switch:
        names = [name for name in names if not name.startswith("no-")]
        kind = "switch"
    elif action.nargs == 0:
        kind = "flag"
    elif action.nargs in ("+", "*"):
        kind = "list"
    else:
        kind = KINDS.get(getattr(action.type, "__name__", ""), "any")
    choices = [choice for choice in action.choices if choice is not None] if action.choices else None
    return [(name, {"kind": kind, "choices": choices}) for name in names]


def speculative_methods() -> list[str]:
    """Every method that the speculative config names, its nested literals flattened."""
    from vllm.config import speculative

    def flatten(literal: object) -> list[str]:
        if isinstance(literal, str):
            return [literal]
        return [name for part in typing.get_args(literal) for name in flatten(part)]

    return sorted(set(flatten(speculative.SpeculativeMethod)))


def device_type() -> str:
    """`cuda`, `cpu`, ..."""
    from vllm.platforms import current_platform

    return str(current_platform.device_type)


def kernels() -> list[str]:
    """Those of `KERNELS` that are here, which for CPUs depends on the machine's instructions."""
    from vllm import _custom_ops

    torch = _custom_ops.torch
    has_fp8_attention = torch.cpu._is_avx512_supported() or torch.cpu._is_amx_tile_supported()
    found = [name for name in KERNELS if hasattr(torch.ops._C, name)]
    return found + [FP8_ATTENTION] * has_fp8_attention


if __name__ == "__main__":
    main()
