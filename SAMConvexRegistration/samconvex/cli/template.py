"""``samconvex template``: save an image's landmarks with its embedding, to be found in other images for years."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..io.outputs import check_output_folder
from ..io.points import POINT_ENDINGS, read_points
from .console import ConsoleProgress, say_notes

EXPLANATION = """
Embed IMAGE and save it with POINTS in the folder OUT. The folder then serves as TEMPLATE of "samconvex match"; it holds
no image, and with --reference the image's path and checksum.
"""


def add_template_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    from .options import add_device, add_progress, add_weights

    parser.description = EXPLANATION.strip()
    parser.add_argument("image", metavar="IMAGE", help="image that the points were placed in")
    parser.add_argument("points", metavar="POINTS", help="its points: " + ", ".join(POINT_ENDINGS))
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="folder of the template")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier template")
    parser.add_argument("--name", metavar="TEXT", help="name of the template (default: the folder's)")
    parser.add_argument("--description", metavar="TEXT", default="", help="what it is for")
    parser.add_argument(
        "--reference",
        metavar="FILE",
        nargs="?",
        const="",
        help="keep where the image lies (default: IMAGE), so that other weights can embed it again",
    )
    add_weights(parser)
    add_device(parser)
    add_progress(parser)


def run_template(args: argparse.Namespace) -> int:
    """Save a template as ``args`` say."""
    from ..landmarks.templates import DESCRIPTION_FILE, EMBEDDING_FILE, POINTS_FILE

    names = (DESCRIPTION_FILE, EMBEDDING_FILE, POINTS_FILE)
    check_output_folder(args.output, names=names, overwrite=args.overwrite, inputs=[args.image, args.points])

    from ..anatomy.cache import embed_cached
    from ..device import chosen_device
    from ..io.checks import check_inside
    from ..io.images import read_volume
    from ..landmarks.templates import save_template
    from ..weights.models import load_sam

    device = str(chosen_device(args.device))
    progress = ConsoleProgress(args.progress, (("read", 1.0), ("embedding", 8.0), ("write", 1.0)), args.cancelled)
    progress("read", 0.0)
    model = load_sam(args.weights)
    image = read_volume(args.image, slices=True)
    points = read_points(args.points, image.grid)
    check_inside(points, image.grid, str(args.image))
    embedding = embed_cached(image, model, device=device, progress=progress)
    progress("write", 0.0)
    reference = None if args.reference is None else Path(args.reference or args.image).absolute()
    save_template(
        args.output,
        args.name or Path(args.output).name,
        points,
        embedding,
        description=args.description,
        image=reference,
        overwrite=args.overwrite,
    )
    progress.finish(str(args.output))
    say_notes(image.notes)
    if args.progress != "json":
        print(f"{args.output}: template of {int(points.defined.sum())} points")
    return 0
