"""Unseen hippocampi under FeatCNN, before and after end-to-end training, and under MIND: ``suits_paired.py``.

Each image is registered to the next one as in the training's own validation (15 Gauss-Newton steps, both images
centered), once in its own contrast and once in a random one through the other modality's branch. Networks are shipped
names or files; ``mind`` and ``mind-4`` stand for MIND itself, averaged to FeatCNN's stride of 2 or 4 voxels. Every
network is on disk as soon as it ends, and a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[3] / "SAMConvexRegistration"),
]

from samconvex.features.mind import mind_ssc  # noqa: E402
from samconvex.networks.featcnn import FeatCNN  # noqa: E402
from samconvex.training.data.images import load_images  # noqa: E402
from samconvex.training.loop import read_settings  # noqa: E402
from samconvex.training.suits import SuitsSettings, pair_dice  # noqa: E402
from samconvex.weights.models import load_network  # noqa: E402

from benchmarks.data.pairs import REPOSITORY, data_folder  # noqa: E402
from benchmarks.results.paired import wilcoxon  # noqa: E402

CONFIG = REPOSITORY / "SAMConvexRegistration" / "samconvex" / "training" / "configs" / "suits.json"
# MIND under the name of its stride.
MIND = {"mind": 2, "mind-4": 4}
DEFAULT = ("featcnn", "suits", "mind", "mind-4")


class MindNetwork(torch.nn.Module):
    """MIND-SSC at FeatCNN's stride, as what FeatCNN imitates; the branch makes no difference."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, values: torch.Tensor, branch: str) -> torch.Tensor:
        return torch.nn.functional.avg_pool3d(mind_ssc(values.float()), self.stride)


def network_of(name: str) -> FeatCNN:
    """FeatCNN by weights, or MIND in its place."""
    return MindNetwork(MIND[name]) if name in MIND else load_network(FeatCNN, name)  # type: ignore[return-value]


def table(scores: dict[str, dict[str, list[float]]], kind: str) -> list[str]:
    """Mean Dice of every network, and against each other one: the difference, how often better, Wilcoxon's p."""
    names = list(scores)
    lines = ["| network | mean Dice | " + " | ".join(f"against {name}" for name in names) + " |"]
    lines.append("|---|---:|" + "---|" * len(names))
    for name in names:
        own, cells = scores[name][kind], []
        for other in names:
            apart = [a - b for a, b in zip(own, scores[other][kind], strict=True)]
            better = f"{sum(apart) / len(apart):+.3f}, better in {sum(d > 0 for d in apart)}, p {wilcoxon(apart):.2g}"
            cells.append("" if other == name else better)
        lines.append(f"| {name} | {sum(own) / len(own):.3f} | " + " | ".join(cells) + " |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(DEFAULT), metavar="WEIGHTS", help="names, files, MIND")
    parser.add_argument("--cases", type=int, default=20, help="hippocampi that no training used (at most 20)")
    parser.add_argument("--anew", action="store_true", help="SUITS's own descent: features made anew at every step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    chosen = parser.parse_args()
    data = data_folder()
    if data is None:
        parser.error("this needs the evaluation images (SAMCONVEX_DATA)")
    torch.set_num_threads(chosen.threads)
    settings = read_settings(SuitsSettings, CONFIG)
    settings.label_driven = chosen.anew
    names = sorted(settings.exclude)[: chosen.cases]
    file = chosen.output
    key = f"{len(names)} cases{', anew' if chosen.anew else ''}"
    known: dict = json.loads(file.read_text(encoding="utf-8")) if file is not None and file.is_file() else {}
    scores: dict[str, dict[str, list[float]]] = known.setdefault(key, {})
    missing = [name for name in chosen.networks if name not in scores]
    images = []
    if missing:
        images = load_images(
            data,
            spacing=settings.spacing_mm,
            include=[f"hippocampus/{name}_mr.nii.gz" for name in names],
            exclude=[],
            progress=lambda fraction, message: None,
        )
    for name in missing:
        scores[name] = pair_dice(network_of(name), images, settings)
        if file is not None:
            file.write_text(json.dumps(known, indent=1))
        print(f"{name}: {sum(scores[name]['same']) / len(names):.4f}", flush=True)
    start = scores[chosen.networks[0]]["start"]
    print(f"{key}; centered: {sum(start) / len(start):.3f}")
    for kind, title in (("same", "own contrast"), ("other", "random contrast, other branch")):
        print("\n".join(["", f"### {title}", "", *table({name: scores[name] for name in chosen.networks}, kind)]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
