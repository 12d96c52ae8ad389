"""Scaling suite: time and memory against the number of voxels, ours and convexAdam.

One CT (a phantom where the evaluation images are absent) and its image after a breath, in two series: finer voxels
over the same field of view, and larger fields of view at 2 mm.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from samconvex import Grid, Volume, read_volume
from samconvex.settings.presets import PRESETS
from samconvex.space.transforms import Transform
from samconvex.space.volume import resample
from samconvex.synthetic.phantom import make_phantom

from ..data.pairs import REPOSITORY, WARPED_CASES, Case, Pair, breathing_case, data_folder
from ..methods.peers import METHODS as PEERS
from ..methods.runs import command_of, create_peers_environment, describe_machine, run_all, run_process
from ..results.drawing import draw
from ..results.records import commands_of, folder_of, remember_command

METHODS = ("samconvex", "samconvex-own", "samconvex-fast-preview", "samconvex-fast-preview-own", "convexadam")
SPACINGS_MM = (4.0, 3.0, 2.5, 2.0)
SHARES = (0.25, 0.5, 0.75)
FIELD_MM = 2.0
FINER, LARGER, NAMED = "finer voxels", "larger field of view", "192 x 160 x 256 at 2 mm"
# The size that SAMConvex's times are given for (Li et al., MICCAI 2023): here a chest with neck, stretched to fill it.
NAMED_CASE, NAMED_SIZE = "acrin001a", (192, 160, 256)


def main(arguments: Sequence[str] | None = None, publish: Callable[[Path], object] | None = None) -> int:
    """Run the suite; the exit status is 1 if a run failed."""
    parser = argparse.ArgumentParser(prog="samconvex benchmark --suite scaling", description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="METHOD")
    parser.add_argument("--preset", default="ct-inter-patient", choices=sorted(PRESETS), help="of the method samconvex")
    parser.add_argument("--only", default="", metavar="TEXT", help="only sizes whose name contains TEXT")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmark-output", metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="keep the finished runs found in DIR/scaling")
    parser.add_argument("--threads", type=int, default=2)
    if publish:
        parser.add_argument("--publish", action="store_true", help="then write RESULTS.md here from what DIR holds")
    chosen = parser.parse_args(arguments)
    if any(name in PEERS for name in chosen.methods):
        create_peers_environment()
    folder = folder_of(chosen.output, "scaling")
    remember_command(folder, "scaling", sys.argv[1:] if arguments is None else arguments)
    pairs = [pair for pair in sizes(data_folder(), chosen.preset) if chosen.only in pair.name]
    if not pairs:
        parser.error(f"no size's name contains {chosen.only!r}")
    # Both images of a size lie in one frame.
    starts = folder / "starts"
    starts.mkdir(parents=True, exist_ok=True)
    for pair in pairs:
        Transform().save(starts / f"{pair.name}.tfm")

    def launch(method: str, pair: Pair, job: Path, output: Path) -> dict:
        return run_process(command_of(method, pair.preset, job, output, chosen.threads), output, chosen.threads)

    records = run_all(pairs, chosen.methods, folder, launch, resume=chosen.resume, starts=starts)
    document = write_results(folder)
    draw(folder / "scaling.json")
    print("\n".join(page_lines(document)))
    if publish and chosen.publish:
        publish(chosen.output)
    return int(any("failed" in record for record in records))


def sizes(data: Path | None, preset: str) -> list[Pair]:
    """Both series as pairs."""
    pairs = [Pair(f"voxels-{spacing:g}mm", FINER, preset, _load(data, spacing, 1.0)) for spacing in SPACINGS_MM]
    pairs += [Pair(f"field-{share:g}", LARGER, preset, _load(data, FIELD_MM, share)) for share in SHARES]
    return [*pairs, Pair("named", NAMED, preset, lambda: _filling(data))]


def _filling(data: Path | None) -> Case:
    """A pair of :data:`NAMED_SIZE` voxels, full of body."""
    fixed = (
        make_phantom(3, 3.0, couch=False).ct
        if data is None
        else read_volume(data / "trunk" / f"{NAMED_CASE}_ct.nii.gz")
    )
    case = breathing_case(fixed, 0)
    images = []
    for volume in (case.fixed, case.moving):
        grid = volume.grid
        spacing = (*grid.spacing[:2], FIELD_MM * NAMED_SIZE[2] / grid.size[2])
        tall = Volume(volume.tensor, Grid(grid.size, spacing, grid.origin, grid.direction), volume.pixel_id)
        whole = tall.grid.canonical(FIELD_MM)
        first = ((whole.size[0] - NAMED_SIZE[0]) // 2, (whole.size[1] - NAMED_SIZE[1]) // 2, 0)
        images.append(resample(tall, whole.cropped(first, NAMED_SIZE)))
    return replace(case, fixed=images[0], moving=images[1], truth=None, truth_points=None)


def _load(data: Path | None, spacing: float, share: float) -> Callable[[], Case]:
    def load() -> Case:
        if data is None:
            fixed = make_phantom(3, 3.0, couch=False).ct
        else:
            fixed = read_volume(data / "trunk" / f"{WARPED_CASES[-1]}_ct.nii.gz")
        case = breathing_case(fixed, 0)
        return replace(
            case,
            fixed=sized(case.fixed, spacing, share),
            moving=sized(case.moving, spacing, share),
            truth=None,
            truth_points=None,
        )

    return load


def sized(volume: Volume, spacing: float, share: float) -> Volume:
    """The middle ``share`` of the slices, in cubes of ``spacing`` mm."""
    grid = volume.grid.canonical(spacing)
    x, y, z = grid.size
    count = max(1, round(share * z))
    return resample(volume, grid.cropped((0, 0, (z - count) // 2), (x, y, count)))


def write_results(folder: Path) -> dict:
    """Gather the records into scaling.json and scaling.md; returns the document."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((folder / "runs").glob("*/*.json"))]
    records = [record for record in records if record["method"] != "start"]
    records.sort(key=lambda record: (record["group"], record["method"], record["voxels"]))
    document = {"machine": describe_machine(), "commands": commands_of(folder), "records": records}
    (folder / "scaling.json").write_text(json.dumps(document, indent=1))
    (folder / "scaling.md").write_text("\n".join(["# Scaling", "", *page_lines(document)]))
    return document


def page_lines(document: dict) -> list[str]:
    """One table; the field of view of the full series belongs to both."""
    lines = [
        "| series | method | Mvoxel | seconds | s per Mvoxel | peak MiB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for record in document["records"]:
        millions = record["voxels"] / 1e6
        cells = [record["group"], record["method"], f"{millions:.2f}"]
        if "failed" in record:
            cells += [f"failed: {record['failed']}", "", ""]
        else:
            seconds = record["seconds"]
            cells += [f"{seconds:.1f}", f"{seconds / millions:.2f}", f"{record['peak_memory_mib']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    raise SystemExit(main())
