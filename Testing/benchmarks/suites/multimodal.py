"""Across modalities: DNS, FeatCNN and MIND with the convex, Adam and diffusion solvers, against peers with MI and MIND.

Pairs whose truth is known although the images look different: MR to CT and T1 to T2 or FLAIR under known warps, brain
label maps painted as T1 and T2, hippocampi in random contrasts, and a CT whose organs change their brightness. Our
methods are named FEATURE-REFINEMENT (mind-none, dns-adam, featcnn-diffusion, ...), or NETWORK-REFINEMENT for a network
of ``--networks``; ants and elastix use mutual information by default, ``greedy-nmi`` its NMI metric.

``--ablation`` compares what MASR-Net is made of instead: feature maps with and without self-similarity, one and two
layouts, untrained and trained, smoothed and not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from samconvex import Volume, read_labels, read_volume
from samconvex.networks.masr import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, MASRNet
from samconvex.space.intensity import normalized_intensity
from samconvex.space.transforms import Transform
from samconvex.synthetic.warps import random_warp
from samconvex.training.data.contrast import random_contrast
from samconvex.training.loop import save_checkpoint
from samconvex.weights.models import family_of, load_network

from ..data.pairs import REPOSITORY, Case, Pair, _seen, data_folder
from ..methods.peers import METHODS as PEERS
from ..methods.runs import TIMES, command_of, create_peers_environment, describe_machine, run_all, run_process
from ..results.pages import PICTURES, footer, groups, multimodal_lines
from ..results.records import commands_of, folder_of, remember_command
from ..results.tables import summarize, time_ratios
from .multimodal_landscape import landscape_lines

PAGE = Path(__file__).resolve().parents[1] / "RESULTS-multimodal.md"
PICTURE = "benchmark-multimodal-landscape.png"
FEATURES, REFINEMENTS = ("mind", "dns", "featcnn"), ("none", "adam", "diffusion")
FEATURE_OF = {"masr": "dns", "featcnn": "featcnn"}
OWN = tuple(f"{feature}-{refinement}" for feature in FEATURES for refinement in REFINEMENTS)
DEFAULT = (*OWN, "convexadam", "greedy-nmi", "ants", "elastix")
# What MASR-Net is made of, at random initialization.
VARIANTS: dict[str, dict[str, Any]] = {
    "untrained maps": {"similarity": False},
    "untrained dns": {},
    "untrained dns, one layout": {"layouts": (1,)},
    "untrained dns, unsmoothed": {"smoothed": False},
    "dns of the image": {"learned": False},
}
# And the trained network without its Gaussian.
UNSMOOTHED = "unsmoothed"
BRAINS = "brain T1-T2"
# Never trained on: see training/configs/masr.json and featcnn.json.
MR_CT = tuple(f"sts{number:03d}" for number in range(1, 9))
HIPPOCAMPI = ("hc097", "hc098", "hc099", "hc101", "hc102", "hc104", "hc105", "hc106", "hc107", "hc108")
SEQUENCES = (("btp002", "t2"), ("btp003", "flair"), ("btp003", "t2"), ("btp002", "flair"))
WARP_MM = 15.0
# FreeSurfer ids: white matter, ventricles, and gray matter for all others; mean intensities of T1 and T2.
WHITE, FLUID = (2, 41, 7, 46, 16, 28, 60, 77), (4, 5, 14, 15, 24, 43, 44)
CONTRASTS = {"t1": (0.55, 0.85, 0.15), "t2": (0.6, 0.4, 0.95)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; the exit status is 1 if a run failed."""
    parser = argparse.ArgumentParser(prog="samconvex benchmark --suite multimodal", description=__doc__)
    parser.add_argument("--pairs", type=int, default=4, metavar="N", help="pairs of each kind (default 4)")
    parser.add_argument("--only", default="", metavar="TEXT", help="pairs whose name or kind contains TEXT")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help=f"among {', '.join((*OWN, *PEERS))}")
    parser.add_argument(
        "--networks",
        nargs="+",
        default=[],
        metavar="NAME=WEIGHTS",
        help="further networks, or other weights than the shipped ones for dns and featcnn",
    )
    parser.add_argument("--ablation", action="store_true", help="variants of MASR-Net instead of the peers")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmark-output", metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="keep the finished runs found in DIR/multimodal")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--untimed", action="store_true", help="record no times: the machine is busy with other work")
    parser.add_argument("--publish", action="store_true", help=f"then write {PAGE.name} from what DIR holds")
    chosen = parser.parse_args(arguments)
    data = data_folder()
    if data is None:
        parser.error("this suite needs the evaluation images (SAMCONVEX_DATA)")
    pairs = [pair for pair in all_pairs(data, chosen.pairs) if chosen.only in f"{pair.group} {pair.name}"]
    if not pairs:
        parser.error(f"no pair's name or kind contains {chosen.only!r}")
    output = folder_of(chosen.output, "multimodal")
    networks = dict(word.split("=", 1) for word in chosen.networks if "=" in word)
    if chosen.ablation:
        networks |= {name: str(file) for name, file in masr_variants(output / "networks", networks.get("dns")).items()}
    usual = [f"{name}-none" for name in ("mind", "dns", *networks)] if chosen.ablation else DEFAULT
    methods = list(dict.fromkeys(chosen.methods or usual))
    unknown = [name for name in methods if name not in PEERS and not _is_ours(name, networks)]
    if unknown:
        parser.error(f"unknown method {unknown[0]!r}")
    if any(name in PEERS for name in methods):
        create_peers_environment()

    def launch(method: str, pair: Pair, job: Path, folder: Path) -> dict:
        record = run_process(words_of(method, pair, job, folder, chosen.threads, networks), folder, chosen.threads)
        return {key: item for key, item in record.items() if not (chosen.untimed and key in TIMES)}

    # MR and CT of a patient lie in one frame already, and the hippocampi are centered: everybody starts from there.
    starts = output / "starts"
    starts.mkdir(parents=True, exist_ok=True)
    for pair in pairs:
        if pair.group != BRAINS:
            Transform().save(starts / f"{pair.name}.tfm")
    remember_command(output, "multimodal", sys.argv[1:] if arguments is None else arguments)
    records = run_all(pairs, methods, output, launch, resume=chosen.resume, starts=starts)
    document = write_results(output)
    print("\n".join(multimodal_lines(document)))
    if chosen.publish:
        publish_page(output, document)
    return int(any("failed" in record for record in records))


