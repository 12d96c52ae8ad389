"""What LapIRN and SAM-VoxelMorph reach in one pass after the affine: ``feed_forward.py run --folder DIR``.

Every pair is aligned once (SAM-affine, as the preset ``affine`` does it); the networks start from that, alone or as
first stage of the coarse levels of ``fast-preview``, and so do those levels alone. Pairs are those of training patients
that neither network learned from; ``--pairs evaluation`` takes the 20 head-neck and 15 abdomen pairs, which decide
nothing. A stopped run goes on where it was; ``table --folder DIR`` prints what is there. Seconds are the processor's,
one thread, of finding both maps; peaks are the process's while it finds them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[3] / "SAMConvexRegistration"),
]

from samconvex import read_labels, read_volume  # noqa: E402
from samconvex.memory import forget_peak_memory, peak_memory_mib  # noqa: E402
from samconvex.registration import solve  # noqa: E402
from samconvex.registration.register import find_map  # noqa: E402
from samconvex.settings.presets import PRESETS  # noqa: E402
from samconvex.settings.registration import Settings  # noqa: E402
from samconvex.space.transforms import Transform  # noqa: E402

from benchmarks.data.pairs import Case, Pair, choose_pairs, data_folder  # noqa: E402
from benchmarks.methods.assess import assess  # noqa: E402
from benchmarks.methods.job import common_grid  # noqa: E402
from benchmarks.results.paired import interval  # noqa: E402

AFFINE = "affine"
NETWORKS = {"SAM-VoxelMorph": "same-ct", "LapIRN": "lapirn-ct"}
GROUPS = {"head-neck": "headneck", "abdomen": "abdomen"}
# Held out of both networks' training, or never brought into its frame.
TRAINING = (
    ("head-neck", "hn168", "hn172"),
    ("abdomen", "btcv03", "btcv06"),
    ("head-neck", "hn182", "hn200"),
    ("abdomen", "btcv06", "btcv11"),
    ("head-neck", "hn022", "hn034"),
    ("abdomen", "btcv11", "btcv03"),
    ("head-neck", "hn004", "hn060"),
    ("head-neck", "hn061", "hn082"),
    ("head-neck", "hn087", "hn099"),
)


def methods() -> dict[str, Settings]:
    """What is done after the affine: nothing, one network alone, ``fast-preview``'s levels without and with one."""
    alone = replace(PRESETS["affine"], name="network")
    found = {AFFINE: PRESETS["affine"]}
    found |= {name: replace(alone, initial_network=weights) for name, weights in NETWORKS.items()}
    found["coarse levels"] = PRESETS["fast-preview"]
    return found | {
        f"{name}, coarse levels": replace(PRESETS["fast-preview"], initial_network=weights)
        for name, weights in NETWORKS.items()
    }


def training_pairs(data: Path) -> list[Pair]:
    """Pairs that may decide something."""

    def load(folder: Path, names: tuple[str, str]) -> Case:
        fixed, moving = (read_volume(folder / f"{name}_ct.nii.gz") for name in names)
        labels = [read_labels(folder / f"{name}_seg.nii.gz") for name in names]
        return Case(fixed, moving, labels=(labels[0], labels[1]))

    return [
        Pair(f"{first}-{second}", group, "affine", partial(load, data / GROUPS[group], (first, second)))
        for group, first, second in TRAINING
    ]


def in_turn(pairs: list[Pair]) -> list[Pair]:
    """The pairs of the groups that count, one of each in turn: a stopped run has some of both."""
    groups = [[pair for pair in pairs if pair.group == group] for group in GROUPS]
    return [pair for row in zip_longest(*groups) for pair in row if pair is not None]


def run(folder: Path, pairs: list[Pair], wanted: dict[str, Settings]) -> None:
    """Write what is not there yet to ``folder``: ``records.jsonl``, and every pair's affine."""
    folder.mkdir(parents=True, exist_ok=True)
    records = folder / "records.jsonl"
    done = {(record["pair"], record["method"]) for record in read(records)}
    for pair in pairs:
        left = {name: settings for name, settings in wanted.items() if (pair.name, name) not in done}
        if left:
            for record in measured(pair.load(), left, folder / f"{pair.name}.tfm"):
                with open(records, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"pair": pair.name, "group": pair.group, **record}) + "\n")


