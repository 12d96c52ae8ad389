"""Starts of the learning-free affine: orientations, centers and the best translations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..features.mind import mind_ssc
from ..space.grid import Grid
from ..space.linear import axis_rotations, nearest_axis_rotation, rotation
from ..space.sampling import sample
from ..space.transforms import AffineTransform
from .translations import chance_level, peaks, translation_gain

# Pitch (head tilt), roll, yaw in degrees and scale of the moving image that the translation search tries.
ORIENTATIONS = (
    (0, 0, 0, 1.0),
    (20, 0, 0, 1.0),
    (-20, 0, 0, 1.0),
    (0, 20, 0, 1.0),
    (0, -20, 0, 1.0),
    (0, 0, 20, 1.0),
    (0, 0, -20, 1.0),
    (0, 0, 0, 0.85),
    (0, 0, 0, 1.18),
)


@dataclass(frozen=True)
class StartImage:
    """Intensities and region that counts, both (1, 1, D, H, W), on an identity-direction grid around the body."""

    values: torch.Tensor
    region: torch.Tensor
    grid: Grid
    is_ct: bool

    def coarser(self) -> StartImage:
        return StartImage(_halved(self.values), _halved(self.region), self.grid.strided(2), self.is_ct)

    def points(self) -> np.ndarray:
        """(N, 3) LPS mm of the region's voxels."""
        index = torch.nonzero(self.region[0, 0] > 0.5).cpu().numpy()
        return self.grid.voxels_to_points(index[:, ::-1])


@dataclass
class Hypothesis:
    name: str
    transform: AffineTransform
    start_gain: float = 0.0
    gain: float = 0.0

    @property
    def angles(self) -> tuple[int, int, int]:
        """Pitch, roll and yaw in degrees of the axis rotation next to the map."""
        return next(a for a, turn in axis_rotations().items() if turn is nearest_axis_rotation(self.transform.matrix))


def start_features(image: StartImage, both: list[StartImage], dilation: int, smoothing: int) -> torch.Tensor:
    """(1, C, D, H, W): MIND-SSC, and between CTs the soft tissue, bone and lung windows."""
    ct = all(other.is_ct for other in both)
    values = image.values
    scaled = (values.clamp(-1000, 1000) + 1000) / 2000 if image.is_ct else values
    channels = [mind_ssc(scaled, 1, dilation) * (2 / 12**0.5)]
    if ct:
        windows = ((-160.0, 240.0), (150.0, 700.0), (-900.0, -300.0))
        channels += [(values.clamp(lower, upper) - lower) / (upper - lower) for lower, upper in windows]
    return _smoothed(torch.cat(channels, 1), smoothing)


def _halved(values: torch.Tensor) -> torch.Tensor:
    # Partial blocks at the far side repeat their edge, so that centers follow Grid.strided.
    padding = [n for size in values.shape[:1:-1] for n in (0, size % 2)]
    return F.avg_pool3d(F.pad(values, padding, mode="replicate"), 2)


def _smoothed(values: torch.Tensor, passes: int) -> torch.Tensor:
    """``passes`` binomial filters [1, 2, 1] / 4 along every axis; variance ``passes`` / 2 voxels squared."""
    if passes:
        values = F.pad(values, (passes,) * 6, mode="replicate")
    for _ in range(2 * passes):
        values = F.avg_pool3d(values, 2, 1)
    return values


