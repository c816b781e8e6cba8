"""`python -m rebound`: the same as the command `rebound`."""

import sys

from rebound.cli.main import main

sys.exit(main())
