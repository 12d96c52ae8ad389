"""``samconvex evaluate``: the figures of a registration's report for any transform file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..io.outputs import check_output_file, output_file
from ..io.points import read_points
from .console import ConsoleProgress, loud_verdict
from .options import add_progress

if TYPE_CHECKING:
    from ..registration.measure import Truth
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
    parser.add_argument(
        "--error",
        metavar="F",
        help="expected error that register wrote, error.nii.gz; compared with the truth that points and labels tell",
    )
    parser.add_argument("-o", "--output", metavar="REPORT", help="also write the figures to this .json file")
    add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Print the figures and write them where asked."""
    from ..errors import InputError

    for kind in ("labels", "points"):
        given = [getattr(args, f"{side}_{kind}") for side in ("fixed", "moving")]
        if bool(given[0]) != bool(given[1]):
            raise InputError(f"--fixed-{kind} and --moving-{kind} belong together; give both or none.")
    if args.error and not (args.fixed_labels or args.fixed_points):
        raise InputError("--error needs a truth to be compared with; give labels or points of both images too.")
    sources = [
        args.fixed,
        args.moving,
        args.transform,
        args.fixed_labels,
        args.moving_labels,
        args.fixed_points,
        args.moving_points,
        args.error,
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
    bound = _bound(args.error, fixed) if args.error else None
    progress("measure", 0.0)
    notes = [note for note in warnings if note]
    body = _body(fixed, notes)
    jacobian = _jacobian(transform, fixed)
    progress("measure", 0.2)
    truth = Truth(fixed_labels, moving_labels, fixed_points, moving_points)
    maps = Maps(Transform(), transform, transform.inverse(), jacobian)
    measured = measure(fixed, moving, maps, body, truth, notes, stage(progress, "measure", 0.2, 0.7))
    further: dict[str, Any] = {
        "transform": {"path": str(args.transform), "sha256": file_sha256(args.transform)},
        "verdict": judged(fixed, moving, maps, body, measured, stage(progress, "measure", 0.7, 1.0)),
    }
    if bound is not None:
        further["bound_against_truth"] = compared(bound, transform, truth)
    return build_report(version=__version__, fixed=fixed, moving=moving, warnings=notes, further=further, **measured)


def _bound(path: str, fixed: Volume) -> Volume:
    """The expected error of a file.

    Raises:
        InputError: unreadable, values that are no distances, or of another place than the fixed image.
    """
    from ..errors import InputError
    from ..io.images import read_volume

    bound = read_volume(path)
    if not bool((bound.tensor >= 0).all()):
        raise InputError(f"{path} holds values below 0, which no error in mm has; give the error.nii.gz of register.")
    if not bound.grid.contains(fixed.grid.center[None])[0]:
        raise InputError(f"{path} lies elsewhere than {fixed.name}; give the error.nii.gz of this registration.")
    return bound


def compared(bound: Volume, transform: Transform, truth: Truth) -> dict[str, Any]:
    """How the bound of (N,) errors stands to what points and the surfaces of labels tell of them, each by itself."""
    from ..registration.expected_error import error_at
    from ..report import metrics

    known = {}
    if truth.fixed_points is not None and truth.moving_points is not None:
        errors = metrics.target_registration_error(transform, truth.fixed_points, truth.moving_points)
        known["points"] = (truth.fixed_points, errors)
    if truth.fixed_labels is not None and truth.moving_labels is not None:
        places, errors, _ = metrics.surface_errors(transform, truth.fixed_labels, truth.moving_labels)
        known["surfaces"] = (places, errors)
    record = {}
    for kind, (places, errors) in known.items():
        if len(errors):
            bounds = error_at(bound, places)
            record[kind] = {
                "coverage_percent": metrics.coverage_percent(bounds, errors),
                "rank_correlation": metrics.rank_correlation(bounds, errors),
                "mean_bound_mm": float(bounds.mean()),
                "mean_error_mm": float(errors.mean()),
                "n": len(errors),
            }
    return record


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
    for kind, figures in report.get("bound_against_truth", {}).items():
        rank = figures.get("rank_correlation")
        lines.append(
            f"Expected error, {kind:<8}{figures['coverage_percent']:>9.1f} % of {figures['n']} errors are below it "
            f"(mean {figures['mean_bound_mm']:.2f} mm)" + ("" if rank is None else f", rank correlation {rank:.2f}")
        )
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
