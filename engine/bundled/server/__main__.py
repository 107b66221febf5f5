"""`python -m engine.bundled.server`."""

import os
import sys

from engine.bundled.server.command import main

if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # tearing torch down takes longer than serving a request, and frees nothing the kernel does not
