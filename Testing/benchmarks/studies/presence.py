"""How often an absent landmark is called found, and a present one lost; where the probability of both comes from.

Queries are cut at the middle of their landmarks, so that of every pair half of the points are known to be absent.
``collect FILE.jsonl`` matches the landmarks of other patients into both halves (of the embedding's validation patients;
with ``--final`` of the evaluation pairs, once) and keeps what speaks for and against each answer; it goes on where it
stopped. ``fit FILE.jsonl`` fits the regression of ``landmarks/presence.py`` in folds by query patient and prints what
it says of the patients left out; ``judge FILE.jsonl`` what the shipped one says.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "SAMConvexRegistration"), str(REPOSITORY / "Testing")]

from samconvex.anatomy.cache import embed_cached  # noqa: E402
from samconvex.anatomy.embed import embed  # noqa: E402
from samconvex.io.images import read_labels, read_volume  # noqa: E402
from samconvex.landmarks import presence  # noqa: E402
from samconvex.landmarks.matching import MAXIMUM_CYCLE_MM, MINIMUM_SCORE, guide_of, match_points  # noqa: E402
from samconvex.space.volume import Volume  # noqa: E402

from benchmarks.data.label_landmarks import HEAD_NECK, label_landmarks  # noqa: E402
from benchmarks.data.pairs import data_folder  # noqa: E402
from benchmarks.studies.verdict import wilson  # noqa: E402

CONFIG = REPOSITORY / "SAMConvexRegistration" / "samconvex" / "training" / "configs" / "sam_ct.json"
TEMPLATES = 4
# A point this far inside the half is present, this far outside absent, mm; between them it does not count.
INSIDE_MM, OUTSIDE_MM = 10.0, 15.0


def pairs(data: Path, final: bool) -> list[tuple[str, str]]:
    """(query, template) of patients; queries in a row, so that a half is embedded once."""
    if final:
        rows = (data / "headneck_pairs.csv").read_text(encoding="utf-8").split()[1:]
        both = [tuple(row.split(",")) for row in rows]
        return [(b, a) for a, b in both] + [(a, b) for a, b in both]
    names = json.loads(CONFIG.read_text(encoding="utf-8"))["validation"]
    count = len(names)
    return [(names[k], names[(k + step) % count]) for k in range(count) for step in range(1, TEMPLATES + 1)]


def halves(volume: Volume, level: float) -> Iterator[tuple[str, Volume]]:
    """The slices below and above a height, LPS mm; the images' slices lie across."""
    index = int(round(volume.grid.points_to_voxels(np.array([[*volume.grid.center[:2], level]]))[0, 2]))
    for side, first, last in (("low", 0, index), ("high", index, volume.grid.size[2])):
        if last - first >= 16:
            grid = volume.grid.cropped((0, 0, first), (*volume.grid.size[:2], last - first))
            yield side, volume.with_tensor(volume.tensor[:, :, first:last].contiguous(), grid)


def read(data: Path, name: str) -> tuple[Volume, dict[str, np.ndarray]]:
    labels = read_labels(data / "headneck" / f"{name}_seg.nii.gz")
    return read_volume(data / "headneck" / f"{name}_ct.nii.gz"), label_landmarks(labels, HEAD_NECK)


def collect(file: Path, final: bool, minutes: float) -> None:
    """Append a line for every pair and half that the file does not hold."""
    data = data_folder()
    assert data is not None
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    done = {tuple(json.loads(line)[key] for key in ("query", "template", "side")) for line in lines}
    begin, embedded = time.monotonic(), {}
    for query, template in pairs(data, final):
        wanted = [side for side in ("low", "high") if (query, template, side) not in done]
        if not wanted or time.monotonic() - begin > 60 * minutes:
            continue
        volume, truth = read(data, query)
        if len(truth) < 6:
            continue
        level = float(np.median(np.stack(list(truth.values()))[:, 2]))
        for side, half in halves(volume, level):
            if side not in wanted:
                continue
            if (query, side) not in embedded:
                embedded = {key: value for key, value in embedded.items() if key[0] == query}
                embedded[query, side] = embed(half)
            record = {"query": query, "template": template, "side": side}
            record |= matched(data, template, truth, half, embedded[query, side])
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
        print(query, template, f"{time.monotonic() - begin:.0f} s", flush=True)


def matched(data: Path, template: str, truth: dict, half: Volume, query) -> dict:
    """The template's landmarks in one half: evidence, depth in the half (mm, negative inside), error, state."""
    image, marks = read(data, template)
    source = embed_cached(image)
    names = sorted(set(marks) & set(truth))
    points, there = (np.stack([one[name] for name in names]) for one in (marks, truth))
    found = match_points(source, points, query)
    told = presence.evidence(source, query, guide_of(source, query), points, found.score, found.cycle_mm)
    return {
        "names": names,
        "beyond_mm": np.round(presence.beyond_image(half.grid, there), 1).tolist(),
        "error_mm": np.round(np.linalg.norm(found.points - there, axis=1), 1).tolist(),
        "evidence": np.round(told, 4).tolist(),
        "state": found.state,
    }


