"""`python -m buttress` is `buttress`."""

import sys

from buttress.cli import main

if __name__ == "__main__":
    sys.exit(main())