def geometric_starts(fixed: StartImage, moving: StartImage) -> list[Hypothesis]:
    """Starts from where the bodies lie and how far they reach."""
    f, m = fixed.points(), moving.points()
    if min(len(f), len(m)) < 8:
        return [Hypothesis("world coordinates", AffineTransform.identity())]
    f_mass, m_mass = f.mean(0), m.mean(0)
    f_low, f_high, m_low, m_high = f.min(0), f.max(0), m.min(0), m.max(0)
    f_box, m_box = (f_low + f_high) / 2, (m_low + m_high) / 2
    shifts = {
        "world coordinates": np.zeros(3),
        "centers of the bodies' boxes": m_box - f_box,
        "centers of mass": m_mass - f_mass,
        "tops of the bodies": np.append((m_mass - f_mass)[:2], m_high[2] - f_high[2]),
        "bottoms of the bodies": np.append((m_mass - f_mass)[:2], m_low[2] - f_low[2]),
    }
    starts = [Hypothesis(name, AffineTransform(np.eye(3), shift)) for name, shift in shifts.items()]
    stretch = np.clip(m.std(0) / np.maximum(f.std(0), 1e-6), 0.75, 1.35)
    moments = AffineTransform(np.diag(stretch), m_mass - stretch * f_mass)
    return [*starts, Hypothesis("centers and spread of mass", moments)]


def searched_starts(fixed: StartImage, moving: StartImage, report: Callable[[float], None]) -> list[Hypothesis]:
    """The best translations for each of a few tilts and scales of the moving image."""
    poses = []
    for number, (pitch, roll, yaw, scale) in enumerate(ORIENTATIONS):
        name = "translation search" if number == 0 else f"translation search at {pitch},{roll},{yaw} deg, x{scale}"
        poses.append((name, rotation(pitch, roll, yaw) * scale, 4 if number == 0 else 2))
    return _best_translations(fixed, moving, poses, report)


def turned_starts(fixed: StartImage, moving: StartImage, report: Callable[[float], None]) -> list[Hypothesis]:
    """The best translation for each of the 24 ways in which a header can turn the moving image, the best way first."""
    poses = [(f"turned by {angles} deg", matrix, 1) for angles, matrix in axis_rotations().items()]
    return sorted(_best_translations(fixed, moving, poses, report), key=lambda start: -start.start_gain)


def _best_translations(
    fixed: StartImage,
    moving: StartImage,
    poses: Sequence[tuple[str, np.ndarray, int]],
    report: Callable[[float], None],
) -> list[Hypothesis]:
    """For each pose, (name, matrix, how many), the translations at which the posed moving image fits best."""
    spacing = fixed.grid.spacing[0]
    fixed_features = start_features(fixed, [fixed, moving], 1, 0)[0]
    starts = []
    for number, (name, matrix, count) in enumerate(poses):
        report(number / len(poses))
        turned = _turned(moving, matrix, spacing)
        features = start_features(turned, [fixed, moving], 1, 0)[0]
        chance = 0.9 * chance_level(fixed_features, fixed.region[0, 0], features, turned.region[0, 0])
        weights = fixed.region[0, 0], turned.region[0, 0]
        gain = translation_gain(fixed_features, weights[0], features, weights[1], max(chance, 1e-6))
        for value, shift in peaks(gain, turned.grid.shape, count):
            # A fixed point p lies at p - fixed origin + shift + turned origin of the turned image.
            offset = np.asarray(turned.grid.origin) - np.asarray(fixed.grid.origin) + shift * spacing
            center = moving.grid.center
            starts.append(Hypothesis(name, AffineTransform(matrix, matrix @ (offset - center) + center), value))
    return starts


def _turned(moving: StartImage, matrix: np.ndarray, spacing: float) -> StartImage:
    """The moving image seen through ``matrix`` about its grid center: value(q) = moving(matrix (q - c) + c)."""
    if np.array_equal(matrix, np.eye(3)):
        return moving
    center = moving.grid.center
    corners = (moving.grid.corners() - center) @ np.linalg.inv(matrix).T + center
    grid = Grid.covering(corners, spacing)
    points = grid.voxel_centers(reference=center, device=moving.values.device)
    points = points @ torch.as_tensor(matrix.T.copy(), dtype=points.dtype, device=points.device)
    background = float(moving.values.min())
    values = sample(moving.values, moving.grid, points, reference=center, fill=background)
    region = sample(moving.region, moving.grid, points, reference=center, fill=0.0)
    return StartImage(values, region, grid, moving.is_ct)
