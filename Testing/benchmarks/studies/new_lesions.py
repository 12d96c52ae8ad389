"""How many new lesions are proposed, and how many false ones beside them.

``new_lesions.py run FOLDER`` puts invented lesions into trunk CTs: some are in both images and grow, shrink or stay,
some in the baseline alone, the others in the follow-up alone; the follow-up has another posture, spacing and noise, and
by turns another contrast phase or slices of 5 mm. ``--training`` takes scans that the weights of
``samconvex/lesions/candidates.py`` were fitted to, else those that nothing was trained on. It can be stopped and
continued. ``table FOLDER`` prints recall at one false candidate per scan (the score chosen on the same scans) and at
the shipped score, with 95 % intervals from a bootstrap over the follow-ups; ``fit FOLDER`` the weights, and what they
find in each scan when fitted without it. Nothing is told of the lesions that both images show.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "SAMConvexRegistration"), str(REPOSITORY / "Testing")]

from samconvex.io.images import read_volume  # noqa: E402
from samconvex.lesions.candidates import MINIMUM_SCORE, new_lesion_candidates  # noqa: E402
from samconvex.space.volume import Volume  # noqa: E402

from benchmarks.data.later_images import HARD  # noqa: E402
from benchmarks.data.pairs import WARPED_CASES, data_folder  # noqa: E402
from benchmarks.data.synthetic_lesions import insert, make_follow_up, place_lesions  # noqa: E402

TRAINING = (
    "crlm1004 lungfcp01 c3l00189 nsclcrg001 lidc0314 crlm1006 nlst cmbcrc01068 acrin013 acrin001b acrinnsclc042 "
    "lung4d113"
).split()
CONDITIONS = (None, HARD[0], HARD[1])
LESIONS = 12
# A candidate this far beside the box of a lesion is still the lesion.
MARGIN_MM = 2.0


def run_pair(image: Volume, condition, random: np.random.Generator) -> dict:
    """New lesions (inside the follow-up's view) and candidates of one follow-up."""
    lesions = place_lesions(image, LESIONS, random)
    later = make_follow_up(image, lesions, random, condition=condition)
    there = [row for row, fate in enumerate(later.fates) if fate in ("grown", "shrunk", "unchanged")]
    new = sorted(random.permutation(there)[: max(1, 2 * len(there) // 3)].tolist())
    baseline = insert(image, [lesion for row, lesion in enumerate(lesions) if row not in new], random)
    begin = time.perf_counter()
    candidates = new_lesion_candidates(baseline, later.image, minimum_score=0.0)
    seconds = time.perf_counter() - begin
    found: dict[int, float] = {}
    records = []
    for candidate in candidates:
        inside = [row for row, box in enumerate(later.boxes) if _within(candidate.position, box)]
        row = next((row for row in inside if row in new), inside[0] if inside else None)
        # A second candidate in the same new lesion is neither a hit nor false.
        if row in new and (row in found or later.view[row] != "inside"):
            continue
        if row in new:
            found[row] = candidate.score
        label = row in new
        kind = "new" if label else "false" if row is None else later.fates[row]
        records.append({"label": label, "kind": kind, "score": candidate.score, "features": candidate.features})
    sizes = {row: measured.longest_mm for row in new if (measured := later.measurements[row]) is not None}
    wanted = [{"mm": sizes.get(row), "score": found.get(row)} for row in new if later.view[row] == "inside"]
    return {"new": wanted, "candidates": records, "seconds": seconds}


def _within(point: np.ndarray, box: np.ndarray) -> bool:
    return bool(((point >= box[0] - MARGIN_MM) & (point <= box[1] + MARGIN_MM)).all())


def run(folder: Path, cases: list[str], minutes: float) -> int:
    """All pairs that are not in the folder yet, as far as the time reaches."""
    data = data_folder()
    if data is None:
        print("The images are not there; set SAMCONVEX_DATA.")
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    for number, condition in enumerate(CONDITIONS):
        name = condition.name if condition is not None else "plain"
        for case in cases:
            path = folder / f"{case}-{number}.json"
            if path.exists() or time.monotonic() > end:
                continue
            image = read_volume(data / "trunk" / f"{case}_ct.nii.gz")
            record = run_pair(image, condition, np.random.default_rng([11, number, *case.encode()]))
            path.write_text(json.dumps({"case": case, "condition": name, **record}, indent=1))
            hits = sum(one["score"] is not None and one["score"] >= MINIMUM_SCORE for one in record["new"])
            wrong = sum(not one["label"] and one["score"] >= MINIMUM_SCORE for one in record["candidates"])
            print(
                f"{case} {name}: {hits} of {len(record['new'])}, {wrong} false, {record['seconds']:.0f} s", flush=True
            )
    return 0


def recall_at(pairs: list[dict], false_per_scan: float | None) -> tuple[float, float, float]:
    """(recall, false candidates per scan, score) at the lowest score that allows so many; None: at the shipped one."""
    limit = MINIMUM_SCORE
    if false_per_scan is not None:
        wrong = sorted((one["score"] for pair in pairs for one in pair["candidates"] if not one["label"]), reverse=True)
        allowed = int(false_per_scan * len(pairs) + 1e-9)
        limit = float(np.nextafter(wrong[allowed], 1)) if len(wrong) > allowed else 0.0
    new = [one["score"] for pair in pairs for one in pair["new"]]
    hits = sum(score is not None and score >= limit for score in new)
    wrong_count = sum(not one["label"] and one["score"] >= limit for pair in pairs for one in pair["candidates"])
    return hits / max(len(new), 1), wrong_count / len(pairs), limit


def table(pairs: list[dict]) -> str:
    """Recall per condition and of lesions from 10 mm on, with bootstrap intervals."""
    lines = ["| | follow-ups | new lesions | recall at 1 false a scan | shipped score: recall | false a scan |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    groups = {"all": pairs}
    for name in dict.fromkeys(pair["condition"] for pair in pairs):
        groups[name] = [pair for pair in pairs if pair["condition"] == name]
    large = [{**pair, "new": [one for one in pair["new"] if (one["mm"] or 0) >= 10]} for pair in pairs]
    groups["lesions of 10 mm and more"] = large
    random = np.random.default_rng(0)
    for name, group in groups.items():
        drawn = [[group[row] for row in random.integers(0, len(group), len(group))] for _ in range(2000)]
        cells = []
        for wanted, column in ((1.0, 0), (None, 0), (None, 1)):
            low, high = np.percentile([recall_at(sample, wanted)[column] for sample in drawn], [2.5, 97.5])
            value, factor = recall_at(group, wanted)[column], 100 if column == 0 else 1
            cells.append(
                f"{factor * value:.{0 if column == 0 else 1}f} ({factor * low:.{0 if column == 0 else 1}f} to "
                f"{factor * high:.{0 if column == 0 else 1}f})"
            )
        count = sum(len(pair["new"]) for pair in group)
        lines.append(f"| {name} | {len(group)} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fitted(pairs: list[dict]) -> np.ndarray:
    """Weights of a logistic regression with a weak pull to 0."""
    rows = [one for pair in pairs for one in pair["candidates"]]
    values = np.array([one["features"] for one in rows])
    labels = np.array([float(one["label"]) for one in rows])
    pull = np.diag([1e-3, *[1.0] * (values.shape[1] - 1)])
    weights = np.zeros(values.shape[1])
    for _ in range(60):
        share = 1 / (1 + np.exp(-values @ weights))
        gradient = values.T @ (share - labels) + pull @ weights
        curvature = (values * (share * (1 - share))[:, None]).T @ values + pull
        weights -= np.linalg.solve(curvature, gradient)
    return weights


def left_out(pairs: list[dict]) -> list[dict]:
    """The pairs with scores by weights that were fitted without their scan."""
    result = []
    for pair in pairs:
        weights = fitted([other for other in pairs if other["case"] != pair["case"]])
        old = {}
        candidates = []
        for one in pair["candidates"]:
            score = float(1 / (1 + np.exp(-np.dot(one["features"], weights))))
            old[one["score"]] = score
            candidates.append({**one, "score": score})
        new = [{**one, "score": old.get(one["score"])} for one in pair["new"]]
        result.append({**pair, "candidates": candidates, "new": new})
    return result


def main() -> int:
    """Run the study; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=("run", "table", "fit"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--training", action="store_true", help="scans that the weights were fitted to")
    parser.add_argument("--minutes", type=float, default=600.0, help="no pair is begun later (default: 600)")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.work == "run":
        return run(chosen.folder, list(TRAINING if chosen.training else WARPED_CASES), chosen.minutes)
    pairs = [json.loads(path.read_text()) for path in sorted(chosen.folder.glob("*.json"))]
    if chosen.work == "fit":
        print("weights", np.round(fitted(pairs), 2).tolist())
        pairs = left_out(pairs)
    print(table(pairs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
