"""What instance optimization adds as the last stage, for several weights, on patients that may be trained on.

``python Testing/benchmarks/studies/last_stage.py run --folder DIR`` solves the pyramid of every pair once and refines
its field with every candidate; a stopped run goes on where it was. ``table --folder DIR`` prints the means over the
pairs that every candidate has: Dice, the worst pair, the deviation of the logarithm of the Jacobian determinant, and
the processor's seconds of the refinement as a share of the whole. ``picture`` draws Dice against that deviation.

No pair has an evaluation patient. The networks of the organs never saw these head-neck cases but were selected on them;
of btcv they saw none.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "SAMConvexRegistration"), str(REPOSITORY / "Testing")]

from samconvex import register  # noqa: E402
from samconvex.deform.scene import Extractor, Scene  # noqa: E402
from samconvex.io.images import read_labels, read_volume  # noqa: E402
from samconvex.registration import solve  # noqa: E402
from samconvex.settings.presets import PRESETS  # noqa: E402
from samconvex.settings.registration import AdamSettings, Settings  # noqa: E402
from samconvex.space.field import DisplacementField  # noqa: E402

from benchmarks.data.pairs import data_folder  # noqa: E402

PAIRS = (
    ("headneck", "hn168", "hn172"),
    ("abdomen", "btcv00", "btcv01"),
    ("headneck", "hn182", "hn200"),
    ("abdomen", "btcv02", "btcv03"),
    ("headneck", "hn022", "hn034"),
    ("abdomen", "btcv04", "btcv05"),
    ("headneck", "hn004", "hn060"),
    ("abdomen", "btcv06", "btcv09"),
    ("headneck", "hn061", "hn082"),
    ("headneck", "hn087", "hn099"),
)
WEIGHTS = (0.03, 0.1, 0.3)


def candidates(preset: Settings) -> dict[str, AdamSettings | None]:
    """The preset's own pyramid, and refined with every weight."""
    own = preset.adam
    found: dict[str, AdamSettings | None] = {"none": None}
    return found | {f"weight {weight:g}": replace(own, regularization=weight) for weight in WEIGHTS}


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


def run(folder: Path, preset: str, pairs: int) -> None:
    data = data_folder()
    if data is None:
        raise SystemExit("the images are absent; set SAMCONVEX_DATA")
    torch.set_num_threads(1)
    # What an earlier run left must not make this one's pyramid look cheap.
    os.environ["SAMCONVEX_NO_DISK_CACHE"] = "1"
    chosen = PRESETS[preset]
    records = folder / f"{preset}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    done = {(record["pair"], record["candidate"]) for record in read(records)}
    for region, first, second in PAIRS[:pairs]:
        name = f"{first}-{second}"
        left = [key for key in candidates(chosen) if (name, key) not in done]
        if not left:
            continue
        cases = [data / region / case for case in (first, second)]
        images = [read_volume(f"{case}_ct.nii.gz") for case in cases]
        labels = [read_labels(f"{case}_seg.nii.gz") for case in cases]
        refiner = Refiner()
        original = solve._one_way
        solve._one_way = refiner.solved(original)
        try:
            # The pyramid alone first, so that its seconds are known.
            for key in ["none", *(key for key in left if key != "none")]:
                refiner.adam, refiner.seconds = candidates(chosen)[key], 0.0
                begin = time.process_time()
                result = register(
                    *images,
                    preset=replace(chosen, refine="adam"),
                    fixed_labels=labels[0],
                    moving_labels=labels[1],
                    device="cpu",
                    threads=1,
                )
                if key == "none":
                    whole = time.process_time() - begin
                record = {"pair": name, "candidate": key, "dice": result.report["dice"]["final_mean"]}
                record |= {"sdlogj": result.report["sdlogj"], "seconds": refiner.seconds, "without": whole}
                if (name, key) not in done:
                    with open(records, "a") as file:
                        file.write(json.dumps(record) + "\n")
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
    whole = {pair: found for pair, found in by_pair.items() if set(found) == set(names)}
    rows = []
    for group in ("hn", "btcv"):
        of_group = [found for pair, found in whole.items() if pair.startswith(group)]
        for name in names if of_group else ():
            kept = [found[name] for found in of_group]
            rows.append(
                {
                    "group": group,
                    "candidate": name,
                    "n": len(kept),
                    "dice": float(np.mean([r["dice"] for r in kept])),
                    "worst": min(r["dice"] for r in kept),
                    "sdlogj": float(np.mean([r["sdlogj"] for r in kept])),
                    "share": float(np.mean([r["seconds"] / (r["seconds"] + r["without"]) for r in kept])),
                }
            )
    return rows


def printed(rows: list[dict[str, Any]]) -> str:
    lines = ["| | last stage | n | Dice | worst | SDlogJ | share of the time |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['group']} | {row['candidate']} | {row['n']} | {row['dice']:.4f} | {row['worst']:.3f} "
            f"| {row['sdlogj']:.3f} | {100 * row['share']:.0f} % |"
        )
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Dice against SDlogJ, a line for each group through its weights."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    for group in dict.fromkeys(row["group"] for row in rows):
        kept = sorted((r for r in rows if r["group"] == group), key=lambda row: row["sdlogj"])
        axes.plot([r["sdlogj"] for r in kept], [r["dice"] for r in kept], "o-", label=group)
        for row in kept:
            axes.annotate(row["candidate"], (row["sdlogj"], row["dice"]))
    axes.set(xlabel="SDlogJ", ylabel="Dice")
    axes.legend()
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "table", "picture"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--preset", default="ct-inter-patient")
    parser.add_argument("--pairs", type=int, default=len(PAIRS))
    chosen = parser.parse_args()
    if chosen.what == "run":
        run(chosen.folder, chosen.preset, chosen.pairs)
    rows = table(read(chosen.folder / f"{chosen.preset}.jsonl"))
    if chosen.what == "picture":
        picture(rows, chosen.folder / f"{chosen.preset}.png")
    print(printed(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
