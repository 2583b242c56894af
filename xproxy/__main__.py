"""The command ``xproxy`` and ``python -m xproxy``."""

import sys

from xproxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
