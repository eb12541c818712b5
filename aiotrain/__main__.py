"""python -m aiotrain: the command line."""

import sys

from aiotrain.cli import main

sys.exit(main())
