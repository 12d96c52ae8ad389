"""A course of four visits and six lesions: command line, Lesions tab, command line, Lesions tab.

``python Testing/benchmarks/studies/course_roundtrip.py --folder DIR``: draws six lesions into the demo's chest CT at
the sizes of four visits, tracks three of them, opens the course in the tab, confirms every diameter and types one,
exports it, continues it by ``track --course`` with the fourth visit and opens the result again. Ends with status 1
where a confirmation, a line or an image was lost, or where the states are not those that were drawn.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / part) for part in ("SAMConvexRegistration", "Testing", "Testing/gui")]

from samconvex.cli.demo import obtain_pair  # noqa: E402
from samconvex.cli.main import main as samconvex  # noqa: E402
from samconvex.io.images import write_volume  # noqa: E402
from samconvex.space.grid import Grid  # noqa: E402
from samconvex.space.volume import Volume, resample  # noqa: E402

# Place, LPS mm from the middle of the image, and radius in mm at every visit.
LESIONS = (
    ((-75, 5, 20), (11, 7, 5, 4)),
    ((80, 10, 0), (7, 6, 9.5, 11)),
    ((-70, -10, -20), (6, 6, 6, 6)),
    ((75, -20, 40), (8, 8, 7, 0)),
    ((-60, 30, 60), (7, 8, 9, 10)),
    ((70, 35, 30), (9, 7, 6, 6)),
)
DAYS = ("2026-01-05", "2026-03-02", "2026-06-01", "2026-09-01")
# Between two visits so near to the baseline's size, either state is right.
CLEAR = 0.18


def draw(folder: Path) -> None:
    """v0.nii.gz to v3.nii.gz, each elsewhere, and lesions.nii.gz, the labels of v0."""
    image = obtain_pair(False, lambda *_: None).moving
    fine = resample(
        image.with_tensor(image.as_float()), Grid.covering(image.grid.corners(), 2.0, margin_mm=0.0), fill=-1000.0
    )
    grid = fine.grid
    points = grid.voxel_centers(reference=grid.center).numpy()
    labels = np.zeros(grid.shape, np.uint8)
    for visit in range(4):
        tensor = fine.tensor.clone()
        for number, (place, radii) in enumerate(LESIONS, 1):
            inside = np.linalg.norm(points - np.asarray(place), axis=-1) < radii[visit]
            tensor[0, 0][torch.from_numpy(inside)] = 45
            labels[inside & (visit == 0)] = number
        origin = tuple((np.asarray(grid.origin) + visit * np.array([4.0, 3.0, 6.0])).tolist())
        moved = Grid(grid.size, grid.spacing, origin, grid.direction)
        write_volume(
            Volume(tensor.round().to(torch.int16), moved, sitk.sitkInt16, "visit"), folder / f"v{visit}.nii.gz"
        )
    write_volume(
        Volume(torch.from_numpy(labels)[None, None], grid, sitk.sitkUInt8, "lesions"), folder / "lesions.nii.gz"
    )


def expected(radii: tuple[float, ...], visit: int) -> tuple[str, ...]:
    """States that are right at a visit."""
    change = radii[visit] / radii[0] - 1
    if radii[visit] == 0:
        return ("gone", "not found")
    if abs(change) < CLEAR:
        return ("unchanged", "grown", "shrunk")
    return ("grown",) if change > 0 else ("shrunk",)


def track(*words: str) -> None:
    if samconvex(["track", *words, "--progress", "none"]):
        raise SystemExit("samconvex track did not end well")


def opened(tab: Any, path: Path) -> tuple[Any, Any]:
    """The course in a scene that holds its images: (table node, course)."""
    table = tab.importJson(str(path))
    course = tab.courseOf(table)
    lost = [visit.name for visit in course.visits if tab.nodeOf(table, visit, tab.VOLUME) is None]
    print(f"{path}: {len(course.visits)} visits, {len(course.lesions)} lesions, images not found: {lost or 'none'}")
    if lost:
        raise SystemExit(1)
    return table, course


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for images and results; made anew")
    folder: Path = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True, exist_ok=False)
    draw(folder)
    visits = [str(folder / f"v{number}.nii.gz") for number in range(4)]
    known = ["--dates", *DAYS[:3], "--patient", "Doe"]
    track(visits[0], str(folder / "lesions.nii.gz"), *visits[1:3], "-o", str(folder / "first"), *known)

    from harness import load_module, start

    start()
    import slicer

    load_module(REPOSITORY / "SAMLandmark" / "SAMLandmark.py")
    from SAMLandmarkLib import course as tab
    from SAMLandmarkLib import measuring

    for path in visits:
        slicer.util.loadVolume(path)
    table, course = opened(tab, folder / "first" / "course.json")
    rows = [(lesion.name, visit.name) for lesion in course.lesions for visit in course.visits]
    rows = [row for row in rows if course.lesion(row[0]).readings[row[1]].longest_mm]
    tab.change(table, lambda course: measuring.confirm(course, rows, "measured"))
    typed = (course.lesions[0].name, course.visits[1].name)
    tab.change(table, lambda course: measuring.confirmTyped(course, *typed, "14.5 x 13"))
    before = tab.courseOf(table)
    tab.exportJson(table, folder / "edited.json")

    more = ["--dates", DAYS[3]]
    track("--course", str(folder / "edited.json"), visits[3], "-o", str(folder / "second"), *more)
    _, after = opened(tab, folder / "second" / "course.json")
    kept = all(
        getattr(after.lesion(lesion.name).readings[visit.name], part) == getattr(lesion.readings[visit.name], part)
        for lesion in before.lesions
        for visit in before.visits
        for part in ("confirmed", "longest_line", "short_line")
    )
    print("confirmations and lines as before:", kept)
    wrong = 0
    for lesion, (_place, radii) in zip(after.lesions, LESIONS, strict=True):
        states = [lesion.readings[visit.name].state for visit in after.visits]
        right = [state in expected(radii, number) for number, state in enumerate(states) if number]
        wrong += right.count(False)
        print(f"{lesion.name}: {', '.join(states)} (radii {', '.join(map(str, radii))} mm)")
    print(f"states that are not those drawn: {wrong} of {3 * len(LESIONS)}")
    return 0 if kept and not wrong else 1


if __name__ == "__main__":
    raise SystemExit(main())
