"""C code's prints do not reach standard output."""

import subprocess
import sys

PROGRAM = """
import ctypes
from optimizer.quiet_stdout import quiet_stdout
c = ctypes.CDLL(None)
c.puts(b"before")
with quiet_stdout():
    c.puts(b"noise")
c.puts(b"after")
c.fflush(None)
"""


def test_what_c_prints_inside_is_dropped_and_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["before", "after"]
