"""What instance optimization adds as the last stage, for several weights, on patients that may be trained on.

``python Testing/benchmarks/studies/last_stage.py run --folder DIR`` solves the pyramid of every pair once and refines
its field with every weight; a stopped run goes on where it was. ``table --folder DIR`` prints the means over the
pairs that every weight has: Dice (of known warps the mean error in mm), the worst pair, the deviation of the logarithm
of the Jacobian determinant, and the processor's seconds of the refinement as a share of the whole registration; then
the mean change against no last stage, with a 95 % interval from a bootstrap over the pairs. ``picture`` draws the
figure against that deviation.

No pair has an evaluation patient. The organ network never saw the head-neck cases, nor btcv03 and btcv11; the moving
images of the other two abdomen pairs it was trained on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "SAMConvexRegistration"), str(REPOSITORY / "Testing")]

from samconvex import read_labels, read_volume, register  # noqa: E402
from samconvex.deform.scene import Extractor, Scene  # noqa: E402
from samconvex.registration import solve  # noqa: E402
from samconvex.registration.register import find_map  # noqa: E402
from samconvex.settings.presets import PRESETS  # noqa: E402
from samconvex.settings.registration import AdamSettings, Settings  # noqa: E402
from samconvex.space.field import DisplacementField  # noqa: E402
from samconvex.space.transforms import Transform  # noqa: E402

from benchmarks.data.pairs import Case, breathing_case, data_folder  # noqa: E402
from benchmarks.methods.assess import assess  # noqa: E402
from benchmarks.methods.job import common_grid  # noqa: E402
from benchmarks.results.paired import interval  # noqa: E402
from benchmarks.results.tables import merit_of, value  # noqa: E402

# Of different people: fixed and moving image. The organ network's held-out patients stand first.
PATIENTS = (
    ("headneck", "hn168", "hn172"),
    ("abdomen", "btcv03", "btcv11"),
    ("headneck", "hn182", "hn200"),
    ("abdomen", "btcv11", "btcv03"),
    ("headneck", "hn022", "hn034"),
    ("abdomen", "btcv03", "btcv05"),
    ("headneck", "hn004", "hn060"),
    ("abdomen", "btcv11", "btcv08"),
    ("headneck", "hn061", "hn082"),
    ("headneck", "hn087", "hn099"),
)
# None of the multimodal benchmark's.
HIPPOCAMPI = tuple(
    ("hippocampus", f"hc{first:03d}", f"hc{second:03d}")
    for first, second in ((1, 3), (4, 6), (7, 8), (11, 14), (15, 17), (19, 20), (23, 24), (25, 26), (33, 34), (35, 36))
)
# Chests that breathe by a known warp.
CHESTS = ("nsclcrg001", "lidc0314", "nlst", "cmbcrc01068")
BREATHING = ("ct-lung-breathing",)
WEIGHTS = (0.03, 0.1, 0.3, 1.0)
NONE = "none"


def pairs_of(preset: str, data: Path) -> list[tuple[str, str, Callable[[], Case]]]:
    """Name, group and loader of the pairs that a preset is for."""
    if preset in BREATHING:
        return [(name, "breath", _breathing(data / "trunk" / f"{name}_ct.nii.gz", n)) for n, name in enumerate(CHESTS)]
    modality, patients = ("mr", HIPPOCAMPI) if PRESETS[preset].modality == "mr" else ("ct", PATIENTS)
    return [
        (f"{first}-{second}", group, _case(data / group, modality, first, second)) for group, first, second in patients
    ]


def _case(folder: Path, modality: str, *names: str) -> Callable[[], Case]:
    def load() -> Case:
        fixed, moving = (read_volume(folder / f"{name}_{modality}.nii.gz") for name in names)
        labels = [read_labels(folder / f"{name}_seg.nii.gz") for name in names]
        return Case(fixed, moving, labels=(labels[0], labels[1]))

    return load


def _breathing(file: Path, seed: int) -> Callable[[], Case]:
    return lambda: breathing_case(read_volume(file), seed)


def candidates(preset: Settings, weights: Sequence[float] = WEIGHTS) -> dict[str, AdamSettings | None]:
    """The preset's own pyramid, and refined with every weight."""
    found: dict[str, AdamSettings | None] = {NONE: None}
    return found | {f"weight {weight:g}": replace(preset.adam, regularization=weight) for weight in weights}


