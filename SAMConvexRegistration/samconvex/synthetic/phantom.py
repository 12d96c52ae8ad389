"""A procedural torso CT: chest and upper abdomen of an invented patient, with labels, landmarks and exact truth.

Every patient is one atlas, drawn from simple solids, seen through a smooth warp that depends on the seed. The same
anatomical point of two patients is therefore known exactly: ``patient_from_atlas`` of one after ``atlas_from_patient``
of the other. Subcutaneous fat, contrast phase, texture and noise differ freely, as they do between people.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
import torch

from ..space.grid import IDENTITY, Grid
from ..space.transforms import AffineTransform
from ..space.volume import Volume
from .canvas import Canvas, ball, noise
from .torso import (
    CARINA,
    HILUM,
    VERTEBRA_Z,
    bronchial_tree,
    draw_abdomen,
    draw_body,
    draw_chest,
    draw_couch,
    draw_parenchyma,
    draw_skeleton,
    lung_shape,
    spine_y,
)
from .warps import SmoothWarp

LABELS = {
    1: "body",
    2: "right lung",
    3: "left lung",
    4: "heart",
    5: "aorta",
    6: "liver",
    7: "spleen",
    8: "right kidney",
    9: "left kidney",
    10: "stomach",
    11: "trachea",
    12: "esophagus",
    13: "inferior vena cava",
    14: "ribs",
    15: "sternum",
    16: "lung nodule",
    **{20 + i: name for i, name in enumerate([f"T{n}" for n in range(2, 13)] + [f"L{n}" for n in range(1, 5)])},
}
DEFAULT_EXTENT_MM = (400.0, 320.0, 400.0)


@dataclass(frozen=True)
class Phantom:
    """One invented patient. Unpacks as ``ct, labels, landmarks``.

    Attributes:
        ct: int16 Hounsfield units.
        labels: uint8, see :data:`LABELS`.
        landmarks: name to LPS mm (3,), inside the image, at the same anatomical places in every patient.
        atlas_from_patient: exact warp, patient LPS mm to atlas mm.
    """

    ct: Volume
    labels: Volume
    landmarks: dict[str, np.ndarray]
    atlas_from_patient: SmoothWarp = field(repr=False)

    def __iter__(self) -> Iterator:
        return iter((self.ct, self.labels, self.landmarks))

    def corresponding_points(self, points: np.ndarray, other: Phantom) -> np.ndarray:
        """Where (N, 3) LPS points of this patient's organs lie in ``other``, exact."""
        return other.atlas_from_patient.unmap_points(self.atlas_from_patient.map_points(points))


def make_phantom(
    seed: int = 0,
    spacing: float | Sequence[float] = 4.0,
    size: Sequence[int] | None = None,
    *,
    direction: Sequence[float] = IDENTITY,
    center: Sequence[float] = (0.0, 0.0, 0.0),
    offset: Sequence[float] = (0.0, 0.0, 0.0),
    couch: bool = True,
    field_of_view_mm: float | None = None,
    noise_hu: float = 14.0,
    nodules: int = 0,
    variation: float = 1.0,
    parenchyma: bool = False,
) -> Phantom:
    """Draw a patient.

    Args:
        seed: the patient; anatomy, contrast phase, texture and noise follow from it.
        spacing: voxel spacing, mm (x, y, z).
        size: voxels (x, y, z); default covers about 400 x 320 x 400 mm.
        direction: row-major direction cosines of the voxel axes; oblique and flipped ones are fine.
        center: LPS mm of the torso's center, and of the grid's where ``offset`` is zero.
        offset: grid center minus torso center, mm: shows another part of the torso.
        couch: draw the table under the patient.
        field_of_view_mm: diameter of the reconstruction circle; outside it lies -1024, as scanners pad.
        noise_hu: standard deviation of the noise at the given spacing.
        nodules: number of small lung lesions.
        variation: scales how far the patient differs from the atlas; 0 draws the atlas itself.
        parenchyma: draw what a scan shows inside organs, too: small vessels, septa, the grain of tissue.
    """
    step = np.broadcast_to(np.asarray(spacing, dtype=float), (3,))
    voxels = np.maximum(np.round(np.asarray(DEFAULT_EXTENT_MM) / step), 8).astype(int) if size is None else size
    grid = _centered_grid(voxels, step, direction, np.asarray(center, dtype=float) + np.asarray(offset, dtype=float))
    random = np.random.default_rng([seed, 7])
    warp = _patient_warp(random, np.asarray(center, dtype=float), variation)
    canvas = Canvas(grid, warp, float(step.mean()))
    draw_body(canvas, fat_mm=float(12 + variation * random.uniform(-6, 12)))
    contrast = float(random.uniform(0.2, 1.0))
    draw_abdomen(canvas, contrast, random)
    draw_chest(canvas, contrast)
    draw_skeleton(canvas)
    landmarks = _landmarks()
    for number, position in enumerate(_nodule_positions(nodules, random), start=1):
        radius = float(random.uniform(5.0, 11.0))
        canvas.paint(ball(position, (radius,) * 3), 45.0, 16, near=(position - radius, position + radius))
        landmarks[f"nodule {number}"] = position
    if parenchyma:
        draw_parenchyma(canvas)
    hounsfield = canvas.hounsfield
    if couch:
        draw_couch(canvas, np.asarray(center, dtype=float))
    hounsfield += noise(grid.shape, noise_hu, random)
    hounsfield.clamp_(-1024, 3071)
    if field_of_view_mm is not None:
        offset_xy = canvas.patient[..., :2] - torch.as_tensor((grid.center - canvas.reference)[:2], dtype=torch.float32)
        hounsfield[offset_xy.norm(dim=-1) > field_of_view_mm / 2] = -1024
    ct = Volume(hounsfield.round().to(torch.int16)[None, None], grid, sitk.sitkInt16, f"phantom {seed}")
    labels = Volume(canvas.labels[None, None], grid, sitk.sitkUInt8, f"phantom {seed} labels")
    positions = {name: warp.unmap_points(position[None])[0] for name, position in landmarks.items()}
    inside = grid.contains(np.stack(list(positions.values())))
    kept = {name: position for (name, position), seen in zip(positions.items(), inside, strict=True) if seen}
    return Phantom(ct, labels, kept, warp)


