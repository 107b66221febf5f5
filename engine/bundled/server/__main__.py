"""`python -m engine.bundled.server`."""

import sys

from engine.bundled.server.command import main

if __name__ == "__main__":
    sys.exit(main())
