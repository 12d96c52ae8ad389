"""``samconvex atlas``: the mean image and mean shape of many images."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..io.outputs import check_output_folder, output_folder
from .console import ConsoleProgress
from .options import add_machine, add_progress, positive_float, positive_int

DOCUMENT = "atlas.json"
ALWAYS = ("template.nii.gz", "std.nii.gz", "coverage.nii.gz", DOCUMENT)

EXPLANATION = """
Mean image and mean shape of IMAGES, a CSV (or JSON) with the column image and, if wanted, mask, labels and name; one
image a row, or a 4D image whose frames count as images. Each round registers all images to the template, averages them
where they saw it, and takes the mean displacement out of the shape, so that none of them decides it.
Written into OUTDIR, all at once at the end:
  template.nii.gz      mean image, every voxel over those that saw it
  std.nii.gz           standard deviation;  coverage.nii.gz how many saw a voxel
  labels.nii.gz        the label that most give, if there are labels;  mask.nii.gz, if there are masks
  NAME-transform.h5    ITK transform of every image, template points to image points (LPS mm); NAME-inverse.h5 back
  atlas.json           settings, images, rounds, mean displacement at the end, sharpness, warnings
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = EXPLANATION.strip()
    parser.add_argument("images", metavar="IMAGES", help="CSV of the images: image[,mask][,labels][,name]")
    parser.add_argument("-o", "--output", metavar="OUTDIR", required=True, help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results; other files there are kept")
    method = parser.add_argument_group("method")
    method.add_argument("--iterations", type=positive_int, default=3, metavar="N", help="rounds (default: 3)")
    method.add_argument(
        "--preset", default="fast-preview", metavar="NAME", help="of the registrations (default: fast-preview)"
    )
    method.add_argument(
        "--affine",
        choices=("none", "moments", "sam"),
        default="sam",
        help="first alignment (default: sam, by embeddings where the images are CT)",
    )
    method.add_argument("--symmetric", action="store_true", default=None, help="register both ways, in twice the time")
    method.add_argument(
        "--spacing", type=positive_float, metavar="MM", help="of the template (default: that of the images)"
    )
    method.add_argument("--start", metavar="NAME", help="image to begin with (default: one of usual size)")
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--workers", type=positive_int, metavar="N", help="processes (default: what memory and cores allow)"
    )
    machine.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a running dask scheduler, such as tcp://host:8786, instead"
    )
    add_machine(machine)
    machine.add_argument("--seed", type=int, default=0, metavar="N", help="seed of every random choice (default: 0)")
    add_progress(machine)


def run(args: argparse.Namespace) -> int:
    """Check, build, write, print."""
    from ..settings.presets import get_settings
    from ..settings.registration import with_overrides

    settings = with_overrides(get_settings(args.preset), affine=args.affine, symmetric=args.symmetric)
    if args.workers and args.scheduler:
        raise InputError("--workers is for this machine, --scheduler for its own workers; give one of them.")
    check_output_folder(args.output, names=ALWAYS, overwrite=args.overwrite, inputs=[args.images])
    from ..atlas.build import AtlasSettings, build_atlas
    from ..atlas.subjects import SubjectFaults, read_subjects
    from ..atlas.workers import on_workers
    from ..cohort.manifest import fault_table

    options = {"device": args.device, "threads": args.threads, "seed": args.seed}
    how = AtlasSettings(settings, args.iterations, args.spacing, args.start, options)
    plan = [("read", 1.0), ("affine", 4.0), *((f"round {n + 1}", 8.0) for n in range(args.iterations)), ("maps", 2.0)]
    progress = ConsoleProgress(args.progress, plan, args.cancelled)
    try:
        subjects, faults = read_subjects(args.images)
        if faults:
            raise SubjectFaults(args.images, faults)
        names = _names(subjects)
        inputs = [path for each in subjects for path in (each.image, each.mask, each.labels)]
        check_output_folder(args.output, names=names, overwrite=args.overwrite, inputs=[args.images, *inputs])
        with (
            on_workers(args.workers, args.scheduler, _forecast_gib(settings, subjects), len(subjects)) as spread,
            output_folder(args.output, overwrite=args.overwrite, stale=_earlier(args.output)) as folder,
        ):
            document = _built(build_atlas, subjects, folder, how, progress, spread, args.images)
    except SubjectFaults as error:
        progress.clear()
        sys.stderr.write(fault_table(error.faults) + "\n")
        raise
    progress.finish(str(args.output))
    if args.progress != "json":
        print("\n".join(summary(document, args.output)))
    return 0


def _built(
    build: Any, subjects: list, folder: Path, how: Any, progress: ConsoleProgress, spread: Any, source: str
) -> dict[str, Any]:
    """Build into ``folder``; what passes between the rounds lies inside it, where every worker can write."""
    import shutil

    from ..report.document import plain, save_report

    scratch = folder / ".scratch"
    scratch.mkdir()
    document = build(subjects, folder, scratch, how, progress=progress, spread=spread, source=source)
    shutil.rmtree(scratch)
    document["outputs"] = sorted([*(path.name for path in folder.iterdir()), DOCUMENT])
    save_report(document, folder / DOCUMENT)
    return plain(document)


def _names(subjects: list) -> list[str]:
    """Every file that is written."""
    return [
        *ALWAYS,
        "labels.nii.gz",
        "mask.nii.gz",
        *(f"{subject.name}-{kind}.h5" for subject in subjects for kind in ("transform", "inverse")),
    ]


def _forecast_gib(settings: Any, subjects: list) -> float:
    """What the largest registration will hold."""
    from ..io.images import read_grid
    from ..registration.forecast import forecast

    # A 4D image has one grid for all of its frames, which its header tells as an image of more dimensions.
    grids = [read_grid(subject.image) for subject in subjects if subject.frame is None]
    largest = max(grids, key=lambda grid: grid.voxel_count, default=None)
    return 0.0 if largest is None else forecast(settings, largest, largest).memory_gib


def _earlier(folder: str) -> list[str]:
    """Results that an earlier atlas left in ``folder`` by its own document."""
    try:
        earlier = json.loads((Path(folder) / DOCUMENT).read_text(encoding="utf-8"))["outputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in earlier if Path(str(name)).name == name]


def summary(document: dict[str, Any], folder: str) -> list[str]:
    """The lines a person reads at the end."""
    drift, sharp = document["mean_displacement_mm"], document["sharpness_per_mm"]
    lines = [
        f"Mean of {len(document['images'])} images in {document['seconds']:.0f} s, from {document['started_from']}.",
        f"Mean displacement over the body: {drift['mean']:.4f} mm, {drift['max']:.4f} mm at most.",
        f"Sharpness (mean gradient): {sharp['template']:.2f} per mm, single images {sharp['images']:.2f}.",
    ]
    lines += [f"Note: {warning}" for warning in document["warnings"]]
    return [*lines, f"Results are in {folder}."]
