"""The tests of commissioning: pairs of an invented chest whose true map is known at every point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch

from ..anatomy.body import body_mask
from ..settings.registration import Settings
from ..space.grid import Grid
from ..space.linear import rotation
from ..space.transforms import AffineTransform
from ..space.volume import Volume
from ..synthetic.canvas import noise
from ..synthetic.phantom import make_phantom
from ..synthetic.sliding import SlidingMap
from ..synthetic.warps import SmoothWarp, breathing, random_warp

BREATHING = "ct-lung-breathing"
# Chest and upper abdomen, mm; the width and depth leave air around the body, through which it may move.
EXTENT_MM = (384.0, 288.0, 240.0)
SPACING_MM, QUICK_SPACING_MM = 3.0, 4.0
_NOISE_HU = 14.0
# At a torn surface a smooth field cannot be right; within this distance of it the error is told and not judged.
TORN_MM = 30.0
# Nearer to the end of an image half of the evidence is missing; such points are not judged.
BORDER_MM = 10.0
_MOST_POINTS = 20_000
# Hounsfield units, and what a scan of another kind shows there.
_REMAPPED = (
    (-1000.0, 0.0),
    (-850.0, 60.0),
    (-200.0, 300.0),
    (-100.0, 900.0),
    (20.0, 420.0),
    (60.0, 330.0),
    (130.0, 620.0),
    (300.0, 180.0),
    (1500.0, 60.0),
)


class Truth(Protocol):
    """A map that is known exactly, fixed to moving."""

    def map_points(self, points: np.ndarray) -> np.ndarray: ...

    def warp(self, volume: Volume, like: Grid | None = None, *, mode: str = "linear") -> Volume: ...


@dataclass(frozen=True)
class Anatomy:
    """The invented chest, drawn once without noise, and where it is judged.

    Attributes:
        ct, labels: Hounsfield units and organ labels on one grid.
        landmarks: (M, 3) LPS mm.
        body: (N, 3) LPS mm, voxel centers inside the body.
        seed: of the noise.
    """

    ct: Volume
    labels: Volume
    landmarks: np.ndarray
    body: np.ndarray
    seed: int = 0

    @classmethod
    def drawn(cls, spacing_mm: float, seed: int = 0, extent_mm: tuple[float, float, float] = EXTENT_MM) -> Anatomy:
        """Draw it; ``spacing_mm`` is the voxels' edge."""
        size = [round(extent / spacing_mm) for extent in extent_mm]
        phantom = make_phantom(seed, spacing_mm, size, couch=False, noise_hu=0.0, nodules=6, parenchyma=True)
        body = body_mask(phantom.ct).points()
        landmarks = np.array(list(phantom.landmarks.values()))
        return cls(phantom.ct, phantom.labels, landmarks, body[:: max(1, len(body) // _MOST_POINTS)], seed)

    def scanned(self, image: Volume, number: int, noise_hu: float = _NOISE_HU) -> Volume:
        """``image`` as a scan shows it: with noise of its own; ``number`` tells the scans apart."""
        random = np.random.default_rng([self.seed, number])
        values = image.as_float() + noise(image.grid.shape, noise_hu, random)[None, None]
        return image.with_tensor(values.clamp(-1024, 3071).round().to(torch.int16))


@dataclass(frozen=True)
class KnownPair:
    """Two images, and the truth.

    Attributes:
        truth: maps fixed points to moving points.
        judged: (N, 3) LPS points of the fixed image whose error counts.
        told: (M, 3) points whose error is told and not judged.
        fixed_labels, moving_labels, landmarks: to be carried over, where the test is about that; landmarks are
            (M, 3) LPS mm in the fixed image.
    """

    fixed: Volume
    moving: Volume
    truth: Truth
    judged: np.ndarray
    told: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    fixed_labels: Volume | None = None
    moving_labels: Volume | None = None
    landmarks: np.ndarray | None = None


@dataclass(frozen=True)
class Case:
    """One test.

    Attributes:
        name: in the document; title, what: for people.
        preset: what registers it, a name or settings.
        make: draws the pair.
        quick: also part of the short run.
        judged: the limits of the error count. Where they are not meant for what is tested, the error is told, and the
            test fails where less than half of the motion was found or any other limit is broken.
    """

    name: str
    title: str
    what: str
    preset: str | Settings
    make: Callable[[Anatomy], KnownPair]
    quick: bool = False
    judged: bool = True


def _linear(matrix: np.ndarray, shift: Iterable[float], anatomy: Anatomy) -> SmoothWarp:
    change = AffineTransform.about(anatomy.ct.grid.center, matrix, np.asarray(tuple(shift), dtype=float))
    return SmoothWarp(np.zeros((0, 3)), np.ones((0, 3)), np.zeros((0, 3)), change)


def _seen(points: np.ndarray, truth: Truth, fixed: Grid, moving: Grid) -> np.ndarray:
    """The points that both images show with what lies around them."""
    deep = [_deep(points, fixed), _deep(truth.map_points(points), moving)]
    return points[np.all(deep, axis=0)]


def _deep(points: np.ndarray, grid: Grid) -> np.ndarray:
    """(N,) bool: at least :data:`BORDER_MM` inside the image."""
    margin = BORDER_MM / np.asarray(grid.spacing)
    voxels = grid.points_to_voxels(points)
    return np.all((voxels >= margin - 0.5) & (voxels <= np.asarray(grid.size) - 0.5 - margin), axis=1)


def _pair(anatomy: Anatomy, truth: Truth, number: int, grid: Grid | None = None) -> KnownPair:
    """The chest and the same after ``truth``, each with its own noise; both may lie on other grids."""
    # One fixed scan for all tests: its embedding is asked once.
    fixed, moving = anatomy.scanned(anatomy.ct, 0), anatomy.scanned(truth.warp(anatomy.ct, grid), number)
    return KnownPair(
        replace(fixed, source="known chest"),
        replace(moving, source="known chest, moved"),
        truth,
        _seen(anatomy.body, truth, fixed.grid, moving.grid),
    )


def _identity(anatomy: Anatomy) -> KnownPair:
    return _pair(anatomy, _linear(np.eye(3), (0, 0, 0), anatomy), 1)


def _shift(anatomy: Anatomy) -> KnownPair:
    return _pair(anatomy, _linear(np.eye(3), (17.0, -13.0, 22.0), anatomy), 2)


def _rotation(anatomy: Anatomy) -> KnownPair:
    return _pair(anatomy, _linear(rotation(5.0, -4.0, 8.0), (6.0, -5.0, 9.0), anatomy), 3)


def _scale(anatomy: Anatomy) -> KnownPair:
    return _pair(anatomy, _linear(np.diag([1.06, 0.95, 0.93]), (4.0, 3.0, -6.0), anatomy), 4)


def _breath(anatomy: Anatomy, peak_mm: float) -> SmoothWarp:
    return breathing(anatomy.ct, peak_mm, seed=1)


def _oblique(anatomy: Anatomy) -> KnownPair:
    """The moving scan has thick slices and lies oblique, with another axis order's sign."""
    spacing = np.asarray(anatomy.ct.grid.spacing) * (0.8, 0.8, 1.5)
    axes = rotation(12.0, -8.0, 15.0) @ np.diag([1.0, -1.0, -1.0])
    size = np.ceil(np.asarray(anatomy.ct.grid.extent) / spacing).astype(int)
    straight = Grid(tuple(size.tolist()), tuple(spacing.tolist()), (0.0, 0.0, 0.0), tuple(axes.ravel().tolist()))
    origin = anatomy.ct.grid.center - straight.center
    return _pair(anatomy, _breath(anatomy, 8.0), 5, replace(straight, origin=tuple(origin.tolist())))


def _small_breath(anatomy: Anatomy) -> KnownPair:
    truth = _breath(anatomy, 8.0)
    pair = _pair(anatomy, truth, 6)
    moved = truth.warp(anatomy.labels, mode="nearest")
    landmarks = _seen(anatomy.landmarks, truth, pair.fixed.grid, pair.moving.grid)
    return replace(pair, fixed_labels=anatomy.labels, moving_labels=moved, landmarks=landmarks)


def _large_breath(anatomy: Anatomy) -> KnownPair:
    return _pair(anatomy, _breath(anatomy, 15.0), 7)


def _deepest_breath(anatomy: Anatomy) -> KnownPair:
    return _pair(anatomy, _breath(anatomy, 24.0), 8)


def _other_shape(anatomy: Anatomy) -> KnownPair:
    return _pair(anatomy, random_warp(anatomy.ct, 12.0, seed=3)[1], 9)


def _sliding(anatomy: Anatomy) -> KnownPair:
    low, high = anatomy.body.min(0), anatomy.body.max(0)
    center, half = (low + high) / 2, (high - low) / 2
    truth = SlidingMap(
        (float(center[0]), float(center[1] - 0.1 * half[1])),
        (float(0.62 * half[0]), float(0.5 * half[1])),
        float(center[2]),
        45.0,
        -10.0,
    )
    pair = _pair(anatomy, truth, 10)
    near = truth.wall_distance(pair.judged) < TORN_MM
    return replace(pair, judged=pair.judged[~near], told=pair.judged[near])


def _other_modality(anatomy: Anatomy) -> KnownPair:
    pair = _pair(anatomy, _breath(anatomy, 8.0), 11)
    other = other_contrast(pair.moving.tensor)
    return replace(pair, moving=replace(pair.moving, tensor=other, source="known chest, moved, other contrast"))


def other_contrast(hounsfield: torch.Tensor) -> torch.Tensor:
    """Hounsfield units as a scan of another kind shows them: bone and gas dark, fat bright; int16."""
    values = np.interp(hounsfield.double().numpy(), *np.array(_REMAPPED).T)
    return torch.from_numpy(values.round().astype(np.int16))


def _noise_and_part(anatomy: Anatomy) -> KnownPair:
    """Four times the noise, and a moving scan that ends in the middle of the lungs."""
    truth, grid = _breath(anatomy, 8.0), anatomy.ct.grid
    size = (grid.size[0], grid.size[1], round(0.62 * grid.size[2]))
    part = grid.cropped((0, 0, 0), size)
    moved = truth.warp(anatomy.ct, part)
    fixed = anatomy.scanned(anatomy.ct, 12, 4 * _NOISE_HU)
    moving = anatomy.scanned(moved, 13, 4 * _NOISE_HU)
    return KnownPair(
        replace(fixed, source="known chest, noisy"),
        replace(moving, source="known chest, moved, part"),
        truth,
        _seen(anatomy.body, truth, grid, part),
    )


CASES = (
    Case("identity", "Identity", "the same chest, other noise", "rigid", _identity, quick=True),
    Case("shift", "Shift", "17, 13 and 22 mm along the axes", "rigid", _shift, quick=True),
    Case("rotation", "Rotation", "5, 4 and 8 degrees, and a shift", "rigid", _rotation),
    Case("scale", "Scale", "6 % wider, 5 % flatter, 7 % shorter", "affine", _scale),
    Case("grids", "Oblique grid", "thick oblique slices; breath of 8 mm", BREATHING, _oblique),
    Case("small-breath", "Small breath", "8 mm; labels and points carried", BREATHING, _small_breath, quick=True),
    Case("large-breath", "Large breath", "15 mm", BREATHING, _large_breath),
    Case("sliding", "Sliding", f"10 mm; judged from {TORN_MM:g} mm off the wall", BREATHING, _sliding),
    Case("noise-part", "Noise, partial view", "4 times the noise, 62 % of the chest", BREATHING, _noise_and_part),
    Case(
        "modality",
        "Other contrast",
        "bright is dark, as in an MR; breath of 8 mm",
        "mr-ct",
        _other_modality,
        quick=True,
    ),
    Case(
        "shape", "Other shape", "12 mm, smooth, after an affine change", "ct-inter-patient", _other_shape, judged=False
    ),
    Case("deepest-breath", "Deepest breath", "24 mm", BREATHING, _deepest_breath, judged=False),
)
