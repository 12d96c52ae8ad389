"""Landmark suite: how far matched points lie from the truth, what is found or lost, and which first alignment fails.

``samconvex benchmark --suite landmarks``: writes ``landmarks.md`` and ``landmarks.json``; every finished pair is
kept, so an interrupted run goes on. Needs the evaluation images (SAMCONVEX_DATA or ``../shared/data``).
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from samconvex.align.by_embeddings import sam_affine
from samconvex.align.by_images import moments_affine
from samconvex.anatomy.body import body_mask
from samconvex.anatomy.embed import embed
from samconvex.anatomy.embedding import SamEmbedding
from samconvex.io.images import read_labels, read_volume
from samconvex.landmarks.matching import Matches, match_points
from samconvex.networks.sam_compact import SAMCompact
from samconvex.registration.register import register
from samconvex.space.field import DisplacementField
from samconvex.space.grid import Grid
from samconvex.space.transforms import Transform
from samconvex.space.volume import Volume, resample
from samconvex.synthetic.warps import random_warp
from samconvex.weights import models as weights

from ..data.label_landmarks import ABDOMEN, HEAD_NECK, label_landmarks
from ..data.pairs import EVALUATION_ABDOMENS, REPOSITORY, WARPED_CASES, data_folder

METHODS = ("sam", "sam-fast", "sam-random", "box", "moments", "sam-affine")
# The points carried by our own registration; minutes for all pairs, so only where it is asked for.
REGISTRATION = "registration"
PEERS = ("convexadam", "greedy", "greedy-own", "greedy-affine")
FAILED_DICE = 0.15
COLUMNS = "points | mean | median | p90 | max | hit"
HIT_MM = 10.0


@dataclass
class LandmarkPair:
    """Two images and corresponding points (N, 3) LPS mm by name; labels where overlap can be measured."""

    name: str
    group: str
    template: Volume
    query: Volume
    names: list[str]
    points: np.ndarray
    truth: np.ndarray
    labels: tuple[Volume, Volume] | None = None
    cuts: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; returns the exit status."""
    parser = argparse.ArgumentParser(prog="samconvex benchmark --suite landmarks", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=REPOSITORY / "benchmark-output")
    parser.add_argument("--pairs", type=int, default=20, help="head-neck pairs (default: all 20)")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"of {', '.join((*METHODS, REGISTRATION))}")
    parser.add_argument("--peers", default="", help=f"carriers from make benchmark's environment: {', '.join(PEERS)}")
    parser.add_argument("--groups", default="head-neck,abdomen,trunk,lung,warps")
    parser.add_argument("--weights", help="network weights (default: the shipped ones)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    data = data_folder()
    if data is None:
        print("The evaluation images are not there; set SAMCONVEX_DATA.")
        return 2
    model = weights.load_sam(options.weights)
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "landmarks.json"
    document = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if document.get("weights") != model.sha256:
        document = {"weights": model.sha256, "points": [], "runs": [], "cuts": []}
    methods = [m for m in options.methods.split(",") if m] + [m for m in options.peers.split(",") if m]
    for name, load in all_pairs(data, options.pairs, options.groups.split(",")):
        done = {run["method"] for run in document["runs"] if run["pair"] == name}
        wanted = [m for m in methods if m not in done]
        if wanted:
            run_pair(load(), wanted, model, document, options)
            temporary = file.with_suffix(".partial")
            temporary.write_text(json.dumps(document, indent=1))
            temporary.replace(file)
            (options.output / "landmarks.md").write_text(markdown(document))
    print((options.output / "landmarks.md").read_text(encoding="utf-8"))
    return 0


def all_pairs(data: Path, head_neck: int, groups: list[str]) -> Iterator[tuple[str, Callable[[], LandmarkPair]]]:
    """Every pair by name, loaded on demand."""
    if "head-neck" in groups:
        for row in (data / "headneck_pairs.csv").read_text(encoding="utf-8").split()[1 : head_neck + 1]:
            fixed, moving = row.split(",")
            yield f"{fixed}-{moving}", lambda f=fixed, m=moving: _labeled(data / "headneck", f, m, "head-neck")
    if "abdomen" in groups:
        for first, second in itertools.combinations(EVALUATION_ABDOMENS, 2):
            yield f"{first}-{second}", lambda f=first, m=second: _labeled(data / "abdomen", f, m, "abdomen")
    if "lung" in groups:
        yield "lungpair", lambda: _lung(data / "lungpair")
    if "trunk" in groups:
        for first, second in (("lidc0001", "ts_example"), ("ts_example", "lidc0001")):
            yield f"{first}-{second}", lambda f=first, m=second: _labeled(data / "trunk", f, m, "trunk")
    if "warps" in groups:
        for seed, case in enumerate(WARPED_CASES):
            yield f"warp-{case}", lambda c=case, s=seed: _warped(data / "trunk" / f"{c}_ct.nii.gz", s)


def _labeled(folder: Path, first: str, second: str, group: str) -> LandmarkPair:
    images = [read_volume(folder / f"{case}_ct.nii.gz") for case in (first, second)]
    labels = [read_labels(folder / f"{case}_seg.nii.gz") for case in (first, second)]
    settings = {"head-neck": HEAD_NECK, "abdomen": ABDOMEN}.get(group)
    found = [label_landmarks(label, settings) for label in labels]
    names = sorted(set(found[0]) & set(found[1]))
    points, truth = (np.stack([one[name] for name in names]) for one in found)
    cuts = _cut_levels(truth) if group == "head-neck" else []
    return LandmarkPair(f"{first}-{second}", group, *images, names, points, truth, (labels[0], labels[1]), cuts)


def _cut_levels(truth: np.ndarray) -> list[float]:
    """The level that halves the landmarks: once everything below is cut away, once everything above (negative)."""
    return [float(np.median(truth[:, 2]))] if len(truth) >= 6 else []


def _lung(folder: Path) -> LandmarkPair:
    points, truth = (
        np.loadtxt(folder / f"{side}_landmarks_lps.csv", delimiter=",", skiprows=1) for side in ("fixed", "moving")
    )
    images = [read_volume(folder / f"{side}_ct.nii.gz") for side in ("fixed", "moving")]
    return LandmarkPair("lungpair", "lung", *images, [f"{n:02d}" for n in range(len(points))], points, truth)


def _warped(path: Path, seed: int) -> LandmarkPair:
    volume = read_volume(path)
    moving, warp = random_warp(volume, 15.0, seed, affine=False)
    body = body_mask(volume)
    places = body.grid.voxels_to_points(body.tensor[0, 0].nonzero().flip(1).numpy())
    chosen = places[np.random.default_rng(seed).choice(len(places), 400, replace=False)]
    truth = warp.map_points(chosen)
    # A margin of 10 mm: what leaves the image is not to be found.
    seen = volume.grid.contains(chosen) & _inside(moving.grid, truth, 10.0)
    points, truth = chosen[seen][:150], truth[seen][:150]
    name = path.name.removesuffix("_ct.nii.gz")
    return LandmarkPair(f"warp-{name}", "warps", volume, moving, [f"{n}" for n in range(len(points))], points, truth)


def _inside(grid: Grid, points: np.ndarray, margin_mm: float) -> np.ndarray:
    voxels = grid.points_to_voxels(points)
    margin = margin_mm / np.asarray(grid.spacing)
    return np.all((voxels > margin - 0.5) & (voxels < np.asarray(grid.size) - 0.5 - margin), axis=1)


def run_pair(
    pair: LandmarkPair, methods: list[str], model: weights.SamModel, document: dict, options: argparse.Namespace
) -> None:
    """Run the methods on a pair and append what they did to ``document``."""
    embeddings: list[SamEmbedding] = []
    embedding_seconds = 0.0
    if any(method.startswith("sam") for method in methods):
        begin = time.perf_counter()
        embeddings = [embed(volume, model) for volume in (pair.template, pair.query)]
        embedding_seconds = time.perf_counter() - begin
    for method in methods:
        begin = time.perf_counter()
        found: Matches | None = None
        transform: Transform | None = None
        run: dict = {"pair": pair.name, "group": pair.group, "method": method}
        if method in ("sam", "sam-fast"):
            mode = "stable" if method == "sam" else "fast"
            found = match_points(embeddings[0], pair.points, embeddings[1], mode=mode)
        elif method == "sam-random":
            torch.manual_seed(0)
            untrained = weights.compact_model(SAMCompact(), "untrained", "0" * 64)
            pairs = [embed(volume, untrained) for volume in (pair.template, pair.query)]
            found = match_points(pairs[0], pair.points, pairs[1], mode="fast")
        elif method == "box":
            answers = _by_box(pair)
        elif method == "moments":
            result = moments_affine(pair.template, pair.query)
            transform, run["confidence"] = Transform((result.transform,)), result.confidence
        elif method == "sam-affine":
            affine, details = sam_affine(embeddings[0], embeddings[1])
            transform, run["confidence"] = Transform((affine,)), details["confidence"]
        elif method == REGISTRATION:
            transform = register(pair.template, pair.query, device="cpu").fixed_to_moving
        else:
            transform, record = _peer(pair, method, options)
            run.update(record)
            if transform is None:
                document["runs"].append(run)
                continue
        run.setdefault("seconds", time.perf_counter() - begin)
        if method in ("sam", "sam-fast", "sam-affine"):
            run["embedding_seconds"] = embedding_seconds
        if found is not None:
            answers = found.points
        elif transform is not None:
            answers = transform.map_points(pair.points)
            if pair.labels is not None:
                run["dice"] = mean_dice(pair.labels, transform)
        document["runs"].append(run)
        errors = np.linalg.norm(answers - pair.truth, axis=1)
        for row, name in enumerate(pair.names):
            point = {"pair": pair.name, "group": pair.group, "method": method, "name": name}
            point["error"] = float(errors[row])
            if found is not None:
                point.update(
                    score=float(found.score[row]), cycle=float(found.cycle_mm[row]), found=bool(found.found[row])
                )
            document["points"].append(point)
        text = f"{pair.name:>22} {method:<12} median {np.median(errors):6.2f}  p90 {np.percentile(errors, 90):6.2f}"
        print(f"{text}  max {errors.max():6.1f} mm  {run['seconds']:.1f} s  {run.get('dice', '')}", flush=True)
        if method == "sam":
            document["cuts"] += [record for level in pair.cuts for record in _cut(pair, embeddings[0], level, model)]


def _cut(pair: LandmarkPair, template: SamEmbedding, level: float, model: weights.SamModel) -> Iterator[dict]:
    """Match into the query's lower and upper half: points beyond the cut must be lost, the others found."""
    voxels = pair.query.grid.points_to_voxels(np.array([[*pair.query.grid.center[:2], level]]))
    axis = int(np.argmax(np.abs(np.reshape(pair.query.grid.direction, (3, 3))[2])))
    index = int(round(voxels[0, axis]))
    size, lower = list(pair.query.grid.size), [0, 0, 0]
    for side in ("low", "high"):
        extent, start = size.copy(), lower.copy()
        if side == "low":
            extent[axis] = index
        else:
            start[axis], extent[axis] = index, size[axis] - index
        if extent[axis] < 16:
            continue
        part = tuple(slice(start[a], start[a] + extent[a]) for a in (2, 1, 0))
        grid = pair.query.grid.cropped(start, extent)
        half = pair.query.with_tensor(pair.query.tensor[(..., *part)].contiguous(), grid)
        matches = match_points(template, pair.points, embed(half, model))
        inside = _inside(grid, pair.truth, 10.0)
        outside = ~_inside(grid, pair.truth, -15.0)
        for row in np.nonzero(inside | outside)[0]:
            yield {
                "pair": pair.name,
                "side": side,
                "name": pair.names[row],
                "present": bool(inside[row]),
                "found": bool(matches.found[row]),
                "score": float(matches.score[row]),
                "cycle": float(matches.cycle_mm[row]),
                "error": float(np.linalg.norm(matches.points[row] - pair.truth[row])),
            }


def _by_box(pair: LandmarkPair) -> np.ndarray:
    """Relative position in the body's bounding box."""
    ends = []
    for volume in (pair.template, pair.query):
        body = body_mask(volume)
        corners = body.grid.voxels_to_points(body.tensor[0, 0].nonzero().flip(1).numpy())
        ends.append((corners.min(0), corners.max(0)))
    (low, high), (low2, high2) = ends
    return low2 + (pair.points - low) / (high - low) * (high2 - low2)


def mean_dice(labels: tuple[Volume, Volume], transform: Transform) -> float:
    """Mean over the labels both maps have."""
    # Thin organs on thick slices: both maps on a common 2 mm grid.
    grid = labels[0].grid.canonical(2.0)
    fixed = resample(labels[0], grid, mode="nearest").tensor
    moved = transform.warp_nearest(labels[1], grid).tensor
    values = sorted(set(labels[0].tensor.unique().tolist()) & set(labels[1].tensor.unique().tolist()) - {0})
    overlaps = []
    for value in values:
        a, b = fixed == value, moved == value
        overlaps.append(2 * float((a & b).sum()) / max(float(a.sum() + b.sum()), 1.0))
    return float(np.mean(overlaps))


def _peer(pair: LandmarkPair, method: str, options: argparse.Namespace) -> tuple[Transform | None, dict]:
    """A registration tool as landmark carrier: the common affine start, then its displacement field."""
    import SimpleITK as sitk

    from ..data.pairs import Case
    from ..methods.job import is_prepared, prepare
    from ..methods.runs import command_of, run_process

    job = options.output / "work" / pair.name
    if not is_prepared(job):
        start = Transform((moments_affine(pair.template, pair.query).transform,))
        prepare(Case(pair.template, pair.query), start, job)
    output = job / f"{method}-landmarks"
    output.mkdir(exist_ok=True)
    record = run_process(command_of(method, "", job, output, options.threads), output, options.threads)
    if "failed" in record:
        return None, {"failed": record["failed"]}
    displacement = DisplacementField.from_sitk_image(sitk.ReadImage(str(output / "field.mha")))
    start = () if method.endswith(("-own", "-affine")) else Transform.load(job / "start.tfm").parts
    (output / "field.mha").unlink()
    return Transform((displacement, *start)), {"seconds": record.get("seconds", record["process_seconds"])}


def markdown(document: dict) -> str:
    """The tables of ``landmarks.md``."""
    lines = ["# Landmarks", "", f"Weights {document['weights'][:16]}. Errors in mm; hit: within {HIT_MM:g} mm.", ""]
    groups = list(dict.fromkeys(point["group"] for point in document["points"]))
    for group in groups:
        head = f"| method | pairs | {COLUMNS} | max found | lost | median, 95 % | s |"
        lines += [f"## {group}", "", head, "|---|" + "---|" * 11]
        for method in dict.fromkeys(p["method"] for p in document["points"] if p["group"] == group):
            chosen = [p for p in document["points"] if p["group"] == group and p["method"] == method]
            runs = [r for r in document["runs"] if r["group"] == group and r["method"] == method and "seconds" in r]
            seconds = np.median([r["seconds"] for r in runs])
            low, high = median_interval(chosen)
            lines.append(f"| {method} | {len(runs)} | {_cells(chosen)} | {low:.1f} to {high:.1f} | {seconds:.2f} |")
        lines += [""]
    kinds = {"center": "centroids", "cord": "spinal cord by level", "": "extreme points"}
    for key, title in kinds.items():
        chosen = [p for p in document["points"] if p["group"] == "head-neck" and _kind(p["name"]) == key]
        if chosen:
            lines += [f"## head-neck, {title}", "", f"| method | {COLUMNS} |", "|---|" + "---|" * 6]
            for method in dict.fromkeys(p["method"] for p in chosen):
                lines.append(f"| {method} | {_cells([p for p in chosen if p['method'] == method], 6)} |")
            lines += [""]
    ours = [p for p in document["points"] if p["group"] == "head-neck" and p["method"] == "sam"]
    if ours:
        lines += ["## head-neck by landmark (sam)", "", f"| landmark | {COLUMNS} |", "|---|" + "---|" * 6]
        for kind in sorted({p["name"] for p in ours}):
            lines.append(f"| {kind} | {_cells([p for p in ours if p['name'] == kind], 6)} |")
        lines += [""]
    lines += _cut_table(document["cuts"]) + _dice_table(document["runs"])
    return "\n".join(lines) + "\n"


def median_interval(points: list[dict], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the median error, mm, by percentiles of a bootstrap over the pairs; over the points of one."""
    errors: dict[str, list[float]] = {}
    for point in points:
        errors.setdefault(point["pair"], []).append(point["error"])
    groups = list(errors.values()) if len(errors) > 1 else [[error] for error in next(iter(errors.values()))]
    random = np.random.default_rng(seed)
    medians = [
        np.median(np.concatenate([groups[k] for k in random.integers(len(groups), size=len(groups))]))
        for _ in range(draws)
    ]
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def _kind(name: str) -> str:
    return "cord" if name.startswith("cord") else "center" if name.endswith("center") else ""


def _cells(points: list[dict], count: int = 8) -> str:
    errors = np.array([p["error"] for p in points])
    kept = np.array([p["error"] for p in points if p.get("found", True)])
    lost = 1 - len(kept) / len(errors)
    cells = [
        f"{len(errors)}",
        f"{errors.mean():.2f}",
        f"{np.median(errors):.2f}",
        f"{np.percentile(errors, 90):.2f}",
        f"{errors.max():.1f}",
        f"{100 * (errors < HIT_MM).mean():.1f} %",
        f"{kept.max():.1f}" if len(kept) else "-",
        f"{100 * lost:.1f} %",
    ]
    return " | ".join(cells[:count])


def _cut_table(cuts: list[dict]) -> list[str]:
    if not cuts:
        return []
    present, absent = ([c for c in cuts if c["present"] is there] for there in (True, False))
    lost = np.mean([not c["found"] for c in present])
    false = np.mean([c["found"] for c in absent])
    area = ranking(np.array([c["score"] for c in present]), np.array([c["score"] for c in absent]))
    return [
        "## cut fields of view",
        "",
        f"Query cut at the middle of its landmarks: {len(present)} present points, {len(absent)} absent points.",
        "",
        f"- false-lost (present, not found): {100 * lost:.1f} %",
        f"- false-found (absent, found): {100 * false:.1f} %",
        f"- area under the curve of the score alone: {area:.3f}",
        "",
    ]


def ranking(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive ranks above a negative."""
    return float((positive[:, None] > negative[None]).mean() + 0.5 * (positive[:, None] == negative[None]).mean())


def _dice_table(runs: list[dict]) -> list[str]:
    lines = ["## first alignment, head-neck pairs", "", "| method | pairs | mean Dice | min | failures (< 0.15) | s |"]
    lines += ["|---|---|---|---|---|---|"]
    for method in dict.fromkeys(r["method"] for r in runs if "dice" in r):
        chosen = [r for r in runs if r["method"] == method and r["group"] == "head-neck" and "dice" in r]
        if not chosen:
            continue
        dice = np.array([r["dice"] for r in chosen])
        seconds = np.median([r["seconds"] + r.get("embedding_seconds", 0.0) for r in chosen])
        lines.append(
            f"| {method} | {len(dice)} | {dice.mean():.3f} | {dice.min():.3f} | {(dice < FAILED_DICE).sum()} | "
            f"{seconds:.1f} |"
        )
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
