"""``samconvex commission``: known deformations run through this installation, judged against limits."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..errors import CHECK_FAILED
from ..io.outputs import check_output_folder, output_folder
from .console import ConsoleProgress
from .options import add_machine, add_progress

NAMES = ("commission.json", "commission.png")

EXPLANATION = """
Test this installation: known deformations of an invented chest (shift, rotation, scale, oblique grids, breaths,
sliding, other contrast, noise and partial view) are registered on this computer, and the result is compared with the
truth: ten are judged, two more (another shape, the deepest breath) are told. No data are needed.
Written into OUTDIR, all at once at the end:
  commission.json   every figure, limit and verdict, with date, version, device, computer and checksums of the weights
  commission.png    the same on one page
Exit status: 0 where all tests passed, 5 where one failed (the results are written in both cases).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = EXPLANATION.strip()
    parser.add_argument("output", metavar="OUTDIR", help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results; other files there are kept")
    parser.add_argument("--quick", action="store_true", help="four of the tests on coarser images")
    add_machine(parser)
    add_progress(parser)


def run(args: argparse.Namespace, register: Callable[..., Any] | None = None, **fewer: Any) -> int:
    """Test, write, print; ``register`` and ``fewer`` replace the engine's and the tests' in tests."""
    check_output_folder(args.output, names=NAMES, overwrite=args.overwrite)
    from ..commissioning.page import commission_page
    from ..commissioning.run import chosen_cases, commission
    from ..registration.register import register as engine
    from ..report.document import save_report
    from ..report.picture import write_picture

    plan = [("draw", 1.0), *((case.name, 4.0) for case in chosen_cases(args.quick)), ("write", 0.5)]
    progress = ConsoleProgress(args.progress, plan, args.cancelled)
    document = commission(
        register or engine, quick=args.quick, device=args.device, threads=args.threads, progress=progress, **fewer
    )
    progress("write", 0.0)
    with output_folder(args.output, overwrite=args.overwrite) as folder:
        save_report(document, folder / NAMES[0])
        write_picture(commission_page(document), folder / NAMES[1])
    progress.finish(str(args.output))
    if args.progress != "json":
        print("\n".join(table(document, args.output)))
    return 0 if document["passed"] else CHECK_FAILED


def table(document: dict[str, Any], folder: str) -> list[str]:
    """The lines a person reads at the end."""
    from ..commissioning.page import outcome

    lines = [f"{'Test':<22}{'mean':>8}{'95 %':>8}{'max':>8}  mm", "-" * 56]
    for test in document["tests"]:
        error = test["error_mm"]
        figures = "".join(f"{error[key]:>8.2f}" for key in ("mean", "p95", "max"))
        lines.append(f"{test['title']:<22}{figures}      {outcome(test)}")
    lines += [f"  {failure}" for failure in document["failures"]]
    lines.append(f"Commissioning {document['verdict']} in {document['seconds']:.0f} s. Results are in {folder}.")
    return lines
