"""How many mirrored scans are found, and how many right ones are called mirrored.

``python Testing/benchmarks/studies/sides.py --folds 3 --steps 700`` trains the network of ``training/configs/
sides_ct.json`` once for every fold of its patients and prints the answers for the patients left out: the margins of
:mod:`samconvex.anatomy.sides` are chosen on them. ``--final`` asks the shipped network about the evaluation patients,
as they are and mirrored. A mirrored scan's answer is that of the right one with the other sign, by construction.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "SAMConvexRegistration"), str(REPOSITORY / "Testing")]

from samconvex.anatomy.sides import MIRRORED_BELOW, RIGHT_ABOVE, sides_score  # noqa: E402
from samconvex.io.images import read_volume  # noqa: E402
from samconvex.training.data.cases import Case  # noqa: E402
from samconvex.training.loop import read_settings  # noqa: E402
from samconvex.training.sides import SidesSettings, cases_of, train_on  # noqa: E402

from benchmarks.data.pairs import data_folder  # noqa: E402

CONFIG = REPOSITORY / "SAMConvexRegistration" / "samconvex" / "training" / "configs" / "sides_ct.json"
# Scans of one patient stay together.
SAME = {"acrin001a": "acrin001", "acrin001b": "acrin001"}
TRUNK = ("trunk/lidc0001", "trunk/rad_lung1", "trunk/rad_lung2", "trunk/ts_example")
ABDOMEN = tuple(f"abdomen/btcv{number}" for number in range(14, 20))


def folds_of(names: list[str], count: int) -> list[list[str]]:
    """Case names in ``count`` parts, patient by patient."""
    patients = sorted({SAME.get(name, name) for name in names})
    order = np.random.default_rng(0).permutation(len(patients))
    part = {patients[row]: place % count for place, row in enumerate(order)}
    return [[name for name in names if part[SAME.get(name, name)] == number] for number in range(count)]


def in_folds(cases: list[Case], settings: SidesSettings, count: int, **budget: Any) -> dict[str, float]:
    """Answers for the patients left out of each fold's training, by name."""
    scores: dict[str, float] = {}
    for number, left_out in enumerate(folds_of([case.name for case in cases], count)):
        with TemporaryDirectory() as folder:
            fold = replace(settings, validation=tuple(left_out))
            found = train_on(cases, Path(folder) / "sides.pt", settings=fold, **budget)
        scores |= found["validation"]["after"]["scores"]
        print(json.dumps({"fold": number, "steps": found["step"], **found["validation"]["after"]}), flush=True)
    return scores


def told(scores: dict[str, float], mirrored: dict[str, float]) -> None:
    """Print what is said with the margins as they are, of scans and of their mirror images."""
    for kind in ("trunk", "head and neck"):
        names = [name for name in scores if name.startswith("hn") == (kind != "trunk")]
        values, others = (np.array([of[name] for name in names]) for of in (scores, mirrored))
        if len(values):
            print(
                f"{kind}: {len(values)} right scans, {int((values <= MIRRORED_BELOW).sum())} called mirrored; of their "
                f"mirror images {int((others <= MIRRORED_BELOW).sum())} found; {int((values >= RIGHT_ABOVE).sum())} "
                f"told to be right; answers from {values.min():.2f} to {values.max():.2f}"
            )


def final(data: Path) -> None:
    """Print what the shipped network says of the evaluation patients, as they are and mirrored."""
    heads = (data / "headneck_pairs.csv").read_text(encoding="utf-8").split()[1:]
    scores: dict[str, float] = {}
    mirrored: dict[str, float] = {}
    for place in (*TRUNK, *ABDOMEN, *(f"headneck/{name}" for name in (row.split(",")[0] for row in heads))):
        volume, name = read_volume(data / f"{place}_ct.nii.gz"), place.split("/")[1]
        scores[name] = sides_score(volume) or 0.0
        mirrored[name] = sides_score(volume.with_tensor(volume.tensor.flip(-1))) or 0.0
        print(f"{place:20s} {scores[name]:6.2f}  mirrored {mirrored[name]:6.2f}", flush=True)
    told(scores, mirrored)


def main() -> int:
    """Run the study; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--minutes", type=float, help="of each fold")
    parser.add_argument(
        "--set", default=["{}"], nargs="+", metavar="JSON", help="settings that differ from the configuration's; each"
    )
    parser.add_argument("--final", action="store_true", help="the evaluation patients, once, by the shipped network")
    options = parser.parse_args()
    data = data_folder()
    if data is None:
        print("The images are not there; set SAMCONVEX_DATA.")
        return 2
    torch.set_num_threads(1)
    if options.final:
        final(data)
        return 0
    settings = read_settings(SidesSettings, CONFIG)
    cases = cases_of(data, settings, lambda stage, fraction, message: None)
    for changes in options.set:
        print(changes, flush=True)
        chosen = replace(settings, **json.loads(changes))
        scores = in_folds(cases, chosen, options.folds, steps=options.steps, minutes=options.minutes)
        told(scores, {name: -score for name, score in scores.items()})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
