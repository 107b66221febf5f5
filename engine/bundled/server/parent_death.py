"""Linux's parent-death signal: no engine outlives the process that started it, even after SIGKILL.

Does not know who the parent is beyond its process id.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def signal_on_parent_death(number: signal.Signals, *, parent_pid: int) -> None:
    """Ask the kernel for `number` when the parent ends; raised at once when it has ended already.

    The kernel watches the *thread* that started us: spawn from one that lives as long as the process.
    Where there is no such call (not Linux) this does nothing.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "prctl"):
        return
    if libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), number)
