"""``python -m samconvex``: the same as the command ``samconvex``."""

import sys

from .cli import main

sys.exit(main())
