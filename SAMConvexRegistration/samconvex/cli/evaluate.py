"""``samconvex evaluate``: the figures of a registration's report for any transform file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..io.outputs import check_output_file, output_file
from ..io.points import read_points
from .console import ConsoleProgress, loud_verdict
from .options import add_progress

if TYPE_CHECKING:
    from ..space.transforms import Transform
    from ..space.volume import Volume

EXPLANATION = """
Measure how good a transform is: label overlap (Dice), landmark error, folding, regularity and inverse consistency.
TRANSFORM maps points of FIXED to MOVING (LPS mm), as ITK transforms from this and other registration tools do.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = EXPLANATION.strip()
    parser.add_argument("--fixed", metavar="F", required=True, help="fixed image")
    parser.add_argument("--moving", metavar="M", required=True, help="moving image")
    parser.add_argument(
        "--transform", metavar="T", required=True, help="ITK transform (.h5, .tfm, .txt) or field image"
    )
    parser.add_argument("--fixed-labels", metavar="F", help="label map of the fixed image")
    parser.add_argument("--moving-labels", metavar="F", help="label map of the moving image")
    parser.add_argument("--fixed-points", metavar="F", help="points of the fixed image")
    parser.add_argument("--moving-points", metavar="F", help="corresponding points of the moving image")
    parser.add_argument("-o", "--output", metavar="REPORT", help="also write the figures to this .json file")
    add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Print the figures and write them where asked."""
    from ..errors import InputError

    for kind in ("labels", "points"):
        given = [getattr(args, f"{side}_{kind}") for side in ("fixed", "moving")]
        if bool(given[0]) != bool(given[1]):
            raise InputError(f"--fixed-{kind} and --moving-{kind} belong together; give both or none.")
    sources = [
        args.fixed,
        args.moving,
        args.transform,
        args.fixed_labels,
        args.moving_labels,
        args.fixed_points,
        args.moving_points,
    ]
    if args.output:
        check_output_file(args.output, inputs=sources)
    progress = ConsoleProgress(args.progress, [("read", 0.3), ("measure", 0.7)], args.cancelled)
    report = _evaluate(args, progress)
    if args.output:
        from ..report.document import save_report

        with output_file(args.output) as path:
            save_report(report, path)
    progress.finish()
    if args.progress != "json":
        print("\n".join(table(report)))
    return 0


def _evaluate(args: argparse.Namespace, progress: ConsoleProgress) -> dict[str, Any]:
    from ..io.checks import grid_note, outside_note, paired
    from ..io.files import file_sha256
    from ..io.images import read_labels, read_volume
    from ..progress import stage
    from ..registration.evidence import judged
    from ..registration.finish import Maps
    from ..registration.measure import Truth, measure
    from ..report.document import build_report
    from ..space.transforms import Transform
    from ..version import __version__

    progress("read", 0.0)
    fixed, moving = read_volume(args.fixed), read_volume(args.moving)
    transform = Transform.load(args.transform, fixed.grid)
    progress("read", 0.5)
    warnings: list[str | None] = [*fixed.notes, *moving.notes, *transform.notes]
    fixed_labels = moving_labels = fixed_points = moving_points = None
    if args.fixed_labels:
        fixed_labels, moving_labels = read_labels(args.fixed_labels), read_labels(args.moving_labels)
        warnings += [*fixed_labels.notes, *moving_labels.notes]
        warnings += [grid_note(fixed_labels, fixed), grid_note(moving_labels, moving)]
    if args.fixed_points:
        lists = (read_points(args.fixed_points, fixed.grid), read_points(args.moving_points, moving.grid))
        fixed_points, moving_points = paired(*lists)
        for listed, image in zip(lists, (fixed, moving), strict=True):
            warnings.append(outside_note(listed.positions[listed.defined], image.grid, image.name))
    progress("measure", 0.0)
    notes = [note for note in warnings if note]
    body = _body(fixed, notes)
    jacobian = _jacobian(transform, fixed)
    progress("measure", 0.2)
    maps = Maps(Transform(), transform, transform.inverse(), jacobian)
    measured = measure(
        fixed,
        moving,
        maps,
        body,
        Truth(fixed_labels, moving_labels, fixed_points, moving_points),
        notes,
        stage(progress, "measure", 0.2, 0.7),
    )
    further = {
        "transform": {"path": str(args.transform), "sha256": file_sha256(args.transform)},
        "verdict": judged(fixed, moving, maps, body, measured, stage(progress, "measure", 0.7, 1.0)),
    }
    return build_report(version=__version__, fixed=fixed, moving=moving, warnings=notes, further=further, **measured)


def _body(fixed: Volume, notes: list[str]) -> Volume:
    """The body, or the whole image where none can be told apart."""
    import torch

    from ..anatomy.body import body_mask
    from ..errors import InputError

    try:
        return body_mask(fixed)
    except InputError:
        notes.append(f"No body was found in {fixed.name}; folding and consistency are those of the whole image.")
        grid = fixed.grid.canonical(4.0)
        return fixed.with_tensor(torch.ones(1, 1, *grid.shape, dtype=torch.uint8), grid)


def _jacobian(transform: Transform, fixed: Volume) -> Volume | None:
    """Volume ratio of the deformation, without a linear part where that stands apart; None for linear transforms."""
    from ..space.field import DisplacementField
    from ..space.transforms import AffineTransform
    from ..space.volume import Volume

    fields = [part for part in transform.parts if not isinstance(part, AffineTransform)]
    if not fields:
        return None
    field = fields[0]
    if len(fields) > 1 or not isinstance(field, DisplacementField):
        field = transform.displacement_field(fixed.grid.canonical(4.0))
    return Volume(field.jacobian_determinant(), field.grid)


def table(report: dict[str, Any]) -> list[str]:
    """The figures as lines of text."""
    lines = []
    dice = report.get("dice")
    if dice:
        lines.append(f"{'Dice':<24}{'before':>10}{'after':>10}")
        for label in dice["final"]:
            lines.append(f"  label {label:<16}{dice['initial'].get(label, 0.0):>10.3f}{dice['final'][label]:>10.3f}")
        lines.append(f"  {'mean':<22}{dice['initial_mean']:>10.3f}{dice['final_mean']:>10.3f}")
    tre = report.get("tre_mm")
    if tre:
        lines.append(f"{'Point error, mm':<24}{'before':>10}{'after':>10}   ({tre['n']} points)")
        lines += [f"  {key:<22}{tre['initial'][key]:>10.2f}{tre['final'][key]:>10.2f}" for key in tre["final"]]
    for key, name, digits in (
        ("folding_percent", "Folding, % of voxels", 3),
        ("sdlogj", "SDlogJ", 3),
        ("sdlogj_learn2reg", "SDlogJ (Learn2Reg)", 3),
    ):
        if key in report:
            lines.append(f"{name:<24}{report[key]:>10.{digits}f}")
    inverse = report.get("inverse_consistency_mm")
    if inverse:
        lines.append(f"{'Inverse consistency':<24}{inverse['mean']:>10.3f} mm mean, {inverse['max']:.3f} mm at most")
    lines += [f"Note: {warning}" for warning in report["warnings"]]
    return lines + ([loud_verdict(report["verdict"])] if "verdict" in report else [])
