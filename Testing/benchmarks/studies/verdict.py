"""How often the verdict on a registration is right: results known to be right, and many kinds of wrong ones.

``python Testing/benchmarks/studies/verdict.py --work FILE.jsonl``: registers every case that the file does not hold
yet and appends its evidence and its truth; then judges all of them. Without ``--work`` it judges the published cases
(results/verdict.json) by the limits as they are now. Patients are split in two: limits were chosen by
the first group ("fit"), the second ("held out") tells how good they are. No evaluation patient takes part.

Right and wrong are decided by truth, not by kind: by the centroids of organs, by a known warp, or by what was done to
the images (a mirrored image has no right result). Cases between right and wrong are listed, not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "SAMConvexRegistration"), str(REPOSITORY / "Testing")]

from samconvex.anatomy.body import body_mask  # noqa: E402
from samconvex.errors import InputError  # noqa: E402
from samconvex.io.images import read_labels, read_volume  # noqa: E402
from samconvex.registration.register import register  # noqa: E402
from samconvex.report.verdict import verdict  # noqa: E402
from samconvex.settings.presets import PRESETS  # noqa: E402
from samconvex.settings.registration import Settings  # noqa: E402
from samconvex.space.field import DisplacementField  # noqa: E402
from samconvex.space.grid import Grid  # noqa: E402
from samconvex.space.linear import rotation  # noqa: E402
from samconvex.space.transforms import AffineTransform, Transform  # noqa: E402
from samconvex.space.volume import Volume, average_to, resample  # noqa: E402

from benchmarks.data.pairs import data_folder  # noqa: E402

PUBLISHED = REPOSITORY / "Testing" / "benchmarks" / "results" / "verdict.json"
# Half of each group is for choosing limits, half for testing them; never patients of an evaluation.
HEADS = {
    "fit": ("hn092", "hn108", "hn196", "hn084", "hn132", "hn022", "hn201", "hn119"),
    "held out": ("hn126", "hn172", "hn182", "hn141", "hn139", "hn114", "hn020", "hn021"),
}
ABDOMENS = {"fit": ("btcv00", "btcv01", "btcv03", "btcv04"), "held out": ("btcv05", "btcv09", "btcv10", "btcv11")}
LIMBS = {"fit": ("sts001", "sts003", "sts006", "sts010"), "held out": ("sts012", "sts014", "sts018", "sts023")}
CHESTS = {"fit": ("nsclcrg001", "nlst"), "held out": ("lidc0314", "cmbcrc01068")}
HIPPOCAMPI = {
    "fit": ("hc001", "hc003", "hc004", "hc006"),
    "held out": ("hc007", "hc008", "hc011", "hc014"),
}
TUBULAR = (2, 5)
# Millimeters that organs' centers (median) or a known warp (median) may be off.
RIGHT_MM, WRONG_MM = 10.0, 15.0
RIGHT_WARP_MM, WRONG_WARP_MM = 4.0, 8.0

FAST = replace(PRESETS["fast-preview"], affine="sam")
FAST_SAME = replace(FAST, coupling=0.12, affine_model="rigid", same_patient=True)
FAST_AS_IS = replace(FAST_SAME, affine="none")
SMALL = replace(PRESETS["brain-mr"], affine="none")


@dataclass(frozen=True)
class Case:
    """A pair to register; ``made`` gives fixed, moving, further arguments of register(), and what tells the truth.

    The truth is a function of the result that gives "right", "wrong" or "unclear" and the error in mm, or "wrong" for
    inputs without a right result.
    """

    kind: str
    group: str
    name: str
    settings: Settings | str
    made: Callable[[], tuple[Volume, Volume, dict, Callable | str]]


# --- images ---------------------------------------------------------------------------------------------------------
def image(folder: str, name: str, spacing: float = 0.0) -> Volume:
    data = data_folder()
    assert data is not None
    volume = read_volume(data / folder / f"{name}_ct.nii.gz" if "_" not in name else data / folder / f"{name}.nii.gz")
    return average_to(volume, spacing) if spacing else volume


def labels(folder: str, name: str) -> Volume:
    data = data_folder()
    assert data is not None
    return read_labels(data / folder / f"{name}_seg.nii.gz")


def centers(volume: Volume, left_out: tuple[int, ...] = TUBULAR) -> dict[int, np.ndarray]:
    """Centers of the organs that are no tubes, LPS mm."""
    values = volume.tensor[0, 0]
    return {
        int(label): volume.grid.voxels_to_points((values == label).nonzero().flip(1).numpy()).mean(0)
        for label in values.unique().tolist()
        if label > 0 and label not in left_out
    }


def by_organs(
    fixed: dict[int, np.ndarray], moving: dict[int, np.ndarray], right_mm: float = RIGHT_MM, wrong_mm: float = WRONG_MM
) -> Callable:
    """Truth from the organs that both images show."""
    common = sorted(fixed.keys() & moving.keys())

    def judge(result) -> tuple[str, float]:
        mapped = result.fixed_to_moving.map_points(np.stack([fixed[label] for label in common]))
        error = float(np.median(np.linalg.norm(mapped - np.stack([moving[label] for label in common]), axis=1)))
        return ("right" if error <= right_mm else "wrong" if error > wrong_mm else "unclear"), error

    return judge


def random_of(*words: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(" ".join(words).encode()))


def warp_of(volume: Volume, random: np.random.Generator, size_mm: float, angle: float, shift: float) -> Transform:
    """A smooth warp and a small rigid motion; maps points of the new image to points of ``volume``."""
    grid = Grid.covering(volume.grid.corners(), 8.0, margin_mm=16.0)
    coarse = torch.from_numpy(random.normal(size=(1, 3, 5, 5, 5))).float()
    field = F.interpolate(coarse, size=grid.shape, mode="trilinear", align_corners=True) * size_mm
    center = volume.grid.center
    pose = AffineTransform.about(center, rotation(*random.uniform(-angle, angle, 3)), random.uniform(-shift, shift, 3))
    return Transform((DisplacementField(field, grid), pose))


def rescanned(volume: Volume, random: np.random.Generator, size_mm: float = 4.0) -> tuple[Volume, Callable]:
    """The same patient another day, and the truth of registering ``volume`` (fixed) to it."""
    warp = warp_of(volume, random, size_mm, 4.0, 10.0)
    moved = warp.warp_volume(volume.with_tensor(volume.as_float()), volume)
    noisy = moved.with_tensor(moved.tensor + torch.from_numpy(random.normal(0, 15, moved.tensor.shape)).float())
    noisy = noisy.with_tensor(torch.where(moved.tensor > -900, noisy.tensor, moved.tensor))
    points = moved.points(above=-300.0)
    points = points[:: max(1, len(points) // 2000)]

    def judge(result) -> tuple[str, float]:
        error = np.linalg.norm(result.fixed_to_moving.map_points(warp.map_points(points)) - points, axis=1)
        middle = float(np.median(error))
        return ("right" if middle <= RIGHT_WARP_MM else "wrong" if middle > WRONG_WARP_MM else "unclear"), middle

    return noisy, judge


def turned(volume: Volume, *angles: float) -> Volume:
    """As a wrong header would place it."""
    return replace(volume, grid=volume.grid.turned(rotation(*angles), volume.grid.center))


def part(volume: Volume, first: float, last: float) -> Volume:
    """The slices between two shares of the height."""
    depth = volume.tensor.shape[2]
    low, high = int(first * depth), int(last * depth)
    size = (*volume.grid.size[:2], high - low)
    return volume.with_tensor(volume.tensor[:, :, low:high].contiguous(), volume.grid.cropped((0, 0, low), size))


def stretched(volume: Volume, factor: float) -> Volume:
    """With spacing that lies."""
    return replace(volume, grid=volume.grid.scaled(factor))


def couch(volume: Volume, random: np.random.Generator) -> Volume:
    """A scan of an empty table."""
    values = np.full(volume.tensor.shape, -1000.0, np.float32)
    height, width = values.shape[3:]
    top = int(0.6 * height)
    values[..., top : top + max(3, height // 8), width // 8 : -width // 8] = 120.0
    values += random.normal(0, 20, values.shape) * (values > -900)
    return volume.with_tensor(torch.from_numpy(values.astype(np.float32)))


def shuffled(volume: Volume, random: np.random.Generator) -> Volume:
    order = np.arange(volume.tensor.shape[2])
    for first in range(0, len(order) - 6, 6):
        order[first : first + 6] = random.permutation(order[first : first + 6])
    return volume.with_tensor(volume.tensor[:, :, order].contiguous())


def squeezed(volume: Volume) -> Volume:
    """Slices of the middle lost, the others moved together."""
    depth = volume.tensor.shape[2]
    low, high = int(0.42 * depth), int(0.58 * depth)
    kept = torch.cat([volume.tensor[:, :, :low], volume.tensor[:, :, high:]], 2)
    return volume.with_tensor(kept.contiguous(), volume.grid.cropped((0, 0, 0), (*volume.grid.size[:2], kept.shape[2])))


def bridged(volume: Volume) -> Volume:
    """Slices of the middle lost and interpolated."""
    values = volume.as_float().clone()
    depth = values.shape[2]
    low, high = int(0.4 * depth), int(0.6 * depth)
    share = torch.linspace(0, 1, high - low + 1).view(1, 1, -1, 1, 1)
    values[:, :, low : high + 1] = torch.lerp(values[:, :, low, None], values[:, :, high, None], share)
    return volume.with_tensor(values)


def with_ball(volume: Volume, center: np.ndarray, radius: float, value: float) -> Volume:
    distance = torch.from_numpy(np.linalg.norm(volume.grid.voxels_to_points(_lattice(volume)) - center, axis=1))
    inside = (distance < radius).view(volume.tensor.shape)
    return volume.with_tensor(torch.where(inside, torch.tensor(value), volume.as_float()))


def _lattice(volume: Volume) -> np.ndarray:
    depth, height, width = volume.tensor.shape[2:]
    z, y, x = np.mgrid[:depth, :height, :width]
    return np.stack([x, y, z], -1).reshape(-1, 3)


def inner_place(volume: Volume, lower: float, upper: float, random: np.random.Generator) -> np.ndarray:
    """A place of the body whose surroundings (about a centimeter) all lie within the window."""
    body = resample(body_mask(volume), volume.grid, mode="nearest", fill=0.0).tensor > 0
    inside = (body & (volume.as_float() > lower) & (volume.as_float() < upper)).float()
    radius = [max(1, round(9.0 / s)) for s in volume.grid.spacing[::-1]]
    full = -F.max_pool3d(-inside, [2 * r + 1 for r in radius], 1, radius)
    points = volume.with_tensor(full).points(above=0.5)
    return points[random.integers(len(points))]


# --- cases ----------------------------------------------------------------------------------------------------------
def cases() -> list[Case]:
    """All of them, kinds in turn, so that a part of them is a fair sample."""
    kinds: dict[str, list[Case]] = {}
    for group in HEADS:
        for case in chain(_heads(group), _others(group), _small(group)):
            kinds.setdefault(f"{case.kind} {group}", []).append(case)
    return [case for row in zip_longest(*kinds.values()) for case in row if case is not None]


def _heads(group: str) -> Iterator[Case]:
    names = HEADS[group]
    pairs = list(zip(names, names[1:] + names[:1], strict=True))

    def case(kind: str, settings: Settings | str, number: int, made: Callable) -> Case:
        first, second = pairs[number]
        return Case(kind, group, f"{first}-{second}", settings, lambda: made(first, second))

    def organs(first: str, second: str) -> Callable:
        return by_organs(centers(labels("headneck", first)), centers(labels("headneck", second)))

    def plain(first: str, second: str):
        return image("headneck", first), image("headneck", second), {}, organs(first, second)

    def changed(change: Callable[[Volume, np.random.Generator], Volume]) -> Callable:
        def made(first: str, second: str):
            moving = image("headneck", second)
            return image("headneck", first), change(moving, random_of(first, second)), {}, "wrong"

        return made

    def same(first: str, second: str):
        fixed = image("headneck", first)
        moving, judge = rescanned(fixed, random_of(first))
        return fixed, moving, {}, judge

    def same_changed(change: Callable[[Volume, np.random.Generator], Volume]) -> Callable:
        def made(first: str, second: str):
            fixed, moving, extra, _ = same(first, second)
            return fixed, change(moving, random_of(first)), extra, "wrong"

        return made

    def identical(first: str, second: str):
        fixed = image("headneck", first)
        return fixed, replace(fixed, source="copy"), {}, lambda result: ("right", 0.0)

    def little(first: str, second: str):
        return part(image("headneck", first), 0.62, 1.0), part(image("headneck", second), 0.0, 0.38), {}, "wrong"

    def failed(first: str, second: str):
        fixed, moving, _, judge = same(first, second)
        random = random_of("start", first)
        direction = random.normal(size=3)
        shift = direction / np.linalg.norm(direction) * random.uniform(45, 80)
        start = AffineTransform.about(fixed.grid.center, rotation(*random.uniform(-25, 25, 3)), shift)
        return fixed, moving, {"initial_transform": Transform((start,))}, judge

    def resected(first: str, second: str):
        fixed, moving, _, _ = same(first, second)
        random = random_of("lesion", first)
        place = inner_place(moving, -120, 150, random)
        return fixed, with_ball(moving, place, random.uniform(13, 18), -1000.0), {}, "wrong"

    def as_mr(volume: Volume) -> Volume:
        """Brightness as MR might have it: fat bright, muscle gray, bone and air dark; noise stays."""
        values = volume.as_float()
        knots = torch.tensor([-1000.0, -300.0, -100.0, 0.0, 60.0, 150.0, 400.0, 1500.0])
        bright = torch.tensor([0.0, 60.0, 900.0, 500.0, 380.0, 250.0, 80.0, 20.0])
        upper = torch.bucketize(values.clamp(-999, 1499), knots).clamp(1, len(knots) - 1)
        share = (values.clamp(-999, 1499) - knots[upper - 1]) / (knots[upper] - knots[upper - 1])
        return volume.with_tensor(torch.lerp(bright[upper - 1], bright[upper], share))

    def both_kinds(first: str, second: str):
        fixed, moving, extra, judge = same(first, second)
        return fixed, as_mr(moving), extra, judge

    def both_kinds_failed(first: str, second: str):
        fixed, moving, extra, judge = failed(first, second)
        return fixed, as_mr(moving), extra, judge

    def other_patient(first: str, second: str):
        return image("headneck", first), image("headneck", second), {}, "wrong"

    for number in range(len(pairs)):
        yield case("different patients", FAST, number, plain)
        yield case("same patient", FAST_SAME, number, same)
    for number in range(4):
        yield case("other patient than the preset says", FAST_SAME, number, other_patient)
        yield case("failed start", FAST_AS_IS, number, failed)
        yield case("lesion resected", FAST_SAME, number, resected)
        yield case("mirrored", FAST, number, changed(lambda v, r: v.with_tensor(v.tensor.flip(4))))
        yield case("turned 90", FAST, number, changed(lambda v, r: turned(v, 90, 0, 0)))
        yield case("turned 180", FAST, number, changed(lambda v, r: turned(v, 0, 0, 180)))
        yield case("little overlap", FAST, number, little)
        yield case("spacing lies", FAST, number, changed(lambda v, r: stretched(v, 1.3)))
        yield case("couch only", FAST, number, changed(couch))
        yield case("slices shuffled", FAST, number, changed(shuffled))
        yield case("slices lost", FAST_SAME, number, same_changed(lambda v, r: squeezed(v)))
        yield case("slices interpolated", FAST_SAME, number, same_changed(lambda v, r: bridged(v)))
        yield case("CT and simulated MR", FAST_AS_IS, number, both_kinds)
        yield case("CT and simulated MR, failed start", FAST_AS_IS, number, both_kinds_failed)
    for number in range(2):
        yield case("identical images", FAST, number, identical)
        yield case("different patients, default settings", "ct-inter-patient", number + 2, plain)
        yield case("spacing lies, same patient", FAST_SAME, number + 4, same_changed(lambda v, r: stretched(v, 1.3)))
        yield case(
            "mirrored, same patient", FAST_SAME, number + 4, same_changed(lambda v, r: v.with_tensor(v.tensor.flip(4)))
        )
        yield case(
            "mirrored, default settings",
            "ct-inter-patient",
            number + 4,
            changed(lambda v, r: v.with_tensor(v.tensor.flip(4))),
        )


def _others(group: str) -> Iterator[Case]:
    heads, abdomens, limbs, chests = HEADS[group], ABDOMENS[group], LIMBS[group], CHESTS[group]
    for first, second in zip(abdomens[:-1], abdomens[1:], strict=True):

        def between(first: str = first, second: str = second):
            judge = by_organs(centers(labels("abdomen", first)), centers(labels("abdomen", second)))
            return image("abdomen", first), image("abdomen", second), {}, judge

        name = f"{first}-{second}"
        yield Case("different patients, abdomen", group, name, FAST, between)
        yield Case("different patients, abdomen, default settings", group, name, "ct-inter-patient", between)
    for head, abdomen in zip(heads, abdomens, strict=False):

        def elsewhere(head: str = head, abdomen: str = abdomen):
            return image("headneck", head), part(image("abdomen", abdomen), 0.3, 0.8), {}, "wrong"

        yield Case("other body part", group, f"{head}-{abdomen}", FAST, elsewhere)
    between_modalities = replace(FAST_AS_IS, modality="mr and ct")
    for number, limb in enumerate(limbs):
        other = limbs[(number + 1) % len(limbs)]

        def both(ct: str = limb, mr: str = limb, change: Callable | None = None):
            fixed, moving = image("mrct", ct), image("mrct", f"{mr}_mr")
            if mr == ct:
                # Their makers put both into one frame by eye: how well nobody knows.
                return fixed, change(moving) if change else moving, {}, "unclear" if change is None else "wrong"
            shift = moving.grid.center - fixed.grid.center
            start = Transform((AffineTransform(np.eye(3), shift),))
            return fixed, moving, {"initial_transform": start}, "wrong"

        yield Case("MR and CT", group, limb, between_modalities, both)
        yield Case("MR and CT, as they lie", group, limb, replace(between_modalities, levels=()), both)
        yield Case(
            "MR and CT, other patient, as they lie",
            group,
            f"{limb}-{other}",
            replace(between_modalities, levels=()),
            lambda a=limb, b=other, f=both: f(a, b),
        )
        yield Case(
            "MR and CT, other patient",
            group,
            f"{limb}-{other}",
            between_modalities,
            lambda a=limb, b=other, f=both: f(a, b),
        )
        yield Case(
            "MR and CT, failed start",
            group,
            limb,
            between_modalities,
            lambda a=limb, f=both: f(a, a, lambda v: replace(v, grid=replace(v.grid, origin=_moved(v.grid.origin)))),
        )
        yield Case(
            "wrong modality",
            group,
            limb,
            replace(FAST_AS_IS, modality="ct"),
            lambda a=limb, f=both: (*f(a)[:3], "wrong"),
        )
    for chest in chests:

        def nodule(chest: str = chest):
            fixed = image("trunk", chest, 3.0)
            random = random_of("nodule", chest)
            moving, _ = rescanned(fixed, random, 3.0)
            place = inner_place(fixed, -930, -650, random)
            return with_ball(fixed, place, random.uniform(13, 18), 40.0), moving, {}, "wrong"

        def breathing(chest: str = chest):
            fixed = image("trunk", chest, 3.0)
            moving, judge = rescanned(fixed, random_of("chest", chest), 3.0)
            return fixed, moving, {}, judge

        def exchanged_sides(chest: str = chest):
            fixed, moving, _, _ = breathing(chest)
            return fixed, moving.with_tensor(moving.tensor.flip(4)), {}, "wrong"

        yield Case("mirrored, chest", group, chest, replace(FAST, same_patient=False), exchanged_sides)
        yield Case("lesion resected, lung", group, chest, FAST_AS_IS, nodule)
        yield Case("same patient, chest", group, chest, FAST_AS_IS, breathing)


def _small(group: str) -> Iterator[Case]:
    """MR of one organ: no CT, no body outline, no embeddings."""
    names = HIPPOCAMPI[group]
    for first, second in zip(names, names[1:] + names[:1], strict=True):

        def plain(first: str = first, second: str = second, change: Callable | None = None, away: float = 0.0):
            fixed, moving = image("hippocampus", f"{first}_mr"), image("hippocampus", f"{second}_mr")
            shift = moving.grid.center - fixed.grid.center + away * np.array([1.0, -1.0, 0.5])
            extra = {"initial_transform": Transform((AffineTransform(np.eye(3), shift),))}
            if change is not None:
                return fixed, change(moving), extra, "wrong"
            ends = [centers(labels("hippocampus", name), ()) for name in (first, second)]
            return fixed, moving, extra, by_organs(*ends, right_mm=3.0, wrong_mm=6.0)

        name = f"{first}-{second}"
        yield Case("hippocampus", group, name, SMALL, plain)
        yield Case("hippocampus, failed start", group, name, SMALL, lambda f=plain: f(away=12.0))
        yield Case(
            "hippocampus, turned 90", group, name, SMALL, lambda f=plain: f(change=lambda v: turned(v, 0, 0, 90))
        )


def _moved(origin: tuple) -> tuple:
    return (origin[0] + 25.0, origin[1] - 30.0, origin[2] + 40.0)


def collected(case: Case) -> dict:
    """One case's record: what the engine measured and what is true."""
    fixed, moving, extra, truth = case.made()
    record = {"kind": case.kind, "group": case.group, "name": case.name}
    begin = time.process_time()
    settings = case.settings if isinstance(case.settings, Settings) else PRESETS[case.settings]
    record["same_patient"] = settings.same_patient
    try:
        result = register(fixed, moving, preset=settings, device="cpu", **extra)
    except InputError as error:
        return {**record, "truth": "refused", "message": str(error)}
    record["processor_seconds"] = round(time.process_time() - begin, 2)
    told, error = (truth, None) if isinstance(truth, str) else truth(result)
    evidence = {k: round(v, 5) for k, v in result.report["verdict"]["evidence"].items()}
    return {**record, "truth": told, "error_mm": error, "evidence": evidence}


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927)."""
    if not count:
        return 0.0, 1.0
    z, share = 1.96, hits / count
    center, width = share + z * z / (2 * count), z * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5
    return (center - width) / (1 + z * z / count), (center + width) / (1 + z * z / count)


def judged(records: list[dict]) -> dict:
    """Shares of right and wrong results by level, per kind and altogether, of both groups of patients."""
    figures: dict = {}
    for group in HEADS:
        kinds: dict[str, dict] = {}
        for record in records:
            if record["group"] != group or record["truth"] == "refused":
                continue
            level = verdict(record["evidence"], same_patient=record["same_patient"])["level"]
            for name in (f"{record['truth']}: {record['kind']}", f"all {record['truth']}"):
                row = kinds.setdefault(name, {"n": 0, "good": 0, "check": 0, "do not use": 0})
                row["n"] += 1
                row[level] += 1
        for row in kinds.values():
            flagged = row["check"] + row["do not use"]
            row["flagged"] = round(flagged / row["n"], 4)
            row["interval"] = [round(limit, 4) for limit in wilson(flagged, row["n"])]
        figures[group] = dict(sorted(kinds.items()))
    figures["refused"] = [f"{r['kind']}: {r['name']}" for r in records if r["truth"] == "refused"]
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, metavar="FILE.jsonl", help="one case a line; resumed; absent: judge only")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no case after so long")
    parser.add_argument("--only", default="", help="kinds that contain this")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="figures and cases")
    chosen = parser.parse_args()
    if chosen.work is None:
        records = json.loads(PUBLISHED.read_text(encoding="utf-8"))["cases"]
    elif data_folder() is None:
        parser.error("the images are absent; set SAMCONVEX_DATA, or leave out --work to judge the published cases")
    else:
        records = completed(chosen.work, chosen.only, chosen.minutes)
    figures = judged(records)
    if chosen.output is not None:
        lines = ",\n".join(json.dumps(record) for record in records)
        figures_text = json.dumps(figures, indent=1)
        chosen.output.write_text(f'{{"figures": {figures_text},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(json.dumps(figures, indent=1))
    return 0


def completed(work: Path, only: str, minutes: float) -> list[dict]:
    """The records of a work file, and of the cases that it does not hold yet."""
    torch.set_num_threads(1)
    records = [json.loads(line) for line in work.read_text(encoding="utf-8").splitlines()] if work.exists() else []
    done = {(r["kind"], r["name"]) for r in records}
    begin = time.monotonic()
    for case in cases():
        if (case.kind, case.name) in done or only not in case.kind or time.monotonic() - begin > 60 * minutes:
            continue
        record = collected(case)
        records.append(record)
        with open(work, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{record['kind']} {record['name']}: {record['truth']} {record.get('error_mm')}", flush=True)
    return records


if __name__ == "__main__":
    raise SystemExit(main())
