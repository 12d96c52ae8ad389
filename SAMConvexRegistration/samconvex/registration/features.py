"""The descriptors of a registration by name: which of them the images have, and each made on first use."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from ..anatomy.cache import embed_cached
from ..anatomy.organs import organ_probabilities
from ..deform.scene import Scene
from ..errors import InputError
from ..features.dns import DnsExtractor, DnsPair
from ..features.featcnn import FeatCnnExtractor
from ..features.hounsfield import Hounsfield
from ..features.mind import Mind
from ..features.organs import SemanticPair
from ..features.protocols import FeatureExtractor, PairFeatures
from ..features.sam import SamAnew, SamPair
from ..networks.featcnn import FeatCNN
from ..networks.masr import MASRNet
from ..progress import Progress, stage
from ..settings.features import FEATURES, networks_of, unknown_feature
from ..settings.registration import Settings
from ..space.intensity import looks_like_ct
from ..space.linear import nearest_axis_rotation, turn
from ..space.transforms import Transform
from ..space.turning import Turn
from ..space.volume import FeatureMap, Volume
from ..weights.models import SamModel, load_network, load_sam, load_semantic, weights_for


def describable(
    settings: Settings, fixed: Volume, moving: Volume, weights: str | os.PathLike | None, warnings: list[str]
) -> Settings:
    """Settings without embeddings where the images are not of the network's modality, if other features remain."""
    of_ct = {name for name in settings.compared if FEATURES[name].of_ct}
    if not of_ct:
        return settings
    embedded = "sam" in networks_of(of_ct)
    other = not_for(load_sam(weights_for("sam", weights)) if embedded else None, fixed, moving)
    if other is None:
        return settings
    nothing_left = f"The features {', '.join(sorted(of_ct))} need CT in Hounsfield units, not {other.name}; use mind."
    levels = []
    for level in settings.levels:
        shares = zip(level.features, level.weights or (1.0,) * len(level.features), strict=True)
        left = [(name, weight) for name, weight in shares if name not in of_ct]
        if not left:
            raise InputError(nothing_left)
        names, factors = zip(*left, strict=True)
        levels.append(replace(level, features=names, weights=factors))
    warnings.append(f"Features of CT were not compared ({other.name} is no CT in Hounsfield units).")
    own = tuple(name for name in settings.refine_features if name not in of_ct)
    if settings.refine_features and not own:
        raise InputError(nothing_left)
    return replace(settings, levels=tuple(levels), refine_features=own)


def not_for(model: SamModel | None, fixed: Volume, moving: Volume) -> Volume | None:
    """The image that is not of the network's modality, if any; None stands for a network of CT."""
    is_of_ct = model is None or model.modality == "ct"
    return next((v for v in (fixed, moving) if is_of_ct and not looks_like_ct(v)), None)


def organs_of(
    images: tuple[Volume, Volume],
    turned: Turn,
    weights: str | os.PathLike | None,
    device: torch.device,
    progress: Progress,
) -> tuple[FeatureMap, FeatureMap]:
    """Organ probabilities of a fixed and a moving image, of the latter as it lies upright, brought back."""
    model = load_semantic(weights_for("semantic", weights))
    known, other = (
        organ_probabilities(volume, model, device=device, progress=progress)
        for volume in (images[0], turned.upright(images[1]))
    )
    return known, other if turned.is_none else turned.features_back(other)


def turn_of(initial: Transform, fixed: Volume, moving: Volume) -> Turn:
    """How the moving image lies against the fixed one, in quarters of a turn: no network knows who lies turned."""
    return Turn(nearest_axis_rotation(turn(initial, fixed.grid.corners())), moving.grid.center)


class Extractors:
    """Descriptors of a pair by name, made on first use.

    Args:
        scene: the images normalized, for networks of any modality.
        fixed, moving: the same in their own units.
        finest: spacing of the finest level, mm.
    """

    def __init__(
        self,
        scene: Scene,
        fixed: Volume,
        moving: Volume,
        weights: str | os.PathLike | None,
        finest: float,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._scene, self._images, self._weights, self._finest = scene, (fixed, moving), weights, finest
        self._device, self._progress = device, progress
        # The moving image is described as it lies beside the fixed one.
        self._turn = turn_of(scene.initial, scene.fixed, moving)
        self._made: dict[str, FeatureExtractor | PairFeatures] = {}

    def __call__(self, name: str) -> FeatureExtractor | PairFeatures:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def forget(self, names: set[str]) -> None:
        """Let go of what will not be asked for again."""
        for name in names:
            self._made.pop(name, None)

    def _make(self, name: str) -> FeatureExtractor | PairFeatures:
        weights, device, progress = self._weights, self._device, self._progress
        if name == "mind":
            return Mind()
        if name == "hu":
            return Hounsfield()
        if name in ("sam", "sam-fine", "sam-coarse"):
            model = load_sam(weights_for("sam", weights))
            first = embed_cached(self._images[0], model, device=device, progress=progress)
            second = embed_cached(self._turn.upright(self._images[1]), model, device=device, progress=progress)
            if not self._turn.is_none:
                maps = [self._turn.features_back(part) for part in (second.fine, second.coarse)]
                second = replace(second, fine=maps[0], coarse=maps[1])
            return SamPair(first, second, {"sam": "both"}.get(name, name.removeprefix("sam-")))
        if name in ("sam-anew", "sam-anew-fine"):
            model = load_sam(weights_for("sam", weights))
            return SamAnew(model, "both" if name == "sam-anew" else "fine", device)
        if name == "semantic":
            return SemanticPair(*organs_of(self._images, self._turn, weights, device, progress))
        if name == "featcnn":
            return FeatCnnExtractor(load_network(FeatCNN, weights_for("featcnn", weights)), device)
        if name == "dns":
            network = load_network(MASRNet, weights_for("masr", weights))
            extractor, scene = DnsExtractor(network, device, stage(progress, "embedding")), self._scene
            return DnsPair(extractor, scene.fixed, scene.moving, scene.initial, scene.box, self._finest)
        raise InputError(unknown_feature(name))
