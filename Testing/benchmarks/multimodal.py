"""Across modalities: DNS, FeatCNN and MIND with the convex, Adam and diffusion solvers, against peers with MI and MIND.

Pairs whose truth is known although the images look different: MR to CT under known warps of the MR, brain label maps
painted as T1 and T2, hippocampi in random contrasts, and a CT whose organs change their brightness. Our methods are
named FEATURE-REFINEMENT (mind-none, dns-adam, featcnn-diffusion, ...); ants and elastix use mutual information by
default, ``greedy-nmi`` its NMI metric.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from samconvex import Volume, read_labels, read_volume
from samconvex.known_warps import random_warp
from samconvex.training.contrast import random_contrast
from samconvex.transforms import Transform
from samconvex.volume import normalized_intensity

from .pairs import REPOSITORY, Case, Pair, _seen, data_folder
from .peers import METHODS as PEERS
from .registration import command_of, create_peers_environment, describe_machine, run_all, run_process
from .tables import markdown, summarize, time_ratios

FEATURES, REFINEMENTS = ("mind", "dns", "featcnn"), ("none", "adam", "diffusion")
# Never trained on: see training/configs/masr.json and featcnn.json.
MR_CT = tuple(f"sts{number:03d}" for number in range(1, 9))
HIPPOCAMPI = ("hc097", "hc098", "hc099", "hc101", "hc102", "hc104", "hc105", "hc106", "hc107", "hc108")
WARP_MM = 15.0
# FreeSurfer ids: white matter, ventricles, and gray matter for all others; mean intensities of T1 and T2.
WHITE, FLUID = (2, 41, 7, 46, 16, 28, 60, 77), (4, 5, 14, 15, 24, 43, 44)
CONTRASTS = {"t1": (0.55, 0.85, 0.15), "t2": (0.6, 0.4, 0.95)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; the exit status is 1 if a run failed."""
    parser = argparse.ArgumentParser(prog="samconvex benchmark --suite multimodal", description=__doc__)
    parser.add_argument("--pairs", type=int, default=4, metavar="N", help="pairs of each kind (default 4)")
    parser.add_argument("--only", default="", metavar="TEXT", help="pairs whose name or kind contains TEXT")
    own = [f"{feature}-{refinement}" for feature in FEATURES for refinement in REFINEMENTS]
    peers = ["convexadam", "greedy-nmi", "ants", "elastix"]
    parser.add_argument("--methods", nargs="+", default=own + peers, metavar="METHOD", choices=own + sorted(PEERS))
    parser.add_argument("--dns-weights", metavar="FILE", help="instead of the shipped ones")
    parser.add_argument("--featcnn-weights", metavar="FILE", help="instead of the shipped ones")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmark-output" / "multimodal", metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="keep the finished runs found in DIR")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args(arguments)
    data = data_folder()
    if data is None:
        parser.error("this suite needs the evaluation images (SAMCONVEX_DATA)")
    pairs = [pair for pair in all_pairs(data, chosen.pairs) if chosen.only in f"{pair.group} {pair.name}"]
    if not pairs:
        parser.error(f"no pair's name or kind contains {chosen.only!r}")
    if any(name in PEERS for name in chosen.methods):
        create_peers_environment()
    weights = {"dns": chosen.dns_weights, "featcnn": chosen.featcnn_weights}

    def launch(method: str, pair: Pair, job: Path, output: Path) -> dict:
        return run_process(words_of(method, pair, job, output, chosen.threads, weights), output, chosen.threads)

    # MR and CT of a patient lie in one frame already, and the hippocampi are centered: everybody starts from there.
    starts = chosen.output / "starts"
    starts.mkdir(parents=True, exist_ok=True)
    for pair in pairs:
        if pair.group != "brain T1-T2":
            Transform().save(starts / f"{pair.name}.tfm")
    records = run_all(pairs, chosen.methods, chosen.output, launch, resume=chosen.resume, starts=starts)
    document = {
        "machine": describe_machine(), "summary": summarize(records), "time_ratios": time_ratios(records),
        "records": records,
    }  # fmt: skip
    (chosen.output / "multimodal.json").write_text(json.dumps(document, indent=1))
    (chosen.output / "multimodal.md").write_text(markdown(document))
    print(markdown(document))
    return int(any("failed" in record for record in records))


