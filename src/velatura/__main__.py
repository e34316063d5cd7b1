"""``python -m velatura``: the same as ``velatura``."""

import sys

from velatura.cli import main

if __name__ == "__main__":
    sys.exit(main())
