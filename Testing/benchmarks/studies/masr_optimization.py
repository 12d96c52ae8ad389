"""MASR-Net's instance optimization in three levels, DNS against MIND under the same: ``masr_optimization.py``.

Known warps of MR to CT (8 patients) and of T1 to T2 or FLAIR (4 pairs); abdomens, MR to CT of different people (labels
of liver, kidneys and spleen); and 11 brains to one atlas, T1 to T2, in both directions, painted from label maps.
``--tune`` compares settings that the paper leaves open on patients that may be trained on instead. Every run is on disk
as soon as it ends, and a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[3] / "SAMConvexRegistration"),
]

from samconvex import Volume, read_labels, read_volume  # noqa: E402
from samconvex.settings.presets import PRESETS  # noqa: E402
from samconvex.settings.registration import Settings  # noqa: E402
from samconvex.space.transforms import Transform  # noqa: E402

from benchmarks.data.pairs import EVALUATION_ABDOMENS, REPOSITORY, Case, Pair, data_folder  # noqa: E402
from benchmarks.methods.assess import assess  # noqa: E402
from benchmarks.methods.job import common_grid, common_start  # noqa: E402
from benchmarks.results.paired import interval, wilcoxon  # noqa: E402
from benchmarks.suites.ablation import register  # noqa: E402
from benchmarks.suites.multimodal import _brain, _mr_ct, all_pairs  # noqa: E402

# Their CTs are never trained on, nor are any of the MRs.
ABDOMENS = "MR-CT abdomens"
BRAINS = "T1-T2 brains, one atlas"
KNOWN = ("MR-CT known warp", "T1-T2/FLAIR known warp")
# Label of the CT for each of the MR: liver, right kidney, left kidney, spleen.
OF_MR = {1: 6, 2: 2, 3: 3, 4: 1}
# Of the patients that masr.json trains on the small ones: seconds instead of minutes.
TUNING = ("sts019", "sts012", "sts018", "sts024")


def rows() -> dict[str, Settings]:
    """What is compared: the preset, and MIND in its place; both in the levels and descent of ``mr-ct``; and SUITS."""
    whole, ours = PRESETS["masr"], PRESETS["mr-ct"]
    levels = tuple(replace(level, features=("mind",)) for level in ours.levels)
    return {
        "dns": whole,
        "mind": replace(whole, refine_features=("mind",)),
        "dns, mr-ct": ours,
        "mind, mr-ct": replace(ours, levels=levels),
        "suits": PRESETS["suits"],
    }


def variants() -> dict[str, Settings]:
    """The preset with one thing changed that the paper leaves open."""

    def staged(change: Callable[[int, object], object], settings: Settings) -> Settings:
        return replace(settings, stages=tuple(change(n, s) for n, s in enumerate(settings.stages)))  # type: ignore[misc]

    found: dict[str, Settings] = {}
    for feature, settings in list(rows().items())[:2]:
        found[feature] = settings
        for factor in (0.25, 4.0, 16.0):
            found[f"{feature}, lambda x {factor:g}"] = staged(
                lambda _, s, f=factor: replace(s, regularization=f * s.regularization), settings
            )
        for passes in (0, 4, 8):
            found[f"{feature}, {passes} boxes"] = staged(lambda _, s, p=passes: replace(s, box_passes=p), settings)
        for middle in (2.0, 4.0):
            found[f"{feature}, middle grid {middle:g} mm"] = staged(
                lambda n, s, m=middle: replace(s, spacing=m) if n == 1 else s, settings
            )
    return found


def relabeled(labels: Volume, names: dict[int, int]) -> Volume:
    """A label map with other numbers; what is not named becomes background."""
    found = torch.zeros_like(labels.tensor)
    for old, new in names.items():
        found[labels.tensor == old] = new
    return labels.with_tensor(found)


def _abdomens(data: Path, ct: str, mr: str) -> Callable[[], Case]:
    def load() -> Case:
        fixed = read_volume(data / "abdomen" / f"{ct}_ct.nii.gz")
        moving = read_volume(data / "abdomen_mr" / f"{mr}_mr.nii.gz")
        kept = {label: label for label in OF_MR.values()}
        labels = (
            relabeled(read_labels(data / "abdomen" / f"{ct}_seg.nii.gz"), kept),
            relabeled(read_labels(data / "abdomen_mr" / f"{mr}_seg.nii.gz"), OF_MR),
        )
        return Case(fixed, moving, labels=labels)

    return load


def evaluation_pairs(data: Path, abdomens: int) -> list[Pair]:
    """Every pair that is looked at in the end."""
    pairs = [pair for pair in all_pairs(data, 8) if pair.group in KNOWN]
    people = [path.name.removesuffix("_mr.nii.gz") for path in sorted((data / "abdomen_mr").glob("*_mr.nii.gz"))]
    for number, mr in enumerate(people[:abdomens]):
        ct = EVALUATION_ABDOMENS[number % len(EVALUATION_ABDOMENS)]
        pairs.append(Pair(f"{ct}-{mr}", ABDOMENS, "masr", _abdomens(data, ct, mr)))
    return pairs + atlas_pairs(data)


def atlas_pairs(data: Path) -> list[Pair]:
    """The first label map as atlas, every other once as moving and once as fixed image; the fixed one is T1."""
    atlas, *brains = sorted((data / "brain").glob("labelmap*.nii.gz"))
    pairs = []
    for number, brain in enumerate(brains):
        name = brain.name.removesuffix(".nii.gz").removeprefix("labelmap")
        for fixed, moving, title in ((atlas, brain, f"atlas-{name}"), (brain, atlas, f"{name}-atlas")):
            pairs.append(Pair(title, BRAINS, "masr", _brain(fixed, moving, number)))
    return pairs


def tuning_pairs(data: Path, count: int) -> list[Pair]:
    """MR and CT of patients that may be trained on, under known warps."""
    return [Pair(f"mrct-{name}", "tuning", "masr", _mr_ct(data, name, n)) for n, name in enumerate(TUNING[:count])]


def run(pair: Pair, wanted: dict[str, Settings], folder: Path) -> dict[str, dict]:
    """All rows of a pair, from one start; two people start from the preset's affine."""
    file = folder / f"{pair.name}.json"
    known: dict[str, dict] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    missing = [name for name in ("start", *wanted) if name not in known]
    if not missing:
        return known
    case = pair.load()
    start = common_start(case, pair.preset) if pair.group in (ABDOMENS, BRAINS) else Transform()
    for name in missing:
        weights = "suits" if name == "suits" else None
        found, seconds = (start, 0.0) if name == "start" else register(case, wanted[name], start, weights)
        known[name] = {**assess(case, found, common_grid(case.fixed)), "seconds": seconds}
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(known, indent=1))
        print(f"{pair.name}: {name}: {figure(known[name]):.3f}", flush=True)
    return known


