"""What the shortcuts of our SAMConvex cost or gain against the paper's own way: ``paper_shortcuts.py``.

One row for each: the preset ``paper`` with that change alone, and with all of them. They are compared before the
instance optimization; two more rows end with it. Pairs are of patients that may be trained on, so that what is found
may decide. Every run is on disk as soon as it ends, and a second call goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[3] / "SAMConvexRegistration"),
]

from samconvex import read_labels, read_volume  # noqa: E402
from samconvex.features.sam import SamPair  # noqa: E402
from samconvex.settings.presets import PRESETS  # noqa: E402
from samconvex.settings.registration import COUPLINGS, Settings  # noqa: E402

from benchmarks.data.pairs import REPOSITORY, Case, Pair, data_folder  # noqa: E402
from benchmarks.methods.assess import assess  # noqa: E402
from benchmarks.methods.job import common_grid, common_start  # noqa: E402
from benchmarks.results.paired import wilcoxon  # noqa: E402
from benchmarks.suites.ablation import register  # noqa: E402

READ = {"sam-anew": "sam", "sam-anew-fine": "sam-fine"}
# Patients 14 to 19 are for evaluation alone.
ABDOMENS = tuple(f"btcv{number:02d}" for number in range(14))
ALL_CHANNELS = 0


def rows() -> dict[str, tuple[Settings, int]]:
    """Settings of every row, and how many channels embeddings that are read keep (0: all)."""
    whole = PRESETS["paper"]
    levels = tuple(
        replace(level, features=tuple(READ[name] for name in level.features), subdivision=2) for level in whole.levels
    )
    short = replace(whole, levels=levels, couplings=COUPLINGS, adam=replace(whole.adam, pool=1, anew=False))
    paper = replace(whole, refine="none")
    return {
        "as published": (paper, ALL_CHANNELS),
        "embedded once, read where points come to lie": (replace(paper, levels=levels), ALL_CHANNELS),
        "embedded once, 32 channels": (replace(paper, levels=levels), 32),
        "three couplings": (replace(paper, couplings=COUPLINGS), ALL_CHANNELS),
        "all shortcuts": (replace(short, refine="none"), 32),
        "as published, with instance optimization": (whole, ALL_CHANNELS),
        "all shortcuts, with instance optimization": (short, 32),
    }


def training_pairs(data: Path, head_neck: int, abdomen: int) -> list[Pair]:
    """Pairs of patients that no evaluation uses, each patient once."""
    with open(data / "headneck_pairs.csv", newline="") as file:
        kept = {name for row in csv.DictReader(file) for name in row.values()}
    names = {
        "headneck": sorted({path.name[:5] for path in (data / "headneck").glob("hn*_ct.nii.gz")} - kept),
        "abdomen": [name for name in ABDOMENS if (data / "abdomen" / f"{name}_ct.nii.gz").is_file()],
    }
    pairs = []
    for folder, count in (("headneck", head_neck), ("abdomen", abdomen)):
        for fixed, moving in list(zip(names[folder][::2], names[folder][1::2], strict=False))[:count]:
            pairs.append(Pair(f"{fixed}-{moving}", folder, "paper", _load(data / folder, fixed, moving)))
    return pairs


def _load(folder: Path, *names: str) -> Callable[[], Case]:
    def load() -> Case:
        fixed, moving = (read_volume(folder / f"{name}_ct.nii.gz") for name in names)
        labels = [read_labels(folder / f"{name}_seg.nii.gz") for name in names]
        return Case(fixed, moving, labels=(labels[0], labels[1]))

    return load


@contextmanager
def channels_kept(channels: int) -> Iterator[None]:
    """Embeddings that are read keep so many channels."""
    with mock.patch("samconvex.registration.features.SamPair", partial(SamPair, channels=channels)):
        yield


def run(pair: Pair, wanted: dict[str, tuple[Settings, int]], folder: Path) -> list[dict]:
    """All rows of a pair, from the same affine."""
    file = folder / f"{pair.name}.json"
    known: dict[str, dict] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    case, start = None, None
    for name, (settings, channels) in wanted.items():
        if name in known:
            continue
        case = case or pair.load()
        start = start or common_start(case, "ct-inter-patient")
        with channels_kept(channels):
            found, seconds = register(case, settings, start)
        known[name] = {**assess(case, found, common_grid(case.fixed)), "seconds": seconds}
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(known, indent=1))
        print(f"{pair.name}: {name}: Dice {known[name]['dice_mean']:.3f}", flush=True)
    return [{"pair": pair.name, "group": pair.group, "row": name, **known[name]} for name in wanted]


def table(records: list[dict]) -> list[str]:
    """Means of each group's rows, and their differences to the first row."""
    lines = []
    for group in dict.fromkeys(record["group"] for record in records):
        members = [record for record in records if record["group"] == group]
        first = members[0]["row"]
        lines += [f"### {group}", "", "| row | pairs | Dice | difference | p | SDlogJ | seconds |"]
        lines.append("|---|---:|---:|---:|---:|---:|---:|")
        base = {record["pair"]: record["dice_mean"] for record in members if record["row"] == first}
        for row in dict.fromkeys(record["row"] for record in members):
            of_row = [record for record in members if record["row"] == row]
            apart = [record["dice_mean"] - base[record["pair"]] for record in of_row]
            dice, roughness, seconds = (
                float(np.mean([record.get(key, np.nan) for record in of_row]))
                for key in ("dice_mean", "sdlogj", "seconds")
            )
            against = "" if row == first else f"{np.mean(apart):+.3f}"
            p = "" if row == first or len(apart) < 5 else f"{wilcoxon(apart):.3f}"
            lines.append(f"| {row} | {len(of_row)} | {dice:.3f} | {against} | {p} | {roughness:.2f} | {seconds:.0f} |")
        lines.append("")
    return lines


def main() -> int:
    """Run the study and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head-neck", type=int, default=2, metavar="N", help="head-neck pairs (default 2)")
    parser.add_argument("--abdomen", type=int, default=1, metavar="N", help="abdomen pairs (default 1)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains TEXT")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmark-output" / "paper-shortcuts")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    data = data_folder()
    if data is None:
        parser.error("this needs the images (SAMCONVEX_DATA)")
    torch.set_num_threads(chosen.threads)
    wanted = {name: row for name, row in rows().items() if chosen.only in name}
    records = []
    for pair in training_pairs(data, chosen.head_neck, chosen.abdomen):
        records += run(pair, wanted, chosen.output)
    print("\n".join(table(records)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
