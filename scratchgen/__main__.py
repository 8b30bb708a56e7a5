"""`python -m scratchgen`: the command line, see `scratchgen.report.cli`."""

import sys

from scratchgen.report.cli import main

if __name__ == "__main__":
    sys.exit(main())
