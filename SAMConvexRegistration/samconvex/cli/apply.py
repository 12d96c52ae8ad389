"""``samconvex apply``: carry an image, a label map or points through a transform file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from ..io.outputs import check_output_file, output_file
from ..io.points import check_writable_ending, is_point_file, read_points, write_points
from .console import ConsoleProgress, say_notes
from .options import add_progress

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".img", ".gipl", ".vtk")

EXPLANATION = """
Carry an image, a label map or points through a transform.

A transform maps points of the fixed image to the moving image. Therefore
  an image or label map of the moving patient is pulled onto the grid of --like (the fixed image);
  points of the moving patient are carried to the fixed image by the inverse of the transform.
--inverse does the other direction for both: images and points of the fixed patient go to the moving one, and --like
then is the moving image. 'apply transform.h5 X --inverse' and 'apply inverse.h5 X' are the same.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = EXPLANATION.strip()
    parser.add_argument("transform", metavar="TRANSFORM", help="ITK transform (.h5, .tfm, .txt) or displacement field")
    parser.add_argument("input", metavar="INPUT", help="image or DICOM folder; points: .csv .mrk.json .fcsv .txt .pts")
    parser.add_argument("--like", metavar="IMAGE", help="image whose grid the result gets; needed except for points")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="file to write (replaced if it exists)")
    parser.add_argument("--inverse", action="store_true", help="carry from the fixed to the moving patient instead")
    parser.add_argument("--labels", action="store_true", help="INPUT is a label map: values are kept, never mixed")
    add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Carry what ``args.input`` holds and write ``args.output``."""
    points = is_point_file(args.input)
    if points and args.labels:
        raise InputError(f"{args.input} holds points; leave --labels out.")
    if not points and args.like is None:
        raise InputError("--like is missing; name the image whose grid the result gets.")
    if points:
        check_writable_ending(args.output)
    elif not args.output.lower().endswith(IMAGE_ENDINGS):
        raise InputError(f"{args.output}: unknown image format; use .nii.gz, .nrrd or .mha.")
    inputs = (args.transform, args.input, args.like)
    check_output_file(args.output, inputs=inputs)
    progress = ConsoleProgress(args.progress, [("read", 0.2), ("warp", 0.6), ("write", 0.2)], args.cancelled)
    warnings = _carry_points(args, progress) if points else _carry_image(args, progress)
    progress.finish()
    say_notes(warnings)
    return 0


def _carry_points(args: argparse.Namespace, progress: ConsoleProgress) -> list[str]:
    from ..io.checks import outside_note
    from ..io.images import read_grid_and_notes
    from ..space.transforms import Transform

    progress("read", 0.0)
    like, notes = read_grid_and_notes(args.like) if args.like else (None, ())
    points = read_points(args.input)
    transform = Transform.load(args.transform, like)
    progress("warp", 0.0)
    # Points of the moving patient go against the transform's own direction.
    carry = transform if args.inverse else transform.inverse()
    defined = points.defined
    positions = points.positions.copy()
    positions[defined] = carry.map_points(positions[defined])
    progress("write", 0.0)
    carried = points.with_positions(positions)
    with output_file(args.output) as path:
        write_points(carried, path)
    outside = outside_note(positions[defined], like, args.like) if like else None
    return [*notes, *transform.notes, *points.notes, *([outside] if outside else [])]


_MIXED = "interpolation mixed them into values between; use --labels if it is one"


def _carry_image(args: argparse.Namespace, progress: ConsoleProgress) -> list[str]:
    from ..io.checks import labels_note
    from ..io.images import check_format, read_grid_and_notes, read_labels, read_volume, write_volume
    from ..progress import stage
    from ..space.transforms import Transform

    progress("read", 0.0)
    grid, like_notes = read_grid_and_notes(args.like)
    transform = Transform.load(args.transform, grid)
    notes = [*like_notes, *transform.notes]
    progress("read", 0.3)
    volume = read_labels(args.input) if args.labels else read_volume(args.input)
    check_format(args.output, grid, volume.pixel_id)
    notes += volume.notes
    needed = grid.voxel_count * volume.tensor.element_size()
    check_output_file(args.output, needed_bytes=needed, inputs=(args.transform, args.input, args.like))
    transform = transform.inverse() if args.inverse else transform
    carry = transform.warp_labels if args.labels else transform.warp_volume
    warped = carry(volume, grid, report=stage(progress, "warp"))
    progress("write", 0.0)
    with output_file(args.output) as path:
        write_volume(warped, path)
    if bool((warped.tensor == (0 if args.labels else volume.background)).all()):
        notes.append(f"{Path(args.output).name} is empty: this transform does not bring {args.input} onto {args.like}.")
    note = None if args.labels else labels_note(volume, _MIXED)
    return notes + ([note] if note else [])
