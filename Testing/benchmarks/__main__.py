"""``python -m benchmarks [--suite NAME] ...``: further arguments go to the suite."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from . import publish

SUITES = (
    "registration",
    "landmarks",
    "tracking",
    "xray",
    "multimodal",
    "ablation",
    "robustness",
    "scaling",
    "landscapes",
    "surfaces",
    "publish",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen suite's ``main``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="samconvex benchmark", add_help=False)
    parser.add_argument("--suite", choices=SUITES, default="registration")
    chosen, others = parser.parse_known_args(words)
    if others and others[0] in ("-h", "--help"):
        print(f"--suite {{{','.join(SUITES)}}} (default registration), then the arguments of the suite:\n")
    if chosen.suite == "publish":
        return publish.main(others)
    suite = importlib.import_module(f"benchmarks.suites.{chosen.suite}")
    # The page is made of several suites' records: a suite does not know how, it is handed the way.
    return suite.main(others, publish.publish) if chosen.suite in publish.SECTIONS else suite.main(others)


if __name__ == "__main__":
    raise SystemExit(main())
