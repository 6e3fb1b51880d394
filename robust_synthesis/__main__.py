"""`python -m robust_synthesis`, which is also what torchrun starts."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
