"""The table of ``error90_mm``: how far matched landmarks lie from the truth, by score and cycle error.

``python Testing/benchmarks/studies/match_error.py``: landmarks of the label maps of the embedding's validation patients
are matched between each two of them. Every match has a quality from score and cycle error; in groups of equal size by
quality, the 90 % quantile of the error, made monotone, is the table in ``landmarks/matching.py``. Half of the pairs
make one, the other half says how often it holds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "SAMConvexRegistration"), str(REPOSITORY / "Testing")]

from samconvex.anatomy.cache import embed_cached  # noqa: E402
from samconvex.io.images import read_labels, read_volume  # noqa: E402
from samconvex.landmarks.matching import bounded, match_points, quality  # noqa: E402

from benchmarks.data.label_landmarks import HEAD_NECK, label_landmarks  # noqa: E402
from benchmarks.data.pairs import data_folder  # noqa: E402

CONFIG = REPOSITORY / "SAMConvexRegistration" / "samconvex" / "training" / "configs" / "sam_ct.json"
GROUPS = 8


def answers(data: Path, template: str, query: str) -> np.ndarray:
    """(N, 3) score, cycle error and error in mm of the landmarks of both."""
    images = [read_volume(data / "headneck" / f"{name}_ct.nii.gz") for name in (template, query)]
    marks = [
        label_landmarks(read_labels(data / "headneck" / f"{name}_seg.nii.gz"), HEAD_NECK) for name in (template, query)
    ]
    names = sorted(set(marks[0]) & set(marks[1]))
    points, truth = (np.stack([one[name] for name in names]) for one in marks)
    matches = match_points(embed_cached(images[0]), points, embed_cached(images[1]))
    return np.stack([matches.score, matches.cycle_mm, np.linalg.norm(matches.points - truth, axis=1)], 1)


def table(rows: np.ndarray) -> list[tuple[float, float]]:
    """(quality, 90 % quantile of the error) of groups of equal size, monotone: better quality, smaller bound."""
    order = np.argsort(quality(rows[:, 0], rows[:, 1]))
    found = []
    for group in np.array_split(order, GROUPS):
        chosen = rows[group]
        middle = float(np.median(quality(chosen[:, 0], chosen[:, 1])))
        found.append((round(middle, 3), float(np.quantile(chosen[:, 2], 0.9))))
    bounds = np.maximum.accumulate([bound for _, bound in found][::-1])[::-1]
    return [(q, round(float(bound), 1)) for (q, _), bound in zip(found, bounds, strict=True)]


def main() -> int:
    """Run the study; returns the exit status."""
    data = data_folder()
    if data is None:
        print("The images are not there; set SAMCONVEX_DATA.")
        return 2
    torch.set_num_threads(1)
    names = json.loads(CONFIG.read_text(encoding="utf-8"))["validation"]
    halves: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for number, pair in enumerate(zip(names[::2], names[1::2], strict=True)):
        for template, query in (pair, pair[::-1]):
            rows = answers(data, template, query)
            halves[number % 2].append(rows)
            print(f"{template} {query}: {len(rows)} landmarks, median {np.median(rows[:, 2]):.1f} mm", flush=True)
    first, second = (np.concatenate(half) for half in halves)
    print("table of the first half:", table(first))
    print("table of all:", table(np.concatenate([first, second])))
    qualities, bounds = np.array(table(first)).T
    held = second[:, 2] <= np.interp(quality(second[:, 0], second[:, 1]), qualities, bounds)
    print(f"second half: {100 * held.mean():.1f} % of {len(held)} within the first half's bound")
    shipped = bounded(second[:, 0], second[:, 1])
    held = second[:, 2] <= shipped
    print(f"the shipped table, fitted on both halves: {100 * held.mean():.1f} %, mean bound {shipped.mean():.1f} mm")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
