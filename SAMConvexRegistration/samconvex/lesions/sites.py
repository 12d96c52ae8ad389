"""The organ that a lesion lies in, proposed from the image around it, the level in the body and the organ network.

For the limit of two target lesions an organ (RECIST 1.1, section 4.2). A proposal for a person to correct: lung and
bone are told by what surrounds the lesion, organs of neck and abdomen by the network, elsewhere by region and side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..anatomy.body import body_mask
from ..anatomy.level import Anatomy, anatomy_of, regions_of
from ..anatomy.organs import organ_probabilities
from ..errors import InputError
from ..space.grid import Grid
from ..space.volume import FeatureMap, Volume, resample
from ..weights.models import load_semantic
from .lesion import Lesion
from .patches import patch

# Around a lesion: beyond its border, within its organ.
_NEAR_MM, _FAR_MM, _CLOSE_MM = 8.0, 25.0, 12.0
_LUNG_HU, _LUNG_SHARE = -500.0, 0.38
# Bone is dense in part and has a cortex; enhanced blood is dense throughout, an enhanced kidney has no cortex.
_DENSE_HU, _DENSE_SHARES = 250.0, (0.1, 0.5)
_CORTEX_HU, _CORTEX_SHARE = 500.0, 0.01
# Probability of an organ that names it.
_SURE = 0.5
# Nearer to the middle of the body than this, a side says nothing.
_MIDDLE_MM = 20.0
_NETWORK_REGIONS = ("head", "neck", "abdomen")


@dataclass(frozen=True)
class Site:
    """Where a lesion lies: organ or region in words, "" where nothing is known, and one sentence on why."""

    organ: str
    reason: str


def propose_organ(position: np.ndarray, volume: Volume, embedding: object = None, radius_mm: float = 0.0) -> Site:
    """The organ around a place.

    Args:
        position: (3,) LPS mm in the image. volume: CT in Hounsfield units; of anything else nothing is proposed.
        embedding: the volume's SamEmbedding, which tells the level in the body; without it no region is proposed.
        radius_mm: of the lesion; what surrounds it begins beyond.
    """
    position = np.asarray(position, dtype=float)
    if volume.modality != "ct" or not volume.grid.contains(position[None])[0]:
        return Site("", "It lies outside the image, or the image is no CT.")
    try:
        body = body_mask(volume)
    except InputError as error:
        return Site("", str(error))
    air, dense, cortex = _surroundings(position, volume, body, radius_mm)
    if air >= _LUNG_SHARE:
        return Site("lung", f"{100 * air:.0f} % of what surrounds it in the body is air.")
    if _DENSE_SHARES[0] <= dense <= _DENSE_SHARES[1] and cortex >= _CORTEX_SHARE:
        return Site("bone", f"{100 * dense:.0f} % of what surrounds it is as dense as bone, some as a cortex.")
    anatomy = anatomy_of(embedding) if embedding is not None else None  # type: ignore[arg-type]
    if anatomy is None or not anatomy.is_clear:
        return Site("", "The level in the body is not known.")
    level = float(anatomy.levels_of(position[None])[0])
    region = regions_of(level, level)[0]
    if region in _NETWORK_REGIONS:
        organ = _by_network(position, volume)
        if organ:
            return Site(organ, "The organ network says so.")
    return Site(*_in_words(position, region, body, anatomy))


def propose_organs(lesions: Sequence[Lesion], volume: Volume, embedding: object = None) -> dict[str, Site]:
    """:func:`propose_organ` of every lesion that an image shows, by name."""
    return {
        lesion.name: propose_organ(np.asarray(lesion.point), volume, embedding, _radius_mm(lesion))
        for lesion in lesions
        if np.isfinite(lesion.point).all()
    }


def _radius_mm(lesion: Lesion) -> float:
    """Of the ball as large as the lesion was drawn; 0 for a point."""
    if lesion.mask is not None:
        volume = float((lesion.mask.tensor > 0.5).sum()) * float(np.prod(lesion.mask.grid.spacing))
        return float((3 * volume / (4 * np.pi)) ** (1 / 3))
    if lesion.box is not None:
        return float((lesion.box[1] - lesion.box[0]).mean()) / 2
    if lesion.diameters is not None:
        return float(np.linalg.norm(lesion.diameters[:, 1] - lesion.diameters[:, 0], axis=1).max()) / 2
    return 0.0


def _surroundings(position: np.ndarray, volume: Volume, body: Volume, radius_mm: float) -> tuple[float, float, float]:
    """Share of air in a wide shell around a lesion, and of bone and cortex in a narrow one, of what is body."""
    near, far = _NEAR_MM + radius_mm, _FAR_MM + radius_mm
    grid = Grid.covering(np.stack([position - far, position + far]), 2.0, margin_mm=0.0)
    distance = grid.voxel_centers(reference=position).norm(dim=-1)
    inside = resample(body.with_tensor(body.as_float()), grid, fill=0.0).tensor[0, 0] > 0.5
    values = patch(volume, grid).tensor[0, 0]
    wide = values[inside & (distance > near) & (distance < far)]
    close = values[inside & (distance > radius_mm) & (distance < radius_mm + _CLOSE_MM)]

    def share(chosen: torch.Tensor) -> float:
        return float(chosen.float().mean()) if len(chosen) else 0.0

    return share(wide < _LUNG_HU), share(close > _DENSE_HU), share(close > _CORTEX_HU)


def _by_network(position: np.ndarray, volume: Volume) -> str:
    """The organ with a probability that names it, of the shipped network; "" without."""
    try:
        model = load_semantic(None)
        found = organ_probabilities(volume, model)
    except InputError:
        return ""
    return most_likely(found, model.network.organs, position)


def most_likely(found: FeatureMap, organs: tuple[str, ...], position: np.ndarray) -> str:
    """The organ whose probability is highest and at least one half at a place (3,) LPS mm; "" without."""
    voxel = np.round(found.grid.points_to_voxels(position[None])[0]).astype(int)
    if (voxel < 0).any() or (voxel >= found.grid.size).any():
        return ""
    values = found.tensor[0, :, voxel[2], voxel[1], voxel[0]].float()
    best = int(torch.argmax(values))
    return organs[best] if float(values[best]) >= _SURE else ""


def _in_words(position: np.ndarray, region: str, body: Volume, anatomy: Anatomy) -> tuple[str, str]:
    """Region and side: left is where the header says, so a wrong header says it wrong."""
    voxel = np.round(body.grid.points_to_voxels(position[None])[0]).astype(int)
    plane = body.tensor[0, 0, int(np.clip(voxel[2], 0, body.grid.size[2] - 1))] > 0
    columns = plane.any(0).nonzero()[:, 0]
    reason = f"Level in the body ({100 * anatomy.confidence:.0f} % sure); the organ network names no organ there."
    if not len(columns):
        return region, reason
    middle = np.array([[float(columns.min() + columns.max()) / 2, voxel[1], voxel[2]]])
    across = position[0] - body.grid.voxels_to_points(middle)[0, 0]
    side = "" if abs(across) < _MIDDLE_MM else ", left" if across > 0 else ", right"
    return region + side, reason