def measured(case: Case, wanted: dict[str, Settings], start: Path) -> Iterator[dict[str, Any]]:
    """A record for each method as soon as it is known; ``wanted`` has the affine unless the file ``start`` does."""
    grid = common_grid(case.fixed)
    for name, settings in wanted.items():
        options = {} if name == AFFINE else {"initial_transform": Transform.load(start)}
        forget_peak_memory()
        with network_clock() as network:
            begin = time.process_time()
            found, _ = find_map(case.fixed, case.moving, preset=settings, device="cpu", threads=1, **options)
            seconds = time.process_time() - begin
        peak = peak_memory_mib()
        if name == AFFINE:
            found.save(start)
        figures = assess(case, found, grid)
        yield {
            "method": name,
            "dice": figures["dice_mean"],
            "organs": figures["dice"],
            "sdlogj": figures.get("sdlogj"),
            "folding_percent": figures.get("folding_percent"),
            "seconds": seconds,
            "network_seconds": network[0] if network else None,
            "peak_mib": peak,
        }


@contextmanager
def network_clock() -> Iterator[list[float]]:
    """Gathers the processor's seconds of every pass of a network, what it is shown included."""
    seconds: list[float] = []
    original: Callable[..., Any] = solve.predicted

    def timed(*given: Any, **named: Any) -> Any:
        begin = time.process_time()
        field = original(*given, **named)
        seconds.append(time.process_time() - begin)
        return field

    with mock.patch.object(solve, "predicted", timed):
        yield seconds


def read(records: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in records.read_text("utf-8").splitlines()] if records.is_file() else []


def table(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a group and method, over the group's pairs that every method has; seconds include the affine's."""
    names = list(dict.fromkeys(record["method"] for record in records))
    by_pair: dict[str, dict[str, dict[str, Any]]] = {}
    for record in records:
        by_pair.setdefault(record["pair"], {})[record["method"]] = record
    whole = [found for found in by_pair.values() if set(found) == set(names)]
    rows = []
    for group in dict.fromkeys(record["group"] for record in records):
        kept = [found for found in whole if found[AFFINE]["group"] == group]
        for name in names if kept else ():
            own = [found[name] for found in kept]
            dice = np.array([record["dice"] for record in own])
            before = np.array([found[AFFINE]["dice"] for found in kept])
            affine = [0.0 if name == AFFINE else found[AFFINE]["seconds"] for found in kept]
            rows.append(
                {
                    "group": group,
                    "method": name,
                    "n": len(kept),
                    "dice": float(dice.mean()),
                    "sd": float(dice.std(ddof=1)) if len(kept) > 1 else None,
                    "interval": interval(dice),
                    "worst": float(dice.min()),
                    "better": int((dice > before).sum()),
                    "sdlogj": _mean([record["sdlogj"] for record in own]),
                    "folding": _mean([record["folding_percent"] for record in own]),
                    "network": _mean([record["network_seconds"] for record in own]),
                    "seconds": float(np.mean([r["seconds"] + a for r, a in zip(own, affine, strict=True)])),
                    "after": None if name == AFFINE else float(np.mean([record["seconds"] for record in own])),
                    "peak": max(record["peak_mib"] for record in own),
                }
            )
    return rows


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def printed(rows: list[dict[str, Any]]) -> str:
    def number(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    lines = [
        "| | method | n | Dice | SD | 95 % | worst | better than the affine | SDlogJ | folds, % | network, s | "
        "after the affine, s | whole, s | peak, MiB |",
        "|" + "---|" * 14,
    ]
    for row in rows:
        low, high = row["interval"]
        cells = [row["group"], row["method"], str(row["n"]), f"{row['dice']:.3f}", number(row["sd"], 3)]
        cells += [f"{low:.3f} to {high:.3f}", f"{row['worst']:.3f}", "" if row["after"] is None else str(row["better"])]
        cells += [number(row["sdlogj"], 2), number(row["folding"], 3), number(row["network"], 1)]
        cells += [number(row["after"], 1), number(row["seconds"], 1), f"{row['peak']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR")
    parser.add_argument("--pairs", choices=("training", "evaluation"), default="training")
    parser.add_argument("--methods", nargs="+", default=list(methods()), metavar="NAME", help="affine comes first")
    parser.add_argument("--only", default="", metavar="TEXT", help="only pairs whose name contains TEXT")
    chosen = parser.parse_args()
    known = methods()
    if unknown := set(chosen.methods) - set(known):
        parser.error(f"there is no method {', '.join(sorted(unknown))}; choose of: {', '.join(known)}")
    wanted = {name: settings for name, settings in known.items() if name in (AFFINE, *chosen.methods)}
    if chosen.what == "run":
        torch.set_num_threads(1)
        # What an earlier run embedded must not make this one look cheap.
        os.environ["SAMCONVEX_NO_DISK_CACHE"] = "1"
        data = data_folder()
        if data is None:
            parser.error("this needs the images (SAMCONVEX_DATA)")
        evaluation = chosen.pairs == "evaluation"
        pairs = choose_pairs(20, data, 15) if evaluation else training_pairs(data)
        run(chosen.folder, [pair for pair in in_turn(pairs) if chosen.only in pair.name], wanted)
    print(printed(table([r for r in read(chosen.folder / "records.jsonl") if r["method"] in wanted])))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
