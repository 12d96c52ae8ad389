"""Solids drawn into voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ..space.grid import Grid
from ..space.sampling import sample
from .warps import SmoothWarp

AIR = -1000.0
Solid = Callable[[torch.Tensor], torch.Tensor]


class Canvas:
    """The image being drawn: later solids cover earlier ones, edges blend over a voxel (partial volume)."""

    def __init__(self, grid: Grid, warp: SmoothWarp, edge_mm: float) -> None:
        self.grid = grid
        self.warp = warp
        self.edge_mm = edge_mm
        self.reference = grid.center
        self.patient = grid.voxel_centers(reference=self.reference)
        moved = self.patient + warp.bumps(self.patient, self.reference)
        assert warp.affine is not None
        matrix = torch.as_tensor(warp.affine.matrix.T.copy(), dtype=torch.float32)
        shift = torch.as_tensor(warp.affine.map_points(self.reference[None])[0], dtype=torch.float32)
        self.atlas = moved @ matrix + shift
        self._stride = max(1, round(12.0 / max(grid.spacing)))
        self._nodes = self.atlas[:: self._stride, :: self._stride, :: self._stride].contiguous()
        self.hounsfield = torch.full(grid.shape, AIR)
        self.labels = torch.zeros(grid.shape, dtype=torch.uint8)

    def paint(
        self,
        solid: Solid,
        hounsfield: float | Callable[[torch.Tensor], torch.Tensor],
        label: int | None = None,
        *,
        near: tuple[np.ndarray, np.ndarray] | None = None,
        within: int | None = None,
    ) -> None:
        """Fill a solid with a value, or with a texture of the atlas points.

        ``near`` bounds the solid in atlas mm; ``within`` keeps the paint inside what has that label.
        """
        window = self._window(near)
        if window is None:
            return
        points = self.atlas[window]
        distance = solid(points)
        cover = (0.5 - distance / self.edge_mm).clamp_(0, 1)
        if within is not None:
            cover *= self.labels[window] == within
        value = hounsfield(points) if callable(hounsfield) else hounsfield
        self.hounsfield[window] += cover * (value - self.hounsfield[window])
        if label is not None:
            self.labels[window] = torch.where(distance < 0, label, self.labels[window])

    def _window(self, near: tuple[np.ndarray, np.ndarray] | None) -> tuple[slice, slice, slice] | None:
        """Voxels that can lie in an atlas box: bounding box of the thinned lattice's nodes in it, one node wider."""
        if near is None:
            return slice(None), slice(None), slice(None)
        # A node's neighborhood (half a step each way, and the warp's stretch) must reach into the box.
        margin = 2 * self.edge_mm + 1.2 * self._stride * max(self.grid.spacing)
        low = torch.as_tensor(np.asarray(near[0]) - margin, dtype=torch.float32)
        high = torch.as_tensor(np.asarray(near[1]) + margin, dtype=torch.float32)
        found = ((self._nodes > low) & (self._nodes < high)).all(-1).nonzero()
        if len(found) == 0:
            return None
        first, last = found.amin(0) - 1, found.amax(0) + 2
        z, y, x = (
            slice(max(int(a), 0) * self._stride, min(int(b) * self._stride, size))
            for a, b, size in zip(first, last, self.grid.shape, strict=True)
        )
        return z, y, x


# --- solids ---------------------------------------------------------------------------------------------------------
def ball(center: Sequence[float] | np.ndarray, radii: Sequence[float]) -> Solid:
    middle, half = torch.as_tensor(np.asarray(center), dtype=torch.float32), torch.tensor(radii, dtype=torch.float32)

    def distance(points: torch.Tensor) -> torch.Tensor:
        offset = (points - middle) / half
        length = offset.norm(dim=-1)
        # First-order distance to the ellipsoid: level set over its gradient.
        return length * (length - 1) / (offset / half).norm(dim=-1).clamp(min=1e-6)

    return distance


def tube(path: np.ndarray, radius: float | np.ndarray) -> Solid:
    """Capsules along a polyline (K, 3); one radius or one per node."""
    radii = np.broadcast_to(np.asarray(radius, dtype=float), (len(path),))

    def distance(points: torch.Tensor) -> torch.Tensor:
        best = torch.full(points.shape[:-1], torch.inf)
        for a, b, ra, rb in zip(path[:-1], path[1:], radii[:-1], radii[1:], strict=True):
            start = torch.as_tensor(a, dtype=torch.float32)
            along = torch.as_tensor(b - a, dtype=torch.float32)
            offset = points - start
            t = ((offset @ along) / (along @ along)).clamp_(0, 1)
            best = torch.minimum(best, (offset - t[..., None] * along).norm(dim=-1) - (ra + t * (rb - ra)))
        return best

    return distance


def both(*solids: Solid) -> Solid:
    return lambda points: torch.stack([solid(points) for solid in solids]).amax(0)


def grown(solid: Solid, margin_mm: float) -> Solid:
    return lambda points: solid(points) - margin_mm


# --- texture and noise ----------------------------------------------------------------------------------------------
def texture(mean: float, amplitude: float, scale_mm: float, seed: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Smooth random values about ``mean``; ``scale_mm`` is the lattice on which they are drawn."""
    size = 48
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 1, size, size, size)).astype(np.float32))
    lattice = Grid((size,) * 3, (1.0,) * 3)

    def value(points: torch.Tensor) -> torch.Tensor:
        # Mirrored repetition keeps the texture continuous beyond its lattice.
        phase = (points / scale_mm + 24.0).remainder(2.0 * (size - 1))
        return mean + amplitude * sample(values, lattice, torch.minimum(phase, 2.0 * (size - 1) - phase))[0, 0]

    return value


def noise(shape: tuple[int, int, int], sigma: float, random: np.random.Generator) -> torch.Tensor:
    """Gaussian noise with the short in-plane correlation of a soft reconstruction kernel."""
    white = torch.from_numpy(random.standard_normal(shape, dtype=np.float32))[:, None]
    kernel = torch.tensor([[0.05, 0.12, 0.05], [0.12, 1.0, 0.12], [0.05, 0.12, 0.05]])
    kernel = kernel / kernel.square().sum().sqrt()
    return F.conv2d(white, kernel[None, None], padding=1)[:, 0] * sigma