def write_results(output: Path) -> dict:
    """Gather every record on disk into multimodal.json; returns the document."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((output / "runs").glob("*/*.json"))]
    order = ["start", *DEFAULT]
    records.sort(
        key=lambda record: (
            record["group"],
            record["pair"],
            order.index(record["method"]) if record["method"] in order else len(order),
            record["method"],
        )
    )
    document = {
        "machine": describe_machine(),
        "commands": commands_of(output),
        "summary": summarize(records),
        "time_ratios": time_ratios(records),
        "records": records,
    }
    (output / "multimodal.json").write_text(json.dumps(document, indent=1))
    return document


def publish_page(output: Path, document: dict, target: Path = PAGE, pictures: Path = PICTURES) -> None:
    """Write the results page, with the landscape that ``multimodal_landscape.py`` left in ``output`` if it did."""
    text = page(document)
    measured, picture = output / "landscape.json", output / "landscape.png"
    if measured.is_file():
        text += "\n" + "\n".join(landscape_lines(json.loads(measured.read_text(encoding="utf-8")))) + "\n"
        if picture.is_file():
            pictures.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, pictures / PICTURE)
            text += f"\n![loss landscapes](../../Resources/Screenshots/{PICTURE})\n"
    target.write_text(text)


def page(document: dict) -> str:
    """The results page of this suite; variants of MASR-Net get a table of their own."""
    records = document["records"]
    variants = {f"{name}-none" for name in (*VARIANTS, UNSMOOTHED)}
    ablated = {record["pair"] for record in records if record["method"] in variants}
    compared = [
        record
        for record in records
        if record["pair"] in ablated and record["method"] in {*variants, "start", "mind-none", "dns-none"}
    ]
    methods = {**document, "records": [record for record in records if record["method"] not in variants]}
    lines = [
        "# Results across modalities",
        "",
        "Written by `samconvex benchmark --suite multimodal --publish`; do not edit.",
        "",
        "Every method gets the same two images on one grid and starts from the same place: as they lie, brains of two",
        "people from our learning-free affine (row `start`). Truth: the known warp, or label maps.",
        "",
        *multimodal_lines(methods),
    ]
    if compared:
        lines += [
            "## What MASR-Net is made of",
            "",
            "The convex levels alone: untrained feature maps compared directly, self-similarity (DNS) of untrained",
            "maps, of one layout, without the Gaussian, of the image itself, and the trained network without and with",
            "its Gaussian.",
            "",
            *groups({**document, "records": compared}),
        ]
    return "\n".join([*lines, *footer(document)]).rstrip() + "\n"


def masr_variants(folder: Path, trained: str | None = None) -> dict[str, Path]:
    """Weights files of MASR-Net's variants: untrained ones, and the trained network without its smoothing.

    Args:
        trained: weights by name or file; None is the shipped ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, MASRNet] = {}
    for name, options in VARIANTS.items():
        torch.manual_seed(0)
        made[name] = MASRNet(**options)
    network = load_network(MASRNet, trained)
    made[UNSMOOTHED] = MASRNet(**{**network.config, "smoothed": False})
    made[UNSMOOTHED].load_state_dict(network.state_dict())
    files = {name: folder / f"{name}.pt" for name in made}
    for name, variant in made.items():
        save_checkpoint(files[name], variant, CHECKPOINT_FORMAT, CHECKPOINT_VERSION, {})
    return files


