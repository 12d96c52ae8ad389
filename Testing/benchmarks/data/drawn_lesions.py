"""One invented lesion: its shape, how it is drawn into an image, and whether a reader could see it there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from samconvex.space.grid import Grid
from samconvex.synthetic.warps import SmoothWarp

# A border that differs by less from what lies beside it is not seen in the noise of a CT.
SEEN_HU = 30.0
_BESIDE_MM = 3.0


@dataclass(frozen=True)
class SyntheticLesion:
    """An irregular ellipsoid with a blurred border. Frame: LPS mm of the baseline.

    Attributes:
        center: (3,). radii: (3,) mm. axes: (3, 3) rows are the ellipsoid's axes.
        lumps: (K, 4) direction and relative height of bumps on the surface.
        hounsfield: inside. blur_mm: half width of the border. core: share of the radii that is necrotic.
        partner: number of the neighbor that looks like it, or None.
    """

    center: np.ndarray
    radii: np.ndarray
    axes: np.ndarray
    lumps: np.ndarray
    hounsfield: float
    blur_mm: float = 0.7
    core: float = 0.0
    partner: int | None = None

    def distance(self, points: torch.Tensor, growth: np.ndarray) -> torch.Tensor:
        """(...) mm, negative inside, at (..., 3) points relative to the center; radii times ``growth`` (3,)."""
        own = points @ torch.as_tensor(self.axes.T, dtype=points.dtype)
        radii = torch.as_tensor(self.radii * growth, dtype=points.dtype)
        scaled = own / radii
        length = scaled.norm(dim=-1).clamp(min=1e-6)
        direction = scaled / length[..., None]
        surface = torch.ones_like(length)
        for *lump, height in self.lumps:
            along = direction @ torch.as_tensor(lump, dtype=points.dtype)
            surface += height * torch.exp(4.0 * (along - 1))
        return (length - surface) * float(np.prod(radii.numpy()) ** (1 / 3))

    @property
    def reach_mm(self) -> float:
        return float(self.radii.max()) * (1 + float(self.lumps[:, 3].clip(0).sum())) + 4 * self.blur_mm


def draw(
    values: torch.Tensor,
    image: Grid,
    lesion: SyntheticLesion,
    growth: np.ndarray,
    back: SmoothWarp | None,
    random: np.random.Generator,
    *,
    vary: bool = False,
) -> None:
    """Blend a lesion into (1, 1, D, H, W) ``values``; what lies beneath keeps a third of its texture.

    Args:
        vary: another contrast phase: the lesion stands out more or less than it did, by up to 40 %, from what is there.
    """
    grid, part, points = _around(image, lesion, growth, back)
    if min(grid.size) < 1:
        return
    distance = lesion.distance(points, growth)
    # Voxels average over their extent.
    blur = max(lesion.blur_mm, 0.3 * max(image.spacing))
    share = torch.sigmoid(-2.0 * distance / blur)
    region = values[0, 0][part]
    inside = region[distance <= 0]
    middle = inside.median() if len(inside) else region.median()
    texture = (0.33 * (region - middle)).clamp(-25, 25)
    texture += torch.as_tensor(random.normal(scale=6.0, size=tuple(region.shape)), dtype=torch.float32)
    level = torch.full_like(region, lesion.hounsfield)
    if vary and abs(float(middle)) < 160:
        contrast = float(np.clip(lesion.hounsfield - float(middle), -90, 90)) * random.uniform(0.6, 1.4)
        level[:] = float(middle) + np.sign(contrast) * max(abs(contrast), 30.0)
    if lesion.core:
        dead = torch.sigmoid(-2.0 * lesion.distance(points, growth * lesion.core) / blur)
        level = level * (1 - dead) + 12.0 * dead
    values[0, 0][part] = region * (1 - share) + (level + texture) * share


def stands_out(
    values: torch.Tensor,
    image: Grid,
    lesion: SyntheticLesion,
    growth: np.ndarray,
    back: SmoothWarp | None = None,
    level: float | None = None,
) -> bool:
    """Whether at least half of a lesion's border is seen: it is brighter there, or darker, by SEEN_HU than outside.

    Args:
        values: (1, 1, D, H, W) HU on ``image``. level: of the lesion, where it is not drawn yet.
    """
    grid, part, points = _around(image, lesion, growth, back, _BESIDE_MM)
    if min(grid.size) < 1:
        return True
    distance = lesion.distance(points, growth)
    region = values[0, 0][part]
    core = distance <= 0.5 * float(distance.min())
    blur = max(lesion.blur_mm, 0.3 * max(image.spacing))
    beside = (distance >= blur) & (distance <= blur + _BESIDE_MM)
    if not bool(beside.any()):
        return True
    inside = float(region[core].median()) if level is None else level
    return any(float((sign * (inside - region[beside]) >= SEEN_HU).float().mean()) >= 0.5 for sign in (1, -1))


def _around(
    image: Grid, lesion: SyntheticLesion, growth: np.ndarray, back: SmoothWarp | None, margin_mm: float = 0.0
) -> tuple[Grid, tuple[slice, slice, slice], torch.Tensor]:
    """The part of an image that holds a lesion, and its voxels' places relative to the lesion's center, mm."""
    center = lesion.center if back is None else back.unmap_points(lesion.center[None])[0]
    grid, part = window(image, center, lesion.reach_mm * float(growth.max()) * 1.3 + margin_mm)
    points = grid.voxel_centers(reference=center)
    if back is not None:
        points = mapped(back, points, center) + torch.as_tensor(center - lesion.center, dtype=points.dtype)
    return grid, part, points


def window(image: Grid, center: np.ndarray, reach: float) -> tuple[Grid, tuple[slice, slice, slice]]:
    offsets = np.array([[(-1, 1)[c >> a & 1] for a in range(3)] for c in range(8)]) * reach
    voxels = image.points_to_voxels(center + offsets)
    lower = np.clip(np.floor(voxels.min(0)), 0, image.size).astype(int)
    upper = np.clip(np.ceil(voxels.max(0)) + 1, lower, image.size).astype(int)
    part = tuple(slice(int(a), int(b)) for a, b in zip(lower[::-1], upper[::-1], strict=True))
    return image.cropped(lower.tolist(), (upper - lower).tolist()), part  # type: ignore[return-value]


def mapped(warp: SmoothWarp, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
    """T(p) relative to ``reference`` at (..., 3) points relative to it."""
    moved = points + warp.bumps(points, reference)
    assert warp.affine is not None
    shift = warp.affine.map_points(reference[None])[0] - reference
    return moved @ torch.as_tensor(warp.affine.matrix.T.copy(), dtype=points.dtype) + torch.as_tensor(
        shift, dtype=points.dtype
    )