def rows_of(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Evidence (N, K), present (N,), called found (N,) and query of every point that counts."""
    kept: tuple[list, list, list, list] = ([], [], [], [])
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        evidence = [row[: len(presence.NAMES)] for row in record["evidence"]]
        for row, beyond in enumerate(record["beyond_mm"]):
            if -INSIDE_MM < beyond <= OUTSIDE_MM:
                continue
            values = (evidence[row], beyond <= -INSIDE_MM, record["state"][row] == "found", record["query"])
            for place, value in zip(kept, values, strict=True):
                place.append(value)
    return np.array(kept[0]), np.array(kept[1]), np.array(kept[2]), kept[3]


def fitted(evidence: np.ndarray, present: np.ndarray, ridge: float = 1.0) -> tuple[np.ndarray, float]:
    """Weights (K,) and intercept of a logistic regression; both outcomes weigh alike, signs as they must be."""
    scale = evidence.std(0) + 1e-9
    inputs = np.concatenate([evidence / scale, np.ones((len(evidence), 1))], 1)
    weight = np.where(present, 0.5 / present.mean(), 0.5 / (1 - present.mean()))
    free = np.ones(inputs.shape[1], bool)
    while True:
        found = _newton(inputs[:, free], present, weight, ridge)
        full = np.zeros(inputs.shape[1])
        full[free] = found
        # A better score must not speak against an answer, nor anything else for it.
        wrong = free[:-1] & (full[:-1] * presence.SIGNS < 0)
        if not wrong.any():
            return full[:-1] / scale, float(full[-1])
        free[:-1] &= ~wrong


def _newton(inputs: np.ndarray, present: np.ndarray, weight: np.ndarray, ridge: float) -> np.ndarray:
    found = np.zeros(inputs.shape[1])
    penalty = np.diag([*[ridge] * (inputs.shape[1] - 1), 0.0])
    for _ in range(40):
        share = 1 / (1 + np.exp(-np.clip(inputs @ found, -30, 30)))
        slope = inputs.T @ (weight * (present - share)) - penalty @ found
        curve = (inputs * (weight * share * (1 - share))[:, None]).T @ inputs + penalty
        found = found + np.linalg.solve(curve + 1e-9 * np.eye(len(found)), slope)
    return found


def told(called: np.ndarray, present: np.ndarray, title: str) -> None:
    """Print both errors with their intervals."""
    texts = []
    for name, wrong, chosen in (("absent called found", called, ~present), ("present called lost", ~called, present)):
        hits, count = int((wrong & chosen).sum()), int(chosen.sum())
        low, high = wilson(hits, count)
        texts.append(
            f"{name} {hits} of {count}, {100 * hits / max(count, 1):.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        )
    print(f"{title}: {'; '.join(texts)}")


def fit(file: Path) -> None:
    """Print the regression of all, and what regressions of the other queries say of each query."""
    evidence, present, called, queries = rows_of(file)
    told(called, present, "states as recorded")
    within = (evidence[:, 0] >= MINIMUM_SCORE) & (evidence[:, 1] <= MAXIMUM_CYCLE_MM)
    probability = np.zeros(len(present))
    names = sorted(set(queries))
    for name in names:
        own = np.array([query == name for query in queries])
        weights, intercept = fitted(evidence[~own], present[~own])
        probability[own] = 1 / (1 + np.exp(-(evidence[own] @ weights + intercept)))
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.7):
        told((probability >= threshold) & within, present, f"left out, probability {threshold} and both limits")
    weights, intercept = fitted(evidence, present)
    print("WEIGHTS =", tuple(round(float(w), 4) for w in weights), "INTERCEPT =", round(intercept, 3))
    for low in np.arange(0, 1, 0.2):
        chosen = (probability >= low) & (probability < low + 0.2 + 1e-9)
        if chosen.any():
            share = 100 * present[chosen].mean()
            print(f"probability {low:.1f} to {low + 0.2:.1f}: {chosen.sum()} points, {share:.0f} % present")


def judge(file: Path) -> None:
    """Print what the shipped regression says, and what the run said itself."""
    evidence, present, called, queries = rows_of(file)
    told(called, present, f"{len(set(queries))} queries, states as recorded")
    told(presence.probability(evidence) >= presence.LEAST, present, "shipped regression alone")


def main() -> int:
    """Run the study; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("collect", "fit", "judge"))
    parser.add_argument("file", type=Path, metavar="FILE.jsonl")
    parser.add_argument("--final", action="store_true", help="the evaluation pairs, once")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no pair after so long")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "collect":
        if data_folder() is None:
            parser.error("the images are absent; set SAMCONVEX_DATA")
        collect(options.file, options.final, options.minutes)
    else:
        {"fit": fit, "judge": judge}[options.what](options.file)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