"""Maps (..., 3) atlas points, mm, to an approximate signed distance to a surface, mm, negative inside."""


# --- patients -------------------------------------------------------------------------------------------------------
def _patient_warp(random: np.random.Generator, center: np.ndarray, variation: float) -> SmoothWarp:
    """Patient LPS mm to atlas mm: size and posture, then organs shifted by up to a centimeter or two."""
    anchors = np.array(
        [
            [-60, 0, -10],
            [60, 0, -10],
            [-60, 0, 110],
            [60, 0, 110],
            [0, -60, 40],
            [0, 60, 60],
            [0, 0, -150],
            [-70, 0, -110],
            [70, 0, -110],
            [0, -40, -120],
        ],
        dtype=float,
    )
    centers = anchors + random.uniform(-15, 15, anchors.shape) + center
    widths = np.repeat(random.uniform(55, 75, (len(anchors), 1)), 3, 1)
    amplitudes = random.normal(0, (4.0, 4.0, 8.0), anchors.shape) * variation
    scales = 1 + variation * random.uniform((-0.09, -0.12, -0.07), (0.1, 0.12, 0.07))
    angles = np.radians(random.uniform(-4, 4, 3)) * variation
    shift = random.uniform(-12, 12, 3) * variation
    posture = AffineTransform(np.eye(3), -center).after(AffineTransform.identity())
    size = AffineTransform.about(np.zeros(3), _rotated_scale(angles, scales), shift)
    return SmoothWarp.within_slope(centers, widths, amplitudes, size.after(posture))


def _rotated_scale(angles: np.ndarray, scales: np.ndarray) -> np.ndarray:
    # A skew-symmetric step re-orthogonalized is a rotation; the angles are small.
    a, b, c = angles
    rotation, _ = np.linalg.qr(np.array([[1, -c, b], [c, 1, -a], [-b, a, 1]]))
    rotation *= np.sign(np.diag(rotation))
    return np.diag(1 / scales) @ rotation


def _landmarks() -> dict[str, np.ndarray]:
    """Anatomical points in atlas mm that a reader would recognize."""
    named = {
        "carina": CARINA,
        "top of aortic arch": np.array([10.0, 14.0, 116.0]),
        "right hilum": HILUM[-1],
        "left hilum": HILUM[1],
        "left ventricle": np.array([38.0, -24.0, 24.0]),
        "right dome of diaphragm": np.array([-62.0, -4.0, 9.0]),
        "left dome of diaphragm": np.array([66.0, 2.0, -6.0]),
        "spleen": np.array([94.0, 40.0, -74.0]),
        "right kidney": np.array([-58.0, 48.0, -142.0]),
        "left kidney": np.array([58.0, 48.0, -130.0]),
        "gallbladder": np.array([-34.0, -40.0, -108.0]),
        "aorta at the diaphragm": np.array([10.0, 42.0, -60.0]),
    }
    for index, z in enumerate(VERTEBRA_Z):
        named[f"{LABELS[20 + index]} vertebral body"] = np.array([0.0, float(spine_y(z)), z])
    for side, name in ((-1, "right"), (1, "left")):
        forks = [path[1] for path, radius in bronchial_tree(side) if radius[0] > 4.0]
        for number, position in enumerate(forks[:4], start=1):
            named[f"{name} vessel fork {number}"] = position
    return named


def _nodule_positions(count: int, random: np.random.Generator) -> list[np.ndarray]:
    """Atlas mm, well inside a lung."""
    solids = {-1: lung_shape(-1), 1: lung_shape(1)}
    found: list[np.ndarray] = []
    while len(found) < count:
        side = int(random.choice([-1, 1]))
        candidate = random.uniform((35, -50, 10), (115, 60, 150)) * np.array([side, 1, 1])
        depth = float(solids[side](torch.as_tensor(candidate, dtype=torch.float32)))
        if depth < -14 and all(np.linalg.norm(candidate - other) > 30 for other in found):
            found.append(candidate)
    return found


def _centered_grid(
    size: Sequence[int] | np.ndarray, spacing: np.ndarray, direction: Sequence[float], center: np.ndarray
) -> Grid:
    axes = np.reshape(np.asarray(direction, dtype=float), (3, 3))
    origin = center - axes @ ((np.asarray(size) - 1) / 2 * spacing)
    x, y, z = (int(s) for s in size)
    sx, sy, sz = (float(s) for s in spacing)
    return Grid((x, y, z), (sx, sy, sz), (float(origin[0]), float(origin[1]), float(origin[2])), tuple(axes.ravel()))
