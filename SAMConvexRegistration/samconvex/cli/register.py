"""``samconvex register``: read, register, and write all results at once."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io.outputs import check_output_folder, output_folder
from ..io.points import PointSet, read_points, write_points
from ..settings.strength import MODES, QUALITIES
from .console import ConsoleProgress, loud_verdict
from .options import add_machine, add_progress, add_strength, add_weights, positive_float

if TYPE_CHECKING:
    from ..registration.register import RegistrationResult
    from ..space.volume import Volume

ALWAYS = ("transform.h5", "inverse.h5", "warped.nii.gz", "valid.nii.gz", "error.nii.gz", "report.json", "report.png")
LABELS, POINTS = "labels.nii.gz", "points.csv"
_LABELS_SHOWN = 10

# Files that may come with the two images, and all else that decides the result; by the names of the arguments.
FURTHER = (
    "moving_labels",
    "fixed_labels",
    "moving_points",
    "fixed_points",
    "initial_transform",
    "fixed_mask",
    "moving_mask",
    "protect",
)
OPTIONS = (
    "preset",
    "strength",
    "quality",
    "features",
    "affine",
    "coarse",
    "refine",
    "initial_network",
    "symmetric",
    "protect_mode",
    "weights",
    "device",
    "threads",
    "max_memory",
    "seed",
    "reproducible",
)

# Shares of the time, for the bar: seconds of the stages of a chest CT pair on two cores.
PLAN = (
    ("read", 2.0),
    ("prepare", 2.0),
    ("affine", 8.0),
    ("embedding", 3.0),
    ("coarse", 3.0),
    ("network", 3.0),
    ("convex", 10.0),
    ("refine", 10.0),
    ("finish", 2.0),
    ("error", 3.0),
    ("measure", 1.0),
    ("warp", 1.0),
    ("write", 3.0),
)

EXPLANATION = """
Align MOVING with FIXED and write into OUTDIR, all at once at the end:
  transform.h5    ITK transform, maps fixed points to moving points (LPS mm); inverse.h5 the other direction
  warped.nii.gz   MOVING on the grid of FIXED, pixel type kept
  valid.nii.gz    1 where MOVING really had data, 0 where warped.nii.gz is filled up
  error.nii.gz    expected error in mm, on the grid of the field: nine of ten errors are below it
  labels.nii.gz   the moving labels on the grid of FIXED, if --moving-labels is given
  points.csv      the moving points carried to FIXED, each with its error90_mm, if --moving-points is given
  report.json     settings, times, memory, quality;  report.png the same for the eye
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = EXPLANATION.strip()
    parser.add_argument("fixed", metavar="FIXED", help="image to align with: .nii.gz, .nrrd, .mha, DICOM folder")
    parser.add_argument("moving", metavar="MOVING", help="image that is moved")
    parser.add_argument("-o", "--output", metavar="OUTDIR", required=True, help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results; other files there are kept")

    method = parser.add_argument_group("method")
    method.add_argument(
        "--preset",
        default="ct-inter-patient",
        metavar="NAME",
        help="ct-inter-patient (default), fast-preview, ...; 'samconvex presets' lists them",
    )
    add_strength(method, "how freely neighbors may move apart: coupling and regularization times 4, 1 or 1/4")
    method.add_argument("--quality", choices=QUALITIES, default="standard", help="time against accuracy")
    method.add_argument(
        "--features", metavar="NAME", help="descriptor, such as mind or sam+mind (default: the preset's)"
    )
    method.add_argument("--affine", choices=("none", "moments", "sam"), help="first alignment (default: the preset's)")
    method.add_argument("--refine", choices=("none", "adam", "diffusion"), help="last step (default: the preset's)")
    method.add_argument(
        "--coarse",
        choices=("none", "sam"),
        help="sam: begin with a coarse field through points matched by embeddings (default: the preset's)",
    )
    method.add_argument(
        "--initial-network",
        metavar="NAME|FILE",
        help="weights of a network that predicts a field (LapIRN, SAM-VoxelMorph) to start levels and refinement from",
    )
    method.add_argument(
        "--symmetric",
        action="store_true",
        default=None,
        help="solve both directions: exchanging the images gives the inverse transform (twice the time)",
    )
    method.add_argument("--initial-transform", metavar="F", help="ITK transform to start from, fixed to moving")
    method.add_argument("--fixed-mask", metavar="F", help="only this region of FIXED counts")
    method.add_argument("--moving-mask", metavar="F", help="only this region of MOVING counts")
    method.add_argument(
        "--protect", metavar="F", help="label map on FIXED: bodies that must not be deformed, such as bone, lesions"
    )
    method.add_argument(
        "--protect-mode", choices=MODES, default="rigid", help="bodies stay rigid, or only keep their volume"
    )
    add_weights(method)

    carried = parser.add_argument_group("labels and points")
    carried.add_argument("--moving-labels", metavar="F", help="label map of MOVING, warped to FIXED")
    carried.add_argument("--fixed-labels", metavar="F", help="label map of FIXED, for the overlap in the report")
    carried.add_argument(
        "--moving-points", metavar="F", help="points of MOVING (.csv .mrk.json .fcsv .txt .pts), carried to FIXED"
    )
    carried.add_argument(
        "--fixed-points", metavar="F", help="corresponding points of FIXED, for the error in the report"
    )

    machine = parser.add_argument_group("machine")
    add_machine(machine)
    machine.add_argument(
        "--max-memory",
        type=positive_float,
        metavar="GIB",
        help="what may be held (default: what is free); smaller settings are taken where more is needed",
    )
    machine.add_argument("--seed", type=int, default=0, metavar="N", help="seed of every random choice (default: 0)")
    machine.add_argument(
        "--reproducible",
        action="store_true",
        help="the same bits for any --threads and any free memory, computed by one thread",
    )
    add_progress(machine)


def run(args: argparse.Namespace, register: Callable[..., RegistrationResult] | None = None) -> int:
    """Register as ``args`` say; ``register`` replaces the engine's in tests."""
    progress = ConsoleProgress(args.progress, PLAN, args.cancelled)
    report = perform(args, progress, register)
    progress.finish(str(args.output))
    if args.progress != "json":
        print("\n".join(summary(report, args.output)))
    return 0


def perform(
    args: argparse.Namespace, progress: ConsoleProgress, register: Callable[..., RegistrationResult] | None = None
) -> dict[str, Any]:
    """Read, register and write what ``args`` say; returns the report."""
    clock = _Clock()
    names = [*ALWAYS, *([LABELS] if args.moving_labels else []), *([POINTS] if args.moving_points else [])]
    sources = [getattr(args, name) for name in ("fixed", "moving", *FURTHER)]
    check_output_folder(args.output, names=names, overwrite=args.overwrite, inputs=sources)

    _check_names(args)
    _use_threads(args.threads)
    progress("read", 0.0)
    inputs = _Inputs.read(args, progress)
    check_output_folder(
        args.output, names=names, overwrite=args.overwrite, inputs=sources, needed_bytes=_expected_bytes(inputs)
    )
    clock.lap("read")
    result = (register or _engine())(
        inputs.fixed,
        inputs.moving,
        preset=args.preset,
        strength=args.strength,
        quality=args.quality,
        symmetric=args.symmetric,
        affine=args.affine,
        refine=args.refine,
        features=args.features,
        coarse=args.coarse,
        initial_network=args.initial_network,
        initial_transform=inputs.initial_transform,
        fixed_mask=inputs.fixed_mask,
        moving_mask=inputs.moving_mask,
        protect_mask=inputs.protect_mask,
        protect_mode=args.protect_mode,
        fixed_labels=inputs.fixed_labels,
        moving_labels=inputs.moving_labels,
        fixed_points=inputs.paired_fixed,
        moving_points=inputs.paired_moving,
        device=args.device,
        threads=args.threads,
        max_memory_gib=args.max_memory,
        seed=args.seed,
        progress=progress,
        tell=lambda sentence: _tell(sentence, progress),
        weights=args.weights,
        reproducible=args.reproducible,
    )
    clock.lap(None)
    if result.report.get("tier", "full") != "full":
        # On stderr too, for scripts that read no report.
        sys.stderr.write(next(w for w in result.report["warnings"] if f"tier '{result.report['tier']}'" in w) + "\n")
    with output_folder(args.output, overwrite=args.overwrite, stale=_earlier_results(args.output, sources)) as folder:
        return _write(folder, inputs, result, progress, clock, _asked(args))


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    """What ``samconvex verify`` needs to ask the same again: every option, and the files beside the two images."""
    from ..io.files import file_sha256

    given = {name: getattr(args, name) for name in FURTHER if getattr(args, name)}
    return {
        "options": {name: getattr(args, name) for name in OPTIONS},
        "files": {name: {"path": path, "sha256": file_sha256(path)} for name, path in given.items()},
    }


def _tell(sentence: str, progress: ConsoleProgress) -> None:
    """A warning that must not wait for the end."""
    progress.clear()
    sys.stderr.write(f"Warning: {sentence}\n")
    sys.stderr.flush()


def _engine() -> Callable[..., RegistrationResult]:
    from ..registration.register import register

    return register


class _Clock:
    """Seconds of what the command does around the registration itself."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._laps: dict[str, float] = {}

    def lap(self, name: str | None) -> None:
        """Book the time since the last lap under ``name``; None leaves it to the engine's own stages."""
        now = time.monotonic()
        if name is not None:
            self._laps[name] = now - self._last
        self._last = now

    def add_to(self, report: dict[str, Any]) -> None:
        """Complete the report's seconds: reading and writing are part of what the user waits for."""
        stages = {**report.get("seconds", {}).get("stages", {}), **self._laps}
        report["seconds"] = {"total": time.monotonic() - self._start, "stages": stages}


@dataclass(frozen=True)
class _Inputs:
    """Everything the command reads, checked against each other."""

    fixed: Volume
    moving: Volume
    initial_transform: Any
    fixed_mask: Volume | None
    moving_mask: Volume | None
    protect_mask: Volume | None
    fixed_labels: Volume | None
    moving_labels: Volume | None
    fixed_points: PointSet | None
    moving_points: PointSet | None
    paired_fixed: Any
    paired_moving: Any
    notes: tuple[str, ...]

    @classmethod
    def read(cls, args: argparse.Namespace, progress: ConsoleProgress) -> _Inputs:
        from ..io.checks import grid_note, outside_note, paired
        from ..io.images import check_format, read_labels, read_mask, read_volume
        from ..space.transforms import Transform

        notes: list[str | None] = []
        images = {"fixed": read_volume(args.fixed)}
        straighten = f"resample {args.fixed} onto a straight grid first (`samconvex apply` with --like does)"
        check_format("warped.nii.gz", images["fixed"].grid, way_out=straighten)
        progress("read", 0.3)
        images["moving"] = read_volume(args.moving)
        progress("read", 0.6)
        points = {
            side: read_points(path, images[side].grid) if path else None
            for side, path in (("fixed", args.fixed_points), ("moving", args.moving_points))
        }
        maps: dict[str, Volume | None] = {}
        for kind, reader in (("labels", read_labels), ("mask", read_mask)):
            for side in ("fixed", "moving"):
                path = getattr(args, f"{side}_{kind}")
                volume = reader(path) if path else None
                maps[f"{side}_{kind}"] = volume
                notes += [*volume.notes, grid_note(volume, images[side])] if volume else []
        protected = read_labels(args.protect) if args.protect else None
        notes.append(grid_note(protected, images["fixed"]) if protected else None)
        for side, listed in points.items():
            if listed is not None:
                known = listed.positions[listed.defined]
                notes.append(outside_note(known, images[side].grid, images[side].name))
        paired_fixed, paired_moving = None, None
        if points["fixed"] is not None and points["moving"] is not None:
            paired_fixed, paired_moving = paired(points["fixed"], points["moving"])
        for given, missing in (("fixed_labels", "moving_labels"), ("fixed_points", "moving_points")):
            if getattr(args, given) and not getattr(args, missing):
                notes.append(f"--{given} was not used because --{missing} is missing.".replace("_", "-"))
        start = Transform.load(args.initial_transform, images["fixed"].grid) if args.initial_transform else None
        progress("read", 1.0)
        notes += [*images["fixed"].notes, *images["moving"].notes, *(start.notes if start else ())]
        return cls(
            images["fixed"],
            images["moving"],
            start,
            maps["fixed_mask"],
            maps["moving_mask"],
            protected,
            maps["fixed_labels"],
            maps["moving_labels"],
            points["fixed"],
            points["moving"],
            paired_fixed,
            paired_moving,
            tuple(note for note in notes if note),
        )


def _check_names(args: argparse.Namespace) -> None:
    """Refuse an unknown preset, and weights that predict no field, before images are read."""
    from ..settings.presets import get_settings

    get_settings(args.preset)
    if args.initial_network:
        from ..weights.models import load_feed_forward

        load_feed_forward(args.initial_network)


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        import SimpleITK as sitk

        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def _expected_bytes(inputs: _Inputs) -> int:
    """Upper estimate of what the results take: uncompressed images, two fields of float64 and one float at 3 mm."""
    voxels = inputs.fixed.grid.voxel_count
    images = voxels * (inputs.moving.tensor.element_size() + 1)
    if inputs.moving_labels is not None:
        images += voxels * inputs.moving_labels.tensor.element_size()
    # A margin of 30 mm on every side, where fields fade out.
    nodes = float(((inputs.fixed.grid.extent + 60.0) / 3.0).prod())
    return int(images + (2 * 24 + 4) * nodes + 8 * 2**20)


def _write(
    folder: Path,
    inputs: _Inputs,
    result: RegistrationResult,
    progress: ConsoleProgress,
    clock: _Clock,
    asked: dict[str, Any],
) -> dict[str, Any]:
    """Write every result into ``folder``; returns the report, which holds what was ``asked`` too."""
    from ..io.images import write_volume
    from ..memory import peak_memory_mib
    from ..progress import stage
    from ..report.document import save_report
    from ..report.picture import write_report_picture

    transform = result.fixed_to_moving
    warped, valid = transform.warp_with_validity(inputs.moving, inputs.fixed, report=stage(progress, "warp"))
    progress("write", 0.0)
    write_volume(warped, folder / "warped.nii.gz")
    write_volume(valid, folder / "valid.nii.gz")
    if result.expected_error is not None:
        write_volume(result.expected_error, folder / "error.nii.gz")
    progress("write", 0.3)
    if inputs.moving_labels is not None:
        write_volume(transform.warp_labels(inputs.moving_labels, inputs.fixed), folder / LABELS)
    progress("write", 0.5)
    transform.save(folder / "transform.h5")
    result.moving_to_fixed.save(folder / "inverse.h5")
    if inputs.moving_points is not None:
        _write_carried(folder / POINTS, inputs.moving_points, result)
    progress("write", 0.7)
    picture = (inputs.fixed, inputs.moving, result, warped)
    write_report_picture(folder / "report.png", *picture, bound=result.expected_error)
    progress("write", 0.9)
    report = dict(result.report)
    report["options"] = asked["options"]
    report["inputs"] = {**report["inputs"], **asked["files"]}
    report["peak_memory_mib"] = peak_memory_mib()
    report["warnings"] = list(dict.fromkeys([*report.get("warnings", []), *inputs.notes]))
    clock.lap("write")
    clock.add_to(report)
    report["outputs"] = sorted([*(path.name for path in folder.iterdir()), "report.json"])
    save_report(report, folder / "report.json")
    return report


def _write_carried(path: Path, points: PointSet, result: RegistrationResult) -> None:
    """The moving points in the fixed space, each with its expected error where the result has one."""
    positions, defined = points.positions.copy(), points.defined
    positions[defined] = result.moving_to_fixed.map_points(positions[defined])
    bounds = [""] * len(points)
    if result.expected_error is not None:
        for row, bound in zip(defined.nonzero()[0], result.error_at(positions[defined]), strict=True):
            bounds[row] = f"{bound:.3f}"
    write_points(points.with_positions(positions), path, columns={"error90_mm": bounds})


def _earlier_results(folder: str, sources: list[str | None]) -> list[str]:
    """Results that an earlier run left in ``folder`` by its own report; inputs of this run are not among them."""
    try:
        earlier = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))["outputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    kept = {Path(source).resolve() for source in sources if source}
    ours = {*ALWAYS, LABELS, POINTS} & {str(name) for name in earlier}
    return [name for name in ours if (Path(folder) / name).resolve() not in kept]


def summary(report: dict[str, Any], folder: str) -> list[str]:
    """The lines a person reads at the end."""
    seconds = report.get("seconds", {})
    lines = [f"Registered in {seconds.get('total', 0):.1f} s, {report['peak_memory_mib']:.0f} MiB at most."]
    dice = report.get("dice", {})
    if "final_mean" in dice:
        lines.append(
            f"Label overlap (mean Dice): {dice.get('initial_mean', 0):.3f} before, {dice['final_mean']:.3f} after."
        )
    tre = report.get("tre_mm", {})
    if "final" in tre:
        before = f"{tre['initial']['mean']:.2f} mm before, " if "initial" in tre else ""
        lines.append(f"Point error (mean of {tre['n']}): {before}{tre['final']['mean']:.2f} mm after.")
    expected = report.get("expected_error_mm")
    if expected:
        lines.append(
            f"Expected error (nine of ten are below): {expected['median']:.1f} mm in half of the body, "
            f"{expected['p90']:.1f} mm in nine tenths."
        )
        by_label = sorted(expected.get("labels", {}).items(), key=lambda item: -item[1])
        if by_label:
            told = ", ".join(f"{label}: {value:.1f} mm" for label, value in by_label[:_LABELS_SHOWN])
            more = f", and {len(by_label) - _LABELS_SHOWN} more below" if len(by_label) > _LABELS_SHOWN else ""
            lines.append(f"Expected error at the outline of carried labels, the largest first: {told}{more}.")
    if "folding_percent" in report:
        lines.append(f"Folding: {report['folding_percent']:.3f} % of the voxels.")
    lines += [f"Note: {warning}" for warning in report.get("warnings", [])]
    lines.append(f"Results are in {folder}.")
    return lines + ([loud_verdict(report["verdict"])] if "verdict" in report else [])
