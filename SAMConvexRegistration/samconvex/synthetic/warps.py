"""Smooth warps whose truth is known at every point: for tests and benchmarks on any CT.

A warp is an affine map plus Gaussian bumps, so it can be evaluated exactly anywhere; it cannot fold, because the sum
of the bumps' steepest slopes is kept below one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, sqrt

import numpy as np
import torch

from ..anatomy.body import body_mask
from ..errors import InputError
from ..space.field import DisplacementField
from ..space.grid import Grid
from ..space.sampling import sample, slabs
from ..space.transforms import AffineTransform
from ..space.volume import Volume, resample

# Below one the map p -> p + u(p) is one-to-one with a positive Jacobian (Banach); the rest is room to invert quickly.
STEEPEST_SLOPE = 0.8
INVERSION_TOLERANCE_MM = 1e-3


@dataclass(frozen=True)
class SmoothWarp:
    """T(p) = A(p + u(p)) with u(p) = sum_k amplitude_k exp(-|(p - center_k) / width_k|^2 / 2); exact everywhere.

    Attributes:
        centers: (K, 3) LPS mm.
        widths: (K, 3) standard deviations along x, y, z, mm.
        amplitudes: (K, 3) LPS mm.
        affine: applied after the bumps; None is the identity.
    """

    centers: np.ndarray
    widths: np.ndarray
    amplitudes: np.ndarray
    affine: AffineTransform | None = None

    def __post_init__(self) -> None:
        if self.slope_bound > STEEPEST_SLOPE + 1e-6:
            raise InputError(
                f"This warp could fold (slope bound {self.slope_bound:.2f}, allowed {STEEPEST_SLOPE}); "
                "lower its amplitude or widen it."
            )

    @property
    def slope_bound(self) -> float:
        """Upper bound of the norm of u's gradient: each Gaussian is steepest one standard deviation off its center."""
        size = np.linalg.norm(self.amplitudes, axis=1)
        return float((size / self.widths.min(1)).sum() * exp(-0.5))

    @classmethod
    def within_slope(
        cls, centers: np.ndarray, widths: np.ndarray, amplitudes: np.ndarray, affine: AffineTransform | None = None
    ) -> SmoothWarp:
        """The warp with its amplitudes scaled down, where needed, until it cannot fold."""
        bound = float((np.linalg.norm(amplitudes, axis=1) / widths.min(1)).sum() * exp(-0.5))
        return cls(centers, widths, amplitudes * min(1.0, STEEPEST_SLOPE / max(bound, 1e-9)), affine)

    def bumps(self, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
        """u at (..., 3) points given relative to ``reference`` (LPS mm); same shape and dtype, mm."""
        total = torch.zeros_like(points)
        for center, width, amplitude in zip(self.centers, self.widths, self.amplitudes, strict=True):
            offset = points - torch.as_tensor(center - reference, dtype=points.dtype)
            scaled = offset * torch.as_tensor(sqrt(0.5) / width, dtype=points.dtype)
            weight = torch.exp(-(scaled * scaled).sum(-1, keepdim=True))
            total += weight * torch.as_tensor(amplitude, dtype=points.dtype)
        return total

    def map_points(self, points: np.ndarray) -> np.ndarray:
        """Map (N, 3) LPS mm, float64."""
        points = np.asarray(points, dtype=float).reshape(-1, 3)
        moved = points + self.bumps(torch.as_tensor(points), np.zeros(3)).numpy()
        return moved if self.affine is None else self.affine.map_points(moved)

    def unmap_points(self, points: np.ndarray) -> np.ndarray:
        """The inverse map of (N, 3) LPS mm, float64, to 1e-9 mm."""
        target = np.asarray(points, dtype=float).reshape(-1, 3)
        target = target if self.affine is None else self.affine.inverse().map_points(target)
        return target + self._unbump(torch.as_tensor(target), np.zeros(3), None, 1e-9).numpy()

    def displacement_field(self, grid: Grid) -> DisplacementField:
        """T as a displacement field whose samples on ``grid`` are exact."""
        pieces = []
        for z0, z1 in slabs(grid):
            points = grid.voxel_centers(z0, z1, reference=grid.center)
            moved = points + self.bumps(points, grid.center)
            if self.affine is not None:
                matrix = torch.as_tensor(self.affine.matrix.T.copy(), dtype=points.dtype)
                shift = self.affine.map_points(grid.center[None])[0] - grid.center
                moved = moved @ matrix + torch.as_tensor(shift, dtype=points.dtype)
            pieces.append((moved - points).permute(3, 0, 1, 2))
        return DisplacementField(torch.cat(pieces, 1)[None].contiguous(), grid)

    def inverse_displacement(self, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
        """T^-1(q) - q, mm, at (d, h, w, 3) points relative to ``reference``; residual below a thousandth of a mm."""
        target = points
        if self.affine is not None:
            inverse = self.affine.inverse()
            shift = inverse.map_points(np.asarray(reference)[None])[0] - reference
            matrix = torch.as_tensor(inverse.matrix.T.copy(), dtype=points.dtype)
            target = points @ matrix + torch.as_tensor(shift, dtype=points.dtype)
        guess = self._coarse_guess(target, reference)
        return target - points + self._unbump(target, reference, guess, INVERSION_TOLERANCE_MM)

    def _unbump(
        self, target: torch.Tensor, reference: np.ndarray, guess: torch.Tensor | None, tolerance: float
    ) -> torch.Tensor:
        """v with v + u(target + v) = 0: a contraction, as u's slope is below one."""
        v = -self.bumps(target, reference) if guess is None else guess
        for _ in range(200):
            update = -self.bumps(target + v, reference)
            residual = float((update - v).abs().max())
            v = update
            if residual < tolerance:
                break
        return v

    def _coarse_guess(self, target: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
        """Interpolated from an 8 mm lattice: saves most iterations on the many points of a slab."""
        corners = target.reshape(-1, 3).double().numpy()
        lattice = Grid.covering(np.stack([corners.min(0), corners.max(0)]), 8.0, margin_mm=8.0)
        nodes = lattice.voxel_centers(reference=(0.0, 0.0, 0.0))
        values = self._unbump(nodes, reference, None, 0.01).permute(3, 0, 1, 2)[None]
        return sample(values, lattice, target)[0].permute(1, 2, 3, 0)

    def warp(self, volume: Volume, like: Grid | None = None, *, mode: str = "linear") -> Volume:
        """The moving image M with M(T(p)) = volume(p), on ``like`` (default: the volume's own grid).

        Registering ``volume`` (fixed) with the result (moving) therefore has T as its true fixed-to-moving map.
        Pixel type kept; outside the volume its background (0 with mode "nearest", for labels).
        """
        grid = like or volume.grid
        fill = 0.0 if mode == "nearest" else volume.background
        values = volume.tensor if mode == "nearest" else volume.tensor.float()
        output = torch.empty(1, 1, *grid.shape, dtype=volume.tensor.dtype)
        for z0, z1 in slabs(grid, 1_000_000):
            points = grid.voxel_centers(z0, z1, reference=grid.center)
            source = points + self.inverse_displacement(points, grid.center)
            block = sample(values, volume.grid, source, reference=grid.center, mode=mode, fill=fill)
            output[:, :, z0:z1] = block if output.is_floating_point() else block.round_()
        return volume.with_tensor(output, grid)


def breathing_warp(volume: Volume, peak_mm: float = 25.0, seed: int = 0) -> tuple[Volume, SmoothWarp]:
    """A breath: the diaphragm descends by ``peak_mm``, chest and belly rise a fifth of it, the flanks widen a tenth.

    Args:
        volume: any CT (or MR: then the middle of the body stands in for the diaphragm); it is the FIXED image.
        peak_mm: largest superior-inferior displacement; up to about 40.
        seed: varies centers, extents and the balance of the two domes.

    Returns:
        (moving, truth): ``moving`` is the volume after the breath, on the volume's grid; ``truth`` maps fixed points
        to moving points exactly: moving(truth(p)) = volume(p).

    Raises:
        InputError: a peak so large that the warp could fold.
    """
    warp = breathing(volume, peak_mm, seed)
    return warp.warp(volume), warp


def breathing(volume: Volume, peak_mm: float = 25.0, seed: int = 0) -> SmoothWarp:
    """The warp of :func:`breathing_warp` alone, for callers that need the truth without the image."""
    random = np.random.default_rng(seed)
    center, half = _breathing_center(volume)
    jitter = random.uniform(-8.0, 8.0, (6, 3))
    half_x, half_y = float(np.clip(half[0], 90, 200)), float(np.clip(half[1], 70, 150))
    dome_width = np.array([0.42 * half_x, 0.75 * half_y, 62.0]) * random.uniform(0.95, 1.1, 3)
    dome_width = np.maximum(dome_width, 48.0)
    lateral = 0.38 * half_x
    # x to the left, y to the back, z to the head: right and left dome, sternum, belly, right and left flank.
    centers = (
        np.array(
            [
                [-lateral, 0, 0],
                [lateral, 0, -8],
                [0, -0.7 * half_y, 60],
                [0, -0.7 * half_y, -60],
                [-0.8 * half_x, 0, -10],
                [0.8 * half_x, 0, -10],
            ]
        )
        + center
        + jitter
    )
    widths = np.array([dome_width, dome_width, [60, 60, 60], [60, 60, 60], [60, 60, 60], [60, 60, 60]], dtype=float)
    balance = random.uniform(0.85, 1.0)
    amplitudes = np.array(
        [
            [0, 0, -1],
            [0, 0, -balance],
            [0, -0.15, 0.04],
            [0, -0.2, -0.04],
            [-0.1, 0, 0],
            [0.1, 0, 0],
        ]
    )
    # The two domes overlap: scale so that the largest superior-inferior displacement is the peak asked for.
    points = torch.as_tensor(centers[:2].mean(0) + _lattice(lateral * 1.5, 25.0), dtype=torch.float64)
    unit = SmoothWarp(centers, widths, amplitudes)
    largest = float(unit.bumps(points, np.zeros(3))[:, 2].abs().max())
    return SmoothWarp(centers, widths, amplitudes * (peak_mm / largest))


def random_warp(
    volume: Volume, peak_mm: float = 20.0, seed: int = 0, *, affine: bool = True
) -> tuple[Volume, SmoothWarp]:
    """Differences as between two patients: smooth bumps over the whole body, by default after a small affine change.

    Returns (moving, truth) as :func:`breathing_warp`.
    """
    random = np.random.default_rng(seed)
    body = _body_points(volume)
    low, high = np.percentile(body, [2, 98], axis=0)
    count = 8
    centers = random.uniform(low, high, (count, 3))
    widths = np.repeat(random.uniform(45, 80, (count, 1)), 3, 1)
    directions = random.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    warp = SmoothWarp.within_slope(centers, widths, directions * peak_mm * random.uniform(0.5, 1.0, (count, 1)))
    if affine:
        angles = np.radians(random.uniform(-6, 6, 3))
        matrix = _rotation(angles) @ np.diag(random.uniform(0.93, 1.07, 3))
        change = AffineTransform.about((low + high) / 2, matrix, random.uniform(-15, 15, 3))
        warp = SmoothWarp(warp.centers, warp.widths, warp.amplitudes, change)
    return warp.warp(volume), warp


def _lattice(half_x: float, half: float) -> np.ndarray:
    x, y, z = (np.linspace(-h, h, 41) for h in (half_x, half, half))
    return np.stack(np.meshgrid(x, y, z, indexing="ij"), -1).reshape(-1, 3)


def _rotation(angles: np.ndarray) -> np.ndarray:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _body_points(volume: Volume) -> np.ndarray:
    try:
        mask = body_mask(volume, 8.0)
    except InputError:
        return volume.grid.corners()
    return mask.points()


def _breathing_center(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Middle of the diaphragm and half the body's width and depth, LPS mm.

    The diaphragm is where the lungs' cross section has fallen to half its largest, below that largest section.
    """
    body = _body_points(volume)
    low, high = np.percentile(body, [2, 98], axis=0)
    center, half = (low + high) / 2, (high - low) / 2
    if volume.modality == "ct":
        try:
            mask = body_mask(volume, 8.0)
        except InputError:
            return center, half
        coarse = resample(volume, mask.grid).tensor[0, 0]
        lung = (mask.tensor[0, 0] > 0) & (coarse < -500) & (coarse > -1000)
        area = lung.sum((1, 2)).double().numpy()
        widest = int(area.argmax())
        # Lungs, not bowel gas: at least a twelfth of the body's cross section.
        if area[widest] > mask.tensor[0, 0, widest].sum().item() / 12:
            below = np.nonzero(area[:widest] < area[widest] / 2)[0]
            level = float(below.max() + 0.5) if len(below) else 0.0
            center[2] = mask.grid.voxels_to_points(np.array([[0.0, 0.0, level]]))[0, 2]
    return center, half