def _is_ours(method: str, networks: dict[str, str]) -> bool:
    name, _, refinement = method.rpartition("-")
    return name in (*FEATURES, *networks) and refinement in REFINEMENTS


def words_of(method: str, pair: Pair, job: Path, output: Path, threads: int, networks: dict[str, str]) -> list[str]:
    """The process of one run."""
    if method in PEERS:
        return command_of(method, pair.preset, job, output, threads)
    name, _, refinement = method.rpartition("-")
    weights = networks.get(name)
    feature = name if name in FEATURES or weights is None else FEATURE_OF[family_of(weights)]
    words = ["-m", "benchmarks.methods.ours", pair.preset, str(job), str(output), "--threads", str(threads)]
    words += ["--features", feature, "--refine", refinement]
    return [sys.executable, *words, *(["--weights", weights] if weights else [])]


def all_pairs(data: Path, count: int) -> list[Pair]:
    """``count`` pairs of each kind."""
    brains = sorted((data / "brain").glob("labelmap*.nii.gz"))
    pairs = [
        Pair(f"mrct-{name}", "MR-CT known warp", "mr-ct", _mr_ct(data, name, n)) for n, name in enumerate(MR_CT[:count])
    ]
    pairs += [
        Pair(f"{case}-{sequence}", "T1-T2/FLAIR known warp", "brain-mr", _sequences(data, case, sequence, n))
        for n, (case, sequence) in enumerate(SEQUENCES[:count])
    ]
    pairs += [
        Pair(f"brain-{n:02d}", BRAINS, "brain-mr", _brain(brains[n], brains[(n + 1) % len(brains)], n))
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
    return _aligned(data / "mrct" / f"{name}_ct.nii.gz", data / "mrct" / f"{name}_mr.nii.gz", seed)


def _sequences(data: Path, case: str, sequence: str, seed: int) -> Callable[[], Case]:
    return _aligned(data / "brain" / f"{case}_t1.nii.gz", data / "brain" / f"{case}_{sequence}.nii.gz", seed)


def _aligned(first: Path, second: Path, seed: int) -> Callable[[], Case]:
    """Two images of a patient in one frame, the second under a known warp."""

    def load() -> Case:
        fixed, resting = read_volume(first), read_volume(second)
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