def words_of(
    method: str, pair: Pair, job: Path, output: Path, threads: int, weights: dict[str, str | None]
) -> list[str]:
    """The process of one run."""
    if method in PEERS:
        return command_of(method, pair.preset, job, output, threads)
    feature, refinement = method.split("-")
    words = ["-m", "benchmarks.ours", pair.preset, str(job), str(output), "--threads", str(threads)]
    words += ["--features", feature, "--refine", refinement]
    chosen = weights.get(feature)
    return [sys.executable, *words, *(["--weights", chosen] if chosen else [])]


def all_pairs(data: Path, count: int) -> list[Pair]:
    """``count`` pairs of each kind."""
    brains = sorted((data / "brain").glob("labelmap*.nii.gz"))
    pairs = [Pair(f"mrct-{name}", "MR-CT known warp", "mr-ct", _mr_ct(data, name, n))
             for n, name in enumerate(MR_CT[:count])]
    pairs += [
        Pair(f"brain-{n:02d}", "brain T1-T2", "brain-mr", _brain(brains[n], brains[(n + 1) % len(brains)], n))
        for n in range(min(count, len(brains)))
    ]
    pairs += [
        Pair(f"hippocampus-{first}", "hippocampus contrasts", "brain-mr", _hippocampus(data, first, second, n))
        for n, (first, second) in enumerate(zip(HIPPOCAMPI[:count], HIPPOCAMPI[1:], strict=False))
    ]
    pairs += [
        Pair(f"multiphase-{name}", "simulated phases", "ct-multiphase", _phases(data, name, n))
        for n, name in enumerate(("ts_example", "lidc0001")[:count])
    ]
    return pairs


def _mr_ct(data: Path, name: str, seed: int) -> Callable[[], Case]:
    def load() -> Case:
        fixed, resting = (read_volume(data / "mrct" / f"{name}_{kind}.nii.gz") for kind in ("ct", "mr"))
        moving, truth = random_warp(resting, WARP_MM, seed, affine=False)
        return Case(fixed, moving, truth=truth.map_points, truth_points=_seen(fixed, moving, truth.map_points))

    return load


def painted(labels: Volume, contrast: str, seed: int) -> Volume:
    """A label map as an MR: each structure its own shade of white, gray or fluid, partial volume, noise."""
    generator = torch.Generator().manual_seed(seed)
    gray, white, fluid = CONTRASTS[contrast]
    image = torch.zeros(labels.tensor.shape)
    for value in labels.tensor.unique().tolist():
        if value:
            mean = white if value in WHITE else fluid if value in FLUID else gray
            image[labels.tensor == value] = mean + 0.05 * float(torch.randn(1, generator=generator))
    image = torch.nn.functional.avg_pool3d(image, 3, 1, 1)
    image = (image + 0.03 * torch.randn(image.shape, generator=generator)).clamp(min=0) * 1000
    return Volume(image, labels.grid, source=f"{labels.name} as {contrast}")


def _brain(fixed: Path, moving: Path, seed: int) -> Callable[[], Case]:
    def load() -> Case:
        labels = (read_labels(fixed), read_labels(moving))
        return Case(painted(labels[0], "t1", seed), painted(labels[1], "t2", seed + 100), labels=labels)

    return load


def _hippocampus(data: Path, first: str, second: str, seed: int) -> Callable[[], Case]:
    def load() -> Case:
        folder = data / "hippocampus"
        fixed, moving = (read_volume(folder / f"{name}_mr.nii.gz") for name in (first, second))
        labels = [read_labels(folder / f"{name}_seg.nii.gz") for name in (first, second)]
        shift = fixed.grid.center - moving.grid.center
        place = replace(moving.grid, origin=tuple(float(v) for v in np.asarray(moving.grid.origin) + shift))
        generator = torch.Generator().manual_seed(seed)
        values = random_contrast(normalized_intensity(moving), generator, inversion=float(seed % 2)) * 1000
        return Case(
            fixed, Volume(values, place, source=moving.source), labels=(labels[0], replace(labels[1], grid=place))
        )

    return load


def _phases(data: Path, name: str, seed: int) -> Callable[[], Case]:
    def load() -> Case:
        fixed = read_volume(data / "trunk" / f"{name}_ct.nii.gz")
        organs = read_labels(data / "trunk" / f"{name}_seg.nii.gz")
        random = np.random.default_rng(seed)
        enhanced = fixed.tensor.float().clone()
        for value in organs.tensor.unique().tolist():
            if value:
                enhanced[organs.tensor == value] += float(random.uniform(0, 150))
        moving, truth = random_warp(fixed.with_tensor(enhanced), WARP_MM, seed, affine=False)
        return Case(fixed, moving, truth=truth.map_points, truth_points=_seen(fixed, moving, truth.map_points))

    return load


if __name__ == "__main__":
    raise SystemExit(main())
