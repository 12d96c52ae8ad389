"""How often the verdict flags results of patients paired by chance, as a cohort has them.

    python Testing/benchmarks/studies/verdict_by_chance.py                                  # the published ones again
    python Testing/benchmarks/studies/verdict_by_chance.py --work FILE.jsonl --pairs 200    # registers what is missing

Nobody looked at these pairs before they were drawn: training patients of head and neck, a tenth of abdomens, preset
``fast-preview``. The outlines are not given to the registration; their mean Dice afterwards tells right (above 0.5;
abdomen 0.3) from wrong (below 0.3; abdomen 0.2), the rest is between. The published ones are 108 of the 200 pairs of
seed 0: all that were wrong, and of the others a part by chance. Four of the verdict's limits were chosen on them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "SAMConvexRegistration"), str(REPOSITORY / "Testing")]

from samconvex.io.images import read_labels, read_volume  # noqa: E402
from samconvex.registration.register import register  # noqa: E402
from samconvex.report.metrics import common_labels, dice  # noqa: E402
from samconvex.report.verdict import GOOD, LEVELS, verdict  # noqa: E402

from benchmarks.data.pairs import data_folder  # noqa: E402
from benchmarks.studies.cohort import labels_of, pairs_of  # noqa: E402
from benchmarks.studies.verdict import wilson  # noqa: E402

PUBLISHED = REPOSITORY / "Testing" / "benchmarks" / "results" / "verdict_by_chance.json"
PRESET = "fast-preview"


def truth(record: dict) -> str:
    wrong, right = (0.2, 0.3) if record["name"].startswith("btcv") else (0.3, 0.5)
    return "wrong" if record["dice"] < wrong else "right" if record["dice"] > right else "between"


def judged(records: list[dict]) -> list[str]:
    """A line for right, between and wrong results: how many have which verdict, and the share flagged."""
    lines = []
    for kind in ("right", "between", "wrong"):
        levels = Counter(verdict(r["evidence"])["level"] for r in records if truth(r) == kind)
        count = sum(levels.values())
        flagged = count - levels[GOOD]
        low, high = wilson(flagged, count)
        told = ", ".join(f"{level} {levels[level]}" for level in LEVELS)
        share = f"{flagged} of {count} flagged ({100 * low:.1f} to {100 * high:.1f} %)"
        lines.append(f"{kind}: {told}; {share}")
    return lines


def collected(fixed: Path, moving: Path) -> dict:
    """One pair's record."""
    result = register(read_volume(fixed), read_volume(moving), preset=PRESET, device="cpu", threads=1)
    outlined = read_labels(labels_of(fixed))
    carried = result.fixed_to_moving.warp_nearest(read_labels(labels_of(moving)), outlined)
    scores = dice(outlined, carried)
    name = "-".join(path.name.removesuffix("_ct.nii.gz") for path in (fixed, moving))
    evidence = {key: round(value, 5) for key, value in result.report["verdict"]["evidence"].items()}
    mean = float(np.mean([scores[label] for label in common_labels(outlined, read_labels(labels_of(moving)))]))
    return {"name": name, "dice": round(mean, 4), "evidence": evidence}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, metavar="FILE.jsonl", help="one pair a line; resumed")
    parser.add_argument("--pairs", type=int, default=200)
    chosen = parser.parse_args()
    if chosen.work is None:
        print("\n".join(judged(json.loads(PUBLISHED.read_text(encoding="utf-8")))))
        return 0
    chosen.data, chosen.seed, chosen.all_against_all = data_folder(), 0, None
    if chosen.data is None:
        parser.error("the images are absent; set SAMCONVEX_DATA, or leave out --work to judge the published pairs")
    written = chosen.work.read_text(encoding="utf-8").splitlines() if chosen.work.exists() else []
    records = [json.loads(line) for line in written]
    for fixed, moving in pairs_of(chosen)[len(records) :]:
        records.append(collected(fixed, moving))
        with open(chosen.work, "a", encoding="utf-8") as file:
            file.write(json.dumps(records[-1]) + "\n")
    print("\n".join(judged(records)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
