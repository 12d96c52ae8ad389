"""``python -m samconvex``: the same as the command ``samconvex``."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
