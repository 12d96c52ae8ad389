"""``samconvex benchmark``: runs the repository's benchmarks, which a pip installation does not contain."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from ..errors import InputError

EXPLANATION = """
Compare accuracy, time and memory with other registration tools. The benchmarks live in Testing/benchmarks of the
repository; further arguments go to them ('samconvex benchmark -- --help' lists them).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = EXPLANATION.strip()


def benchmarks_folder() -> Path:
    """``Testing/benchmarks`` of the checkout that this package belongs to, or of the current folder.

    Raises:
        InputError: there is none.
    """
    package = Path(__file__).resolve().parents[1]
    for root in (package.parents[1], Path.cwd(), *Path.cwd().parents):
        folder = root / "Testing" / "benchmarks"
        if (folder / "__main__.py").is_file():
            return folder
    raise InputError(
        "The benchmarks are not part of this installation; clone the repository and run 'make benchmark' there."
    )


def run(args: argparse.Namespace) -> int:
    """Run them in a process of their own, which a cancellation ends."""
    folder = benchmarks_folder()
    engine = str(Path(__file__).resolve().parents[2])
    paths = [str(folder.parent), engine, *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *args.arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    while True:
        try:
            return process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            if args.cancelled.is_set():
                return _stop(process)


def _stop(process: subprocess.Popen) -> int:
    from ..errors import Cancelled

    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
    raise Cancelled("Cancelled; finished benchmark results are kept.")