@dataclass
class Refiner:
    """Takes the place of the refinement: refines one pyramid's field anew for every candidate.

    Attributes:
        adam: the candidate, None to leave the field as it is.
        seconds: of the processor, of the last refinement, its features included.
    """

    adam: AdamSettings | None = None
    seconds: float = 0.0
    _known: tuple[Scene, Extractor, DisplacementField] | None = None

    def solved(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """In the place of ``solve._one_way``: the pyramid is solved at the first call."""

        def one_way(scene: Scene, pair: Any, run: Any, progress: Any, device: torch.device) -> DisplacementField:
            if self._known is None:
                captured: list[Any] = []

                def keep(
                    scene: Scene, extractor: Extractor, settings: Settings, step: Any, field: DisplacementField, _: Any
                ):
                    captured.append((scene, extractor, field))
                    return field

                refined, solve.refined = solve.refined, keep
                try:
                    original(scene, pair, run, progress, device)
                finally:
                    solve.refined = refined
                self._known = captured[0]
            if self.adam is None:
                return self._known[2]
            begin = time.process_time()
            settings = replace(run.settings, refine="adam", adam=self.adam)
            scene, extractor, field = self._known
            result = solve.refined(scene, extractor, settings, self.adam, field, lambda fraction: None)
            self.seconds = time.process_time() - begin
            return result

        return one_way


def run(folder: Path, preset: str, weights: Sequence[float], names: str, pairs: int) -> None:
    """Write what is not there yet to ``folder``."""
    data = data_folder()
    if data is None:
        raise SystemExit("the images are absent; set SAMCONVEX_DATA")
    torch.set_num_threads(1)
    # What an earlier run left must not make this one's pyramid look cheap.
    os.environ["SAMCONVEX_NO_DISK_CACHE"] = "1"
    records = folder / f"{preset}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    done = {(record["pair"], record["candidate"]) for record in read(records)}
    wanted = candidates(PRESETS[preset], weights)
    for name, group, load in [pair for pair in pairs_of(preset, data) if names in pair[0]][:pairs]:
        left = {key: adam for key, adam in wanted.items() if (name, key) not in done}
        if left:
            for record in refined_by(left, PRESETS[preset], load()):
                with open(records, "a") as file:
                    file.write(json.dumps({"pair": name, "group": group, **record}) + "\n")


def refined_by(wanted: dict[str, AdamSettings | None], preset: Settings, case: Case) -> Iterator[dict[str, Any]]:
    """A record for each candidate, as soon as it is known."""
    refiner, original = Refiner(), solve._one_way
    settings: dict[str, Any] = {"preset": replace(preset, refine="adam"), "device": "cpu", "threads": 1}
    images, grid = (case.fixed, case.moving), common_grid(case.fixed)
    solve._one_way = refiner.solved(original)
    try:
        # The pyramid alone first, as a user has it, so that its seconds are known.
        begin = time.process_time()
        plain = register(*images, **settings).fixed_to_moving
        whole = time.process_time() - begin
        affine = Transform(plain.parts[1:])
        for name, refiner.adam in wanted.items():
            refiner.seconds = 0.0
            found = plain if refiner.adam is None else find_map(*images, initial_transform=affine, **settings)[0]
            figures = assess(case, found, grid)
            _, path, sign, _ = merit_of([figures])  # type: ignore[misc]
            record = {"candidate": name, "figure": value(figures, path), "sign": sign, "sdlogj": figures["sdlogj"]}
            yield record | {"seconds": refiner.seconds, "without": whole}
    finally:
        solve._one_way = original


def read(records: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in records.read_text().splitlines()] if records.is_file() else []


def table(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a group and candidate, over the group's pairs that every candidate has."""
    names = list(dict.fromkeys(record["candidate"] for record in records))
    by_pair: dict[str, dict[str, dict[str, Any]]] = {}
    for record in records:
        by_pair.setdefault(record["pair"], {})[record["candidate"]] = record
    whole = [found for found in by_pair.values() if set(found) == set(names)]
    rows = []
    for group in dict.fromkeys(record["group"] for record in records):
        of_group = [found for found in whole if found[names[0]]["group"] == group]
        for name in names if of_group else ():
            kept = [found[name] for found in of_group]
            figures = np.array([record["figure"] for record in kept])
            gained = figures - [found[NONE]["figure"] for found in of_group] if NONE in names else figures * 0
            rows.append(
                {
                    "group": group,
                    "candidate": name,
                    "n": len(kept),
                    "figure": float(figures.mean()),
                    "worst": float(kept[0]["sign"] * min(kept[0]["sign"] * figures)),
                    "sdlogj": float(np.mean([record["sdlogj"] for record in kept])),
                    "share": float(np.mean([r["seconds"] / (r["seconds"] + r["without"]) for r in kept])),
                    "gained": float(gained.mean()),
                    "interval": interval(gained),
                }
            )
    return rows


def printed(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| | last stage | n | Dice or mm | worst | SDlogJ | share of the time | change | 95 % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["interval"]
        lines.append(
            f"| {row['group']} | {row['candidate']} | {row['n']} | {row['figure']:.4f} | {row['worst']:.3f} "
            f"| {row['sdlogj']:.3f} | {100 * row['share']:.0f} % | {row['gained']:+.4f} | {low:+.4f} to {high:+.4f} |"
        )
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """The figure against SDlogJ, a line for each group through its weights."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    for group in dict.fromkeys(row["group"] for row in rows):
        kept = sorted((r for r in rows if r["group"] == group), key=lambda row: row["sdlogj"])
        axes.plot([r["sdlogj"] for r in kept], [r["figure"] for r in kept], "o-", label=group)
        for row in kept:
            axes.annotate(row["candidate"], (row["sdlogj"], row["figure"]))
    axes.set(xlabel="SDlogJ", ylabel="Dice, or error of a known warp in mm")
    axes.legend()
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "table", "picture"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--preset", default="ct-inter-patient")
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS, metavar="W")
    parser.add_argument("--only", default="", metavar="TEXT", help="only pairs whose name contains TEXT")
    parser.add_argument("--pairs", type=int, default=len(PATIENTS), metavar="N")
    chosen = parser.parse_args()
    if chosen.what == "run":
        run(chosen.folder, chosen.preset, chosen.weights, chosen.only, chosen.pairs)
    rows = table(read(chosen.folder / f"{chosen.preset}.jsonl"))
    if chosen.what == "picture":
        picture(rows, chosen.folder / f"{chosen.preset}.png")
    print(printed(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
