"""A procedural torso CT: chest and upper abdomen of an invented patient, with labels, landmarks and exact truth.

Every patient is one atlas, drawn from simple solids, seen through a smooth warp that depends on the seed. The same
anatomical point of two patients is therefore known exactly: ``patient_from_atlas`` of one after ``atlas_from_patient``
of the other. Subcutaneous fat, contrast phase, texture and noise differ freely, as they do between people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from .known_warps import SmoothWarp
from .space.grid import IDENTITY, Grid
from .space.sampling import sample
from .space.transforms import AffineTransform
from .space.volume import Volume

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

AIR = -1000.0
DEFAULT_EXTENT_MM = (400.0, 320.0, 400.0)
# Vertebral bodies from T2 down to L4: height with disc, mm, and where the first one's center lies.
VERTEBRA_PITCH = np.linspace(21.0, 31.0, 15)
VERTEBRA_Z = 190.0 - np.concatenate([[0.0], np.cumsum((VERTEBRA_PITCH[1:] + VERTEBRA_PITCH[:-1]) / 2)])


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
    """
    step = np.broadcast_to(np.asarray(spacing, dtype=float), (3,))
    voxels = np.maximum(np.round(np.asarray(DEFAULT_EXTENT_MM) / step), 8).astype(int) if size is None else size
    grid = _centered_grid(voxels, step, direction, np.asarray(center, dtype=float) + np.asarray(offset, dtype=float))
    random = np.random.default_rng([seed, 7])
    warp = _patient_warp(random, np.asarray(center, dtype=float), variation)
    canvas = _Canvas(grid, warp, float(step.mean()))
    _draw_body(canvas, fat_mm=float(12 + variation * random.uniform(-6, 12)))
    contrast = float(random.uniform(0.2, 1.0))
    _draw_abdomen(canvas, contrast, random)
    _draw_chest(canvas, contrast)
    _draw_skeleton(canvas)
    landmarks = _landmarks()
    for number, position in enumerate(_nodule_positions(nodules, random), start=1):
        radius = float(random.uniform(5.0, 11.0))
        canvas.paint(_ball(position, (radius,) * 3), 45.0, 16, near=(position - radius, position + radius))
        landmarks[f"nodule {number}"] = position
    hounsfield = canvas.hounsfield
    if couch:
        _draw_couch(canvas, np.asarray(center, dtype=float))
    hounsfield += _noise(grid.shape, noise_hu, random)
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


Solid = Callable[[torch.Tensor], torch.Tensor]
"""Maps (..., 3) atlas points, mm, to an approximate signed distance to a surface, mm, negative inside."""


class _Canvas:
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
def _ball(center: Sequence[float] | np.ndarray, radii: Sequence[float]) -> Solid:
    middle, half = torch.as_tensor(np.asarray(center), dtype=torch.float32), torch.tensor(radii, dtype=torch.float32)

    def distance(points: torch.Tensor) -> torch.Tensor:
        offset = (points - middle) / half
        length = offset.norm(dim=-1)
        # First-order distance to the ellipsoid: level set over its gradient.
        return length * (length - 1) / (offset / half).norm(dim=-1).clamp(min=1e-6)

    return distance


def _tube(path: np.ndarray, radius: float | np.ndarray) -> Solid:
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


def _both(*solids: Solid) -> Solid:
    return lambda points: torch.stack([solid(points) for solid in solids]).amax(0)


def _grown(solid: Solid, margin_mm: float) -> Solid:
    return lambda points: solid(points) - margin_mm


def _chest_wall(points: torch.Tensor) -> torch.Tensor:
    """Distance to the inner surface of the trunk's wall: a rounded cross section, narrower towards the neck."""
    x, y, z = points.unbind(-1)
    narrowing = 1 - 0.28 * ((z - 60) / 150).clamp(0, 1.3) ** 2
    half_x, half_y = 132 * narrowing, 88 * narrowing.sqrt()
    # The back is flatter than the chest.
    back = torch.where(y > 0, 1.06, 1.0)
    u, v = x / half_x, y / (half_y * back)
    power = (u.abs() ** 2.4 + v.abs() ** 2.4).clamp(min=1e-9) ** (1 / 2.4)
    return (power - 1) * (half_y + (half_x - half_y) * u.abs() / (u.abs() + v.abs() + 1e-6))


