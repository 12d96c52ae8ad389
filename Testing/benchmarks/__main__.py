"""``python -m benchmarks [--suite NAME] ...``: further arguments go to the suite."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

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
    return importlib.import_module(f"benchmarks.{chosen.suite}").main(others)


if __name__ == "__main__":
    raise SystemExit(main())
