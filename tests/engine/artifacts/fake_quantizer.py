"""A stand-in for the Python that has llm-compressor: answers its version and does what `behave` says."""

import json
import os
import sys
from pathlib import Path

PROGRAM = """#!{python}
import json, os, shutil, sys, time
from pathlib import Path

here = Path(__file__).parent
if "-c" in sys.argv:
    print((here / "versions").read_text())
    sys.exit()
job = json.loads(Path(sys.argv[-1]).read_text())
with (here / "builds").open("a") as builds:
    builds.write(str(os.getpid()) + "\\n")
behaviour = (here / "behaviour").read_text()
if job["calibration"]:
    shutil.copyfile(job["calibration"], here / "calibration")
print("words of a library", flush=True)
print(json.dumps({{"event": "progress", "phase": "quantizing"}}), flush=True)
if behaviour.startswith("fail "):
    print(json.dumps({{"event": "failed", "kind": behaviour.split()[1], "message": "no such thing"}}), flush=True)
    sys.exit(1)
if behaviour == "killed":
    os.kill(os.getpid(), 9)
if behaviour == "speechless":
    print("its last words")
    sys.exit(3)
output = Path(job["output"])
output.mkdir()
(output / "half.safetensors").write_bytes(b"half")
while behaviour == "wait" and not (here / "go").exists():
    time.sleep(0.01)
(output / "half.safetensors").rename(output / "model.safetensors")
(output / "model.safetensors").write_bytes(json.dumps([job["modifiers"], behaviour]).encode())
(output / "config.json").write_text(json.dumps({{"quantization_config": job["modifiers"]}}))
print(json.dumps({{"event": "done"}}), flush=True)
"""


class FakeQuantizer:
    """`python` goes where an interpreter's path goes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.python = str(folder / "python")
        Path(self.python).write_text(PROGRAM.format(python=sys.executable))
        os.chmod(self.python, 0o755)
        self.installed(llmcompressor="9.9.9")
        self.behave("build")

    def installed(self, **versions: str) -> None:
        """What it says of its packages; asked once a process."""
        (self.folder / "versions").write_text(json.dumps(versions))

    def behave(self, behaviour: str) -> None:
        """`build`, `build otherwise` (other weights), `wait` (until `go`), `fail KIND`, `killed`, `speechless`."""
        (self.folder / "behaviour").write_text(behaviour)

    def go(self) -> None:
        (self.folder / "go").touch()

    @property
    def calibration(self) -> str:
        """What the last build was calibrated with."""
        return (self.folder / "calibration").read_text()

    @property
    def builds(self) -> list[int]:
        """Process ids of the builds that were begun."""
        path = self.folder / "builds"
        return [int(line) for line in path.read_text().split()] if path.exists() else []