def _dome_height(points: torch.Tensor) -> torch.Tensor:
    """z of the diaphragm above or below each point: two domes, the right one higher, falling off to the wall."""
    x, y = points[..., 0], points[..., 1]
    right = 62 * torch.exp(-(((x + 62) / 62) ** 2) - ((y + 4) / 62) ** 2)
    left = 50 * torch.exp(-(((x - 66) / 60) ** 2) - ((y - 2) / 62) ** 2)
    return -52 + right + left - 0.25 * (y + 20).clamp(min=0)


def _spine_y(z: np.ndarray | float) -> np.ndarray:
    """Anterior-posterior position of the vertebral bodies' centers: thoracic kyphosis, lumbar lordosis."""
    z = np.asarray(z, dtype=float)
    return 64 + 12 * np.exp(-(((z - 60) / 110) ** 2)) - 8 * np.exp(-(((z + 170) / 80) ** 2))


def _spine_y_of(z: torch.Tensor) -> torch.Tensor:
    return 64 + 12 * torch.exp(-(((z - 60) / 110) ** 2)) - 8 * torch.exp(-(((z + 170) / 80) ** 2))


# --- texture and noise ----------------------------------------------------------------------------------------------
def _texture(mean: float, amplitude: float, scale_mm: float, seed: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Smooth random values about ``mean``; ``scale_mm`` is the lattice on which they are drawn."""
    size = 48
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 1, size, size, size)).astype(np.float32))
    lattice = Grid((size,) * 3, (1.0,) * 3)

    def value(points: torch.Tensor) -> torch.Tensor:
        # Mirrored repetition keeps the texture continuous beyond its lattice.
        phase = (points / scale_mm + 24.0).remainder(2.0 * (size - 1))
        return mean + amplitude * sample(values, lattice, torch.minimum(phase, 2.0 * (size - 1) - phase))[0, 0]

    return value


def _noise(shape: tuple[int, int, int], sigma: float, random: np.random.Generator) -> torch.Tensor:
    """Gaussian noise with the short in-plane correlation of a soft reconstruction kernel."""
    white = torch.from_numpy(random.standard_normal(shape, dtype=np.float32))[:, None]
    kernel = torch.tensor([[0.05, 0.12, 0.05], [0.12, 1.0, 0.12], [0.05, 0.12, 0.05]])
    kernel = kernel / kernel.square().sum().sqrt()
    return F.conv2d(white, kernel[None, None], padding=1)[:, 0] * sigma


# --- anatomy --------------------------------------------------------------------------------------------------------
def _draw_body(canvas: _Canvas, fat_mm: float) -> None:
    """Skin, subcutaneous fat, the muscular wall, and mediastinal and abdominal fat inside it."""

    def shell(outside_mm: float) -> Solid:
        return lambda points: _chest_wall(points) - outside_mm

    # The wall is 17 mm thick (ribs run in it); fat is thicker at the flanks and belly than at the chest.
    def skin(points: torch.Tensor) -> torch.Tensor:
        thickness = fat_mm * (1 - 0.35 * torch.tanh((points[..., 2] - 20) / 80))
        return _chest_wall(points) - 19 - thickness

    canvas.paint(skin, 30.0, 1)
    canvas.paint(lambda points: skin(points) + 2.0, _texture(-102.0, 10.0, 14.0, 11))
    canvas.paint(shell(17.0), _texture(52.0, 16.0, 9.0, 12))
    canvas.paint(shell(0.0), _texture(-92.0, 14.0, 12.0, 13))
    for side in (-1, 1):
        psoas = np.array([[side * 24.0, 62.0, -70.0], [side * 38.0, 58.0, -220.0]])
        canvas.paint(_tube(psoas, np.array([8.0, 20.0])), 58.0, near=(psoas.min(0) - 22, psoas.max(0) + 22))
        back = np.array([[side * 28.0, 95.0, 210.0], [side * 32.0, 92.0, -220.0]])
        canvas.paint(_tube(back, 15.0), 55.0, near=(back.min(0) - 16, back.max(0) + 16))


def _draw_abdomen(canvas: _Canvas, contrast: float, random: np.random.Generator) -> None:
    def below_diaphragm(points: torch.Tensor) -> torch.Tensor:
        return points[..., 2] - _dome_height(points) + 3

    def cavity(points: torch.Tensor) -> torch.Tensor:
        return _chest_wall(points) + 4

    def organ(solid: Solid, value: float | Callable, label: int | None, center: Sequence[float], half: float) -> None:
        middle = np.asarray(center, dtype=float)
        canvas.paint(_both(solid, below_diaphragm, cavity), value, label, near=(middle - half, middle + half))

    # Bowel: winding loops, the level set of a smooth random field that is every patient's own; some hold gas.
    loops = _texture(0.0, 1.0, 22.0, int(random.integers(1 << 30)))
    gas = _texture(0.0, 1.0, 30.0, int(random.integers(1 << 30)))
    abdomen = _ball((0, -22, -165), (108, 62, 95))
    organ(lambda p: torch.maximum(abdomen(p), 12 * (loops(p).abs() - 0.42)), 38.0, None, (0, -22, -165), 115)
    organ(
        lambda p: torch.maximum(abdomen(p) + 8, torch.maximum(12 * (loops(p).abs() - 0.2), 14 * (0.55 - gas(p)))),
        -650.0,
        None,
        (0, -22, -165),
        115,
    )
    liver = _both(_ball((-62, -8, -62), (82, 82, 78)), lambda p: 0.8 * (p[..., 0] - 22) + 0.45 * (p[..., 2] + 40))
    organ(liver, _texture(62 + 48 * contrast, 6.0, 12.0, 21), 6, (-62, -8, -62), 90)
    for path, radius in _liver_vessels():
        organ(_both(_tube(path, radius), liver), 60 + 105 * contrast, 6, path.mean(0), 70)
    organ(_ball((-34, -40, -108), (17, 22, 26)), 12.0, None, (-34, -40, -108), 30)
    organ(_ball((54, -32, -72), (44, 36, 46)), _texture(38.0, 14.0, 8.0, 22), 10, (54, -32, -72), 50)
    organ(_ball((50, -46, -60), (27, 15, 26)), -850.0, 10, (50, -46, -60), 30)
    organ(_ball((94, 40, -74), (27, 36, 50)), _texture(50 + 75 * contrast, 5.0, 10.0, 23), 7, (94, 40, -74), 55)
    pancreas = np.array([[-30.0, -18.0, -128.0], [0.0, -14.0, -112.0], [40.0, 6.0, -100.0], [72.0, 26.0, -92.0]])
    organ(_tube(pancreas, np.array([14.0, 10.0, 10.0, 8.0])), 45 + 55 * contrast, None, (20, 5, -110), 75)
    for side, label, z in ((-1, 8, -142.0), (1, 9, -130.0)):
        center = (side * 58.0, 48.0, z)
        organ(_ball(center, (27, 25, 52)), 34 + 150 * contrast, label, center, 56)
        organ(_ball((side * 52.0, 46.0, z), (13, 12, 34)), -40.0 + 120 * contrast, label, center, 50)
        organ(_ball((side * 46.0, 44.0, z), (9, 9, 18)), -60.0, label, center, 40)


def _liver_vessels() -> list[tuple[np.ndarray, np.ndarray]]:
    hilum = np.array([-30.0, -6.0, -90.0])
    ends = [(-110, 20, -80), (-95, -40, -70), (-60, 30, -30), (-50, -45, -50), (-85, 5, -35), (-100, 10, -110)]
    middles = [(hilum + np.asarray(end)) / 2 + np.array([0.0, 6.0, 8.0]) for end in ends]
    return [
        (np.stack([hilum, middle, np.asarray(end, dtype=float)]), np.array([6.5, 4.5, 2.5]))
        for middle, end in zip(middles, ends, strict=True)
    ]


AORTA = np.array(
    [
        [4.0, -14.0, 52.0],
        [-10.0, -20.0, 84.0],
        [-4.0, -8.0, 108.0],
        [10.0, 14.0, 116.0],
        [20.0, 34.0, 104.0],
        [22.0, 44.0, 70.0],
        [18.0, 46.0, 10.0],
        [10.0, 42.0, -60.0],
        [6.0, 36.0, -130.0],
        [4.0, 32.0, -215.0],
    ]
)
VENA_CAVA = np.array(
    [
        [-22.0, -10.0, 30.0],
        [-24.0, 0.0, -10.0],
        [-24.0, 16.0, -50.0],
        [-22.0, 28.0, -110.0],
        [-18.0, 32.0, -215.0],
    ]
)
ESOPHAGUS = np.array(
    [
        [2.0, 26.0, 215.0],
        [4.0, 36.0, 110.0],
        [6.0, 32.0, 40.0],
        [14.0, 14.0, -30.0],
        [34.0, -8.0, -52.0],
    ]
)
CARINA = np.array([0.0, 18.0, 96.0])
TRACHEA = np.array([[0.0, 8.0, 220.0], [0.0, 10.0, 150.0], CARINA])
HILUM = {-1: np.array([-42.0, 10.0, 68.0]), 1: np.array([46.0, 12.0, 72.0])}


def _lung(side: int) -> Solid:
    shape = _ball((side * 74.0, 4.0, 62.0), (68.0, 92.0, 150.0))
    # The left lung makes room for the heart.
    bulge = _ball((34, -30, 30), (56, 52, 62)) if side > 0 else _ball((14, -26, 34), (40, 44, 56))

    def distance(points: torch.Tensor) -> torch.Tensor:
        above_diaphragm = _dome_height(points) + 2 - points[..., 2]
        medial = 17 - side * points[..., 0] + 14 * torch.exp(-(((points[..., 1] - 66) / 26) ** 2))
        sides = torch.stack([shape(points), _chest_wall(points) + 3, 0.7 * above_diaphragm, medial, -bulge(points)])
        return sides.amax(0)

    return distance


def _draw_chest(canvas: _Canvas, contrast: float) -> None:
    lungs = (_lung(-1), _lung(1))
    # A muscular sheet under each lung separates it from abdominal fat.
    for side, label, lung in ((-1, 2, lungs[0]), (1, 3, lungs[1])):
        middle = np.array([side * 74.0, 4.0, 62.0])
        box = (middle - (72, 98, 156), middle + (72, 98, 156))
        canvas.paint(_grown(lung, 2.5), 40.0, near=box)
        canvas.paint(lung, _parenchyma, label, near=box)
        for path, radius in _bronchial_tree(side):
            reach = float(np.max(radius))
            near = (path.min(0) - reach, path.max(0) + reach)
            canvas.paint(_tube(path, radius), 20 + 60 * contrast, near=near, within=label)
    heart = _ball((20, -26, 34), (52, 45, 50))
    canvas.paint(heart, -70.0, None, near=(np.array([-36, -75, -20.0]), np.array([76, 22, 88.0])))
    myocardium = _ball((22, -26, 32), (47, 40, 44))
    canvas.paint(myocardium, 70 + 35 * contrast, 4, near=(np.array([-30, -70, -16.0]), np.array([74, 18, 80.0])))
    for center, radii in (
        ((38, -24, 24), (22, 20, 27)),
        ((6, -42, 24), (24, 16, 28)),
        ((22, 0, 52), (24, 13, 16)),
        ((-12, -18, 40), (14, 17, 24)),
    ):
        middle = np.asarray(center, dtype=float)
        canvas.paint(_ball(center, radii), 42 + 130 * contrast, 4, near=(middle - 30, middle + 30))
    vessels: tuple[tuple[np.ndarray, float | np.ndarray, float, int | None], ...] = (
        (VENA_CAVA, 11.0, 42 + 100 * contrast, 13),
        (np.array([[-24.0, -8.0, 40.0], [-24.0, -6.0, 90.0], [-26.0, -4.0, 150.0]]), 9.0, 42 + 130 * contrast, None),
        (np.array([[14.0, -34.0, 50.0], [16.0, -20.0, 82.0], [0.0, 2.0, 84.0]]), 12.0, 42 + 130 * contrast, None),
        (np.array([[0.0, 2.0, 84.0], HILUM[-1]]), 9.0, 42 + 130 * contrast, None),
        (np.array([[16.0, -20.0, 82.0], HILUM[1]]), 9.0, 42 + 130 * contrast, None),
        (AORTA, np.linspace(14.5, 9.5, len(AORTA)), 42 + 135 * contrast, 5),
        (np.array([[2.0, 2.0, 116.0], [-14.0, 0.0, 215.0]]), 6.0, 42 + 135 * contrast, None),
        (np.array([[12.0, 16.0, 118.0], [20.0, 4.0, 215.0]]), 5.0, 42 + 135 * contrast, None),
        (ESOPHAGUS, 8.0, 34.0, 12),
        (ESOPHAGUS[:3], 2.5, -400.0, None),
        (TRACHEA, 10.0, 10.0, None),
        (TRACHEA, 8.0, AIR, 11),
        (np.array([CARINA, HILUM[-1]]), 6.0, AIR, 11),
        (np.array([CARINA, HILUM[1]]), 5.5, AIR, 11),
    )
    for path, width, value, organ in vessels:
        reach = float(np.max(width)) + 1
        canvas.paint(_tube(path, width), value, organ, near=(path.min(0) - reach, path.max(0) + reach))


_lung_texture = _texture(-845.0, 22.0, 7.0, 31)


def _parenchyma(points: torch.Tensor) -> torch.Tensor:
    """Dependent parts of the lung hold more blood: denser towards the back."""
    return _lung_texture(points) + 0.35 * points[..., 1]


def _bronchial_tree(side: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pulmonary vessels of one lung: branches fork towards points spread through the lung, thinner each time."""
    random = np.random.default_rng(40 + side)
    low, high = np.array([24.0, -70.0, -40.0]), np.array([128.0, 78.0, 180.0])
    targets = random.uniform(low, high, (110, 3)) * np.array([side, 1.0, 1.0])
    branches: list[tuple[np.ndarray, np.ndarray]] = []

    def fork(start: np.ndarray, ends: np.ndarray, radius: float, depth: int) -> None:
        if len(ends) == 0:
            return
        middle = ends.mean(0)
        node = start + (middle - start) * (0.42 if len(ends) > 1 else 0.9)
        branches.append((np.stack([start, node]), np.array([radius, radius * 0.85])))
        if len(ends) == 1 or depth == 7:
            return
        axis = int(np.argmax(ends.std(0)))
        near_half = ends[:, axis] < np.median(ends[:, axis])
        for half in (ends[near_half], ends[~near_half]):
            fork(node, half, max(1.3, radius * 0.82), depth + 1)

    fork(HILUM[side], targets, 6.5, 0)
    return branches


def _draw_skeleton(canvas: _Canvas) -> None:
    _draw_ribs(canvas)
    sternum = _both(_sternum_shape, lambda p: p[..., 0].abs() - 19 + 5 * (p[..., 2] < 100))
    front = (np.array([-22.0, -125.0, 10.0]), np.array([22.0, -50.0, 165.0]))
    canvas.paint(sternum, _texture(230.0, 40.0, 6.0, 51), 15, near=front)
    spongiosa, cortex = _texture(170.0, 35.0, 5.0, 52), 480.0
    for index, (z, pitch) in enumerate(zip(VERTEBRA_Z, VERTEBRA_PITCH, strict=True)):
        width = float(np.interp(z, [-215, 190], [24.0, 15.0]))
        y = float(_spine_y(z))
        low, high = np.array([-60.0, y - 30, z - pitch]), np.array([60.0, y + 75, z + pitch])
        disc = _vertebra(z - pitch / 2, 3.5, width * 0.96)
        canvas.paint(disc, 85.0, near=(low, high))
        body = _vertebra(z, pitch / 2 - 2.6, width)
        label = 20 + index
        canvas.paint(body, cortex, label, near=(low, high))
        canvas.paint(_grown(body, -2.2), spongiosa, label, near=(low, high))
        for solid in _vertebral_arch(y, z, width):
            canvas.paint(solid, 330.0, label, near=(low, high))
    canal = np.stack([np.array([0.0, float(_spine_y(z)) + 24.0, z]) for z in np.linspace(215, -215, 30)])
    canvas.paint(_tube(canal, 8.5), 22.0, 1, near=(canal.min(0) - 10, canal.max(0) + 10))
    canvas.paint(_tube(canal, 5.0), 42.0, 1, near=(canal.min(0) - 10, canal.max(0) + 10))


def _sternum_shape(points: torch.Tensor) -> torch.Tensor:
    depth = (_chest_wall(points) - 8).abs() - 5.5
    front = points[..., 1] + 35
    length = (points[..., 2] - 88).abs() - 68
    return torch.stack([depth, front, length]).amax(0)


def _draw_ribs(canvas: _Canvas) -> None:
    """Twelve pairs, each in a plane that falls from the spine to the front; cartilage in front."""
    pitch, first, count = 25.0, 196.0, 11

    def numbered(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # Ribs start at their vertebra and descend by 70 mm on the way round to the sternum.
        around = (points[..., 1] - 70) / 160
        level = points[..., 2] - 70 * around - 8 * torch.cos(points[..., 0] / 60)
        index = ((first - level) / pitch).round().clamp(0, count - 1)
        return level - (first - index * pitch), index

    def rib(points: torch.Tensor) -> torch.Tensor:
        height, index = numbered(points)
        depth = _chest_wall(points) - 8
        # Lower ribs float: they end before the front.
        front = -(points[..., 1] + 92 - 15 * (index - 6).clamp(min=0))
        midline = 20 - points[..., 0].abs()
        return torch.stack([(height.square() + (1.5 * depth).square()).sqrt() - 7, front, midline]).amax(0)

    cartilage = _both(rib, lambda p: p[..., 1] + 62)
    canvas.paint(rib, 420.0, 14)
    canvas.paint(lambda p: rib(p) + 2.2, 190.0, 14)
    canvas.paint(cartilage, 110.0, 14)


def _vertebra(z: float, half_height: float, width: float) -> Solid:
    def distance(points: torch.Tensor) -> torch.Tensor:
        dy = points[..., 1] - _spine_y_of(points[..., 2])
        radial = ((points[..., 0] / width) ** 2 + (dy / (0.82 * width)) ** 2).clamp(min=1e-9).sqrt()
        waist = 1.5 * (1 - ((points[..., 2] - z) / max(half_height, 1.0)) ** 2).clamp(min=0)
        return torch.maximum((radial - 1) * 0.9 * width + waist, (points[..., 2] - z).abs() - half_height)

    return distance


def _vertebral_arch(y: float, z: float, width: float) -> list[Solid]:
    back = y + 24.0
    spinous = np.array([[0.0, back + 11, z], [0.0, back + 34, z - 14]])
    arch: list[Solid] = [_tube(spinous, np.array([4.5, 4.0]))]
    for side in (-1, 1):
        pedicle = np.array([[side * 0.7 * width, y + 8, z + 3], [side * 12.5, back, z + 1], [0.0, back + 12, z - 1]])
        process = np.array([[side * 12.0, back, z + 1], [side * (width + 18), back + 6, z + 2]])
        arch += [_tube(pedicle, 4.2), _tube(process, np.array([4.5, 3.5]))]
    return arch


def _draw_couch(canvas: _Canvas, center: np.ndarray) -> None:
    """A curved table top behind the patient, in patient coordinates (it does not follow the anatomy)."""
    points = canvas.patient - torch.as_tensor(center - canvas.reference, dtype=torch.float32)
    body = (canvas.labels > 0).any(0)
    rows = points[0, ..., 1][body]
    back = float(rows.max()) + 2 if rows.numel() else 120.0
    top = points[..., 1] - (back + 8 - 0.0009 * points[..., 0].square())
    width = points[..., 0].abs() - 210
    outside = torch.maximum((top - 12).abs() - 12, width)
    cover = (0.5 - outside / canvas.edge_mm).clamp(0, 1) * (canvas.labels == 0)
    foam = torch.where(outside > -max(2.5, canvas.edge_mm / 2), -250.0, -930.0)
    canvas.hounsfield += cover * (foam - canvas.hounsfield)


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
        named[f"{LABELS[20 + index]} vertebral body"] = np.array([0.0, float(_spine_y(z)), z])
    for side, name in ((-1, "right"), (1, "left")):
        forks = [path[1] for path, radius in _bronchial_tree(side) if radius[0] > 4.0]
        for number, position in enumerate(forks[:4], start=1):
            named[f"{name} vessel fork {number}"] = position
    return named


def _nodule_positions(count: int, random: np.random.Generator) -> list[np.ndarray]:
    """Atlas mm, well inside a lung."""
    solids = {-1: _lung(-1), 1: _lung(1)}
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