def figure(record: dict) -> float:
    """Mean error of a known warp in mm, or mean Dice."""
    return record["known_error_mm"]["mean"] if "known_error_mm" in record else record["dice_mean"]


def table(records: dict[str, dict[str, dict[str, dict]]], first: str) -> list[str]:
    """Of every group: means, how a row differs from ``first`` (95 % by bootstrap over the pairs), and Wilcoxon's p."""
    lines = []
    for group, pairs in records.items():
        dice = "dice_mean" in next(iter(pairs.values()))["start"]
        lines += [f"### {group} ({'Dice' if dice else 'mm left of a known warp'})", ""]
        lines += [f"| row | pairs | mean | against {first} | 95 % | better than {first} | p | SDlogJ | seconds |"]
        lines += ["|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
        names = list(dict.fromkeys(name for found in pairs.values() for name in found))
        for name in names:
            both = [found for found in pairs.values() if name in found and first in found]
            apart = [figure(found[name]) - figure(found[first]) for found in both]
            better = sum(d > 0 if dice else d < 0 for d in apart)
            mean = np.mean([figure(found[name]) for found in both])
            rest = [np.mean([found[name].get(key, np.nan) for found in both]) for key in ("sdlogj", "seconds")]
            compared = len(apart) > 3 and name != first
            p = f"{wilcoxon(apart):.3f}" if compared else ""
            range_ = "{:+.3f} to {:+.3f}".format(*interval(np.array(apart))) if compared else ""
            lines.append(
                f"| {name} | {len(both)} | {mean:.3f} | {np.mean(apart):+.3f} | {range_} | {better} | {p} "
                f"| {rest[0]:.2f} | {rest[1]:.0f} |"
            )
        lines.append("")
    return lines


def main() -> int:
    """Run the study and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true", help="variants on patients that may be trained on")
    parser.add_argument("--pairs", type=int, default=4, metavar="N", help="patients to tune on (default 4)")
    parser.add_argument("--abdomens", type=int, default=12, metavar="N", help="abdomen pairs (default 12)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only pairs whose name or group contains TEXT")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these rows")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmark-output" / "masr-optimization")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    data = data_folder()
    if data is None:
        parser.error("this needs the images (SAMCONVEX_DATA)")
    torch.set_num_threads(chosen.threads)
    pairs = tuning_pairs(data, chosen.pairs) if chosen.tune else evaluation_pairs(data, chosen.abdomens)
    wanted = variants() if chosen.tune else rows()
    unknown = set(chosen.rows or ()) - set(wanted)
    if unknown:
        parser.error(f"no row {sorted(unknown)[0]!r}; choose among: {'; '.join(wanted)}")
    wanted = {name: row for name, row in wanted.items() if not chosen.rows or name in chosen.rows}
    records: dict[str, dict[str, dict[str, dict]]] = {}
    for pair in pairs:
        if chosen.only in f"{pair.group} {pair.name}":
            records.setdefault(pair.group, {})[pair.name] = run(pair, wanted, chosen.output)
    print("\n".join(table(records, next(iter(wanted)))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
