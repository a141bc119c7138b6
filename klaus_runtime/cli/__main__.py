"""`python -m klaus_runtime.cli` is `klaus`."""

import sys

from klaus_runtime.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
