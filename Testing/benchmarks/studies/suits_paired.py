"""Held-out hippocampi under FeatCNN before and after end-to-end training, case by case: ``suits_paired.py``.

Each image is registered to the next one as in the training's own validation (15 Gauss-Newton steps, both images
centered), once in its own contrast and once in a random one through the other modality's branch.
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
MIND = "mind"


class MindNetwork(torch.nn.Module):
    """MIND-SSC at FeatCNN's stride, as what FeatCNN imitates; the branch makes no difference."""

    stride = 2

    def forward(self, values: torch.Tensor, branch: str) -> torch.Tensor:
        return torch.nn.functional.avg_pool3d(mind_ssc(values.float()), self.stride)


def network_of(name: str) -> FeatCNN:
    """FeatCNN by weights, or MIND in its place."""
    return MindNetwork() if name == MIND else load_network(FeatCNN, name)  # type: ignore[return-value]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default="featcnn", metavar="WEIGHTS", help=f"the replicator, or {MIND}")
    parser.add_argument("--after", default="suits", metavar="WEIGHTS", help=f"trained end to end, or {MIND}")
    parser.add_argument("--cases", type=int, default=12, help="hippocampi that no training used (at most 20)")
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
    images = load_images(
        data,
        spacing=settings.spacing_mm,
        include=[f"hippocampus/{name}_mr.nii.gz" for name in names],
        exclude=[],
        progress=lambda fraction, message: None,
    )
    before, after = (pair_dice(network_of(name), images, settings) for name in (chosen.before, chosen.after))
    figures: dict = {"cases": [image.name for image in images]}
    for kind in before:
        if kind == "start":
            figures[kind] = before[kind]
            print(f"start: mean {sum(before[kind]) / len(images):.4f}")
            continue
        differences = [b - a for a, b in zip(before[kind], after[kind], strict=True)]
        figures[kind] = {
            "before": before[kind],
            "after": after[kind],
            "difference": sum(differences) / len(differences),
            "better": sum(d > 0 for d in differences),
            "p": wilcoxon(differences),
        }
        for name, a, b in zip(figures["cases"], before[kind], after[kind], strict=True):
            print(f"{kind} {name}: {a:.4f} -> {b:.4f} ({b - a:+.4f})")
        print(
            f"{kind}: mean {sum(before[kind]) / len(differences):.4f} -> {sum(after[kind]) / len(differences):.4f}, "
            f"better in {figures[kind]['better']} of {len(differences)}, Wilcoxon p {figures[kind]['p']:.2g}"
        )
    if chosen.output is not None:
        chosen.output.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
