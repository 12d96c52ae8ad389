"""Whether the Slicer module finds landmarks where the engine does: head-neck pairs through both, in the stand-in.

    python Testing/benchmarks/studies/module_landmarks.py [--pairs N] [-o FILE.json]

The engine's answers are those of ``samconvex benchmark --suite landmarks`` (method ``sam``). The module loads the same
files as nodes, gets the points as markups and runs ``SAMLandmarkLogic.matchLandmarks``; its answers are the places
kept with the markups, also of points that were not found. Needs the evaluation images (SAMCONVEX_DATA or
``../shared/data``).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
for folder in ("Testing", "SAMConvexRegistration", "SAMLandmark"):
    sys.path.insert(0, str(REPOSITORY / folder))

import numpy as np  # noqa: E402
from harness import load_module, start  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20, help="head-neck pairs (default: all 20)")
    parser.add_argument("-o", "--output")
    options = parser.parse_args()
    # Embeddings kept on disk are rounded to 8 bits; here both sides compute their own.
    os.environ["SAMCONVEX_NO_DISK_CACHE"] = "1"
    from benchmarks.data.pairs import data_folder
    from benchmarks.suites.landmarks import all_pairs

    data = data_folder()
    if data is None:
        print("The evaluation images are not there; set SAMCONVEX_DATA.")
        return 2
    start()
    load_module(REPOSITORY / "SAMConvexRegistration" / "SAMConvexRegistration.py")
    load_module(REPOSITORY / "SAMLandmark" / "SAMLandmark.py")
    records = []
    for name, load in all_pairs(data, options.pairs, ["head-neck"]):
        pair = load()
        engine, module = by_engine(pair), by_module(pair, data / "headneck")
        errors = [np.linalg.norm(answers - pair.truth, axis=1) for answers in (engine[0], module[0])]
        record = {
            "pair": name,
            "points": len(pair.truth),
            "engine": figures(errors[0]),
            "module": figures(errors[1]),
            "largest_difference_mm": float(np.linalg.norm(engine[0] - module[0], axis=1).max()),
            "found_differently": int((engine[1] != module[1]).sum()),
        }
        records.append({**record, "errors": [e.tolist() for e in errors]})
        print(line(record), flush=True)
    both = [np.concatenate([record["errors"][side] for record in records]) for side in (0, 1)]
    every = {
        "pair": "all",
        "points": len(both[0]),
        "engine": figures(both[0]),
        "module": figures(both[1]),
        "largest_difference_mm": max(record["largest_difference_mm"] for record in records),
        "found_differently": sum(record["found_differently"] for record in records),
    }
    print(line(every))
    if options.output:
        Path(options.output).write_text(json.dumps({"all": every, "pairs": records}, indent=1) + "\n", encoding="utf-8")
    return 0


def by_engine(pair):
    """(places (N, 3) LPS mm, found (N,)) of the engine's own function."""
    from samconvex.anatomy.embed import embed
    from samconvex.landmarks.matching import match_points

    found = match_points(embed(pair.template), pair.points, embed(pair.query))
    return found.points, found.found


def by_module(pair, data):
    """The same through nodes, the module's logic and the process that it starts."""
    import slicer
    import vtk
    from SAMLandmarkLib import results

    slicer.mrmlScene.Clear(False)
    volumes = [slicer.util.loadVolume(str(data / f"{case}_ct.nii.gz")) for case in pair.name.split("-")]
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Landmarks")
    for name, point in zip(pair.names, pair.points * (-1, -1, 1), strict=True):
        points.SetNthControlPointLabel(points.AddControlPointWorld(vtk.vtkVector3d(*point)), name)
    logic = slicer.util.getModuleLogic("SAMLandmark")
    answers = logic.matchLandmarks(volumes[0], points, volumes[1])
    records = results.records(answers)
    rows = [records[answers.GetNthControlPointID(index)] for index in range(answers.GetNumberOfControlPoints())]
    places = np.array([row["place"] for row in rows], dtype=float) * (-1, -1, 1)
    return places, np.array([row["found"] for row in rows])


def figures(errors):
    """Mean, median and largest error, mm."""
    return {"mean": float(errors.mean()), "median": float(np.median(errors)), "max": float(errors.max())}


def line(record):
    """A record as one line of text."""
    texts = [
        f"{side} mean {record[side]['mean']:.3f} median {record[side]['median']:.3f} max {record[side]['max']:.2f}"
        for side in ("engine", "module")
    ]
    difference = f"largest difference {record['largest_difference_mm']:.3f} mm, {record['found_differently']} states"
    return f"{record['pair']:>14} {record['points']:4d} points: {texts[0]} | {texts[1]} | {difference}"


if __name__ == "__main__":
    sys.exit(main())
