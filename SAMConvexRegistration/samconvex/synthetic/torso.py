"""The anatomy of the invented torso."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from .canvas import AIR, Canvas, Solid, ball, both, grown, texture, tube

# Vertebral bodies from T2 down to L4: height with disc, mm, and where the first one's center lies.
VERTEBRA_PITCH = np.linspace(21.0, 31.0, 15)
VERTEBRA_Z = 190.0 - np.concatenate([[0.0], np.cumsum((VERTEBRA_PITCH[1:] + VERTEBRA_PITCH[:-1]) / 2)])
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
_lung_texture = texture(-845.0, 22.0, 7.0, 31)


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


def spine_y(z: np.ndarray | float) -> np.ndarray:
    """Anterior-posterior position of the vertebral bodies' centers: thoracic kyphosis, lumbar lordosis."""
    z = np.asarray(z, dtype=float)
    return 64 + 12 * np.exp(-(((z - 60) / 110) ** 2)) - 8 * np.exp(-(((z + 170) / 80) ** 2))


def _spine_y_of(z: torch.Tensor) -> torch.Tensor:
    return 64 + 12 * torch.exp(-(((z - 60) / 110) ** 2)) - 8 * torch.exp(-(((z + 170) / 80) ** 2))


# --- anatomy --------------------------------------------------------------------------------------------------------
def draw_body(canvas: Canvas, fat_mm: float) -> None:
    """Skin, subcutaneous fat, the muscular wall, and mediastinal and abdominal fat inside it."""

    def shell(outside_mm: float) -> Solid:
        return lambda points: _chest_wall(points) - outside_mm

    # The wall is 17 mm thick (ribs run in it); fat is thicker at the flanks and belly than at the chest.
    def skin(points: torch.Tensor) -> torch.Tensor:
        thickness = fat_mm * (1 - 0.35 * torch.tanh((points[..., 2] - 20) / 80))
        return _chest_wall(points) - 19 - thickness

    canvas.paint(skin, 30.0, 1)
    canvas.paint(lambda points: skin(points) + 2.0, texture(-102.0, 10.0, 14.0, 11))
    canvas.paint(shell(17.0), texture(52.0, 16.0, 9.0, 12))
    canvas.paint(shell(0.0), texture(-92.0, 14.0, 12.0, 13))
    for side in (-1, 1):
        psoas = np.array([[side * 24.0, 62.0, -70.0], [side * 38.0, 58.0, -220.0]])
        canvas.paint(tube(psoas, np.array([8.0, 20.0])), 58.0, near=(psoas.min(0) - 22, psoas.max(0) + 22))
        back = np.array([[side * 28.0, 95.0, 210.0], [side * 32.0, 92.0, -220.0]])
        canvas.paint(tube(back, 15.0), 55.0, near=(back.min(0) - 16, back.max(0) + 16))


def draw_abdomen(canvas: Canvas, contrast: float, random: np.random.Generator) -> None:
    def below_diaphragm(points: torch.Tensor) -> torch.Tensor:
        return points[..., 2] - _dome_height(points) + 3

    def cavity(points: torch.Tensor) -> torch.Tensor:
        return _chest_wall(points) + 4

    def organ(solid: Solid, value: float | Callable, label: int | None, center: Sequence[float], half: float) -> None:
        middle = np.asarray(center, dtype=float)
        canvas.paint(both(solid, below_diaphragm, cavity), value, label, near=(middle - half, middle + half))

    # Bowel: winding loops, the level set of a smooth random field that is every patient's own; some hold gas.
    loops = texture(0.0, 1.0, 22.0, int(random.integers(1 << 30)))
    gas = texture(0.0, 1.0, 30.0, int(random.integers(1 << 30)))
    abdomen = ball((0, -22, -165), (108, 62, 95))
    organ(lambda p: torch.maximum(abdomen(p), 12 * (loops(p).abs() - 0.42)), 38.0, None, (0, -22, -165), 115)
    organ(
        lambda p: torch.maximum(abdomen(p) + 8, torch.maximum(12 * (loops(p).abs() - 0.2), 14 * (0.55 - gas(p)))),
        -650.0,
        None,
        (0, -22, -165),
        115,
    )
    liver = both(ball((-62, -8, -62), (82, 82, 78)), lambda p: 0.8 * (p[..., 0] - 22) + 0.45 * (p[..., 2] + 40))
    organ(liver, texture(62 + 48 * contrast, 6.0, 12.0, 21), 6, (-62, -8, -62), 90)
    for path, radius in _liver_vessels():
        organ(both(tube(path, radius), liver), 60 + 105 * contrast, 6, path.mean(0), 70)
    organ(ball((-34, -40, -108), (17, 22, 26)), 12.0, None, (-34, -40, -108), 30)
    organ(ball((54, -32, -72), (44, 36, 46)), texture(38.0, 14.0, 8.0, 22), 10, (54, -32, -72), 50)
    organ(ball((50, -46, -60), (27, 15, 26)), -850.0, 10, (50, -46, -60), 30)
    organ(ball((94, 40, -74), (27, 36, 50)), texture(50 + 75 * contrast, 5.0, 10.0, 23), 7, (94, 40, -74), 55)
    pancreas = np.array([[-30.0, -18.0, -128.0], [0.0, -14.0, -112.0], [40.0, 6.0, -100.0], [72.0, 26.0, -92.0]])
    organ(tube(pancreas, np.array([14.0, 10.0, 10.0, 8.0])), 45 + 55 * contrast, None, (20, 5, -110), 75)
    for side, label, z in ((-1, 8, -142.0), (1, 9, -130.0)):
        center = (side * 58.0, 48.0, z)
        organ(ball(center, (27, 25, 52)), 34 + 150 * contrast, label, center, 56)
        organ(ball((side * 52.0, 46.0, z), (13, 12, 34)), -40.0 + 120 * contrast, label, center, 50)
        organ(ball((side * 46.0, 44.0, z), (9, 9, 18)), -60.0, label, center, 40)


def _liver_vessels() -> list[tuple[np.ndarray, np.ndarray]]:
    hilum = np.array([-30.0, -6.0, -90.0])
    ends = [(-110, 20, -80), (-95, -40, -70), (-60, 30, -30), (-50, -45, -50), (-85, 5, -35), (-100, 10, -110)]
    middles = [(hilum + np.asarray(end)) / 2 + np.array([0.0, 6.0, 8.0]) for end in ends]
    return [
        (np.stack([hilum, middle, np.asarray(end, dtype=float)]), np.array([6.5, 4.5, 2.5]))
        for middle, end in zip(middles, ends, strict=True)
    ]


def lung_shape(side: int) -> Solid:
    shape = ball((side * 74.0, 4.0, 62.0), (68.0, 92.0, 150.0))
    # The left lung makes room for the heart.
    bulge = ball((34, -30, 30), (56, 52, 62)) if side > 0 else ball((14, -26, 34), (40, 44, 56))

    def distance(points: torch.Tensor) -> torch.Tensor:
        above_diaphragm = _dome_height(points) + 2 - points[..., 2]
        medial = 17 - side * points[..., 0] + 14 * torch.exp(-(((points[..., 1] - 66) / 26) ** 2))
        sides = torch.stack([shape(points), _chest_wall(points) + 3, 0.7 * above_diaphragm, medial, -bulge(points)])
        return sides.amax(0)

    return distance


def draw_chest(canvas: Canvas, contrast: float) -> None:
    lungs = (lung_shape(-1), lung_shape(1))
    # A muscular sheet under each lung separates it from abdominal fat.
    for side, label, lung in ((-1, 2, lungs[0]), (1, 3, lungs[1])):
        middle = np.array([side * 74.0, 4.0, 62.0])
        box = (middle - (72, 98, 156), middle + (72, 98, 156))
        canvas.paint(grown(lung, 2.5), 40.0, near=box)
        canvas.paint(lung, _parenchyma, label, near=box)
        for path, radius in bronchial_tree(side):
            reach = float(np.max(radius))
            near = (path.min(0) - reach, path.max(0) + reach)
            canvas.paint(tube(path, radius), 20 + 60 * contrast, near=near, within=label)
    heart = ball((20, -26, 34), (52, 45, 50))
    canvas.paint(heart, -70.0, None, near=(np.array([-36, -75, -20.0]), np.array([76, 22, 88.0])))
    myocardium = ball((22, -26, 32), (47, 40, 44))
    canvas.paint(myocardium, 70 + 35 * contrast, 4, near=(np.array([-30, -70, -16.0]), np.array([74, 18, 80.0])))
    for center, radii in (
        ((38, -24, 24), (22, 20, 27)),
        ((6, -42, 24), (24, 16, 28)),
        ((22, 0, 52), (24, 13, 16)),
        ((-12, -18, 40), (14, 17, 24)),
    ):
        middle = np.asarray(center, dtype=float)
        canvas.paint(ball(center, radii), 42 + 130 * contrast, 4, near=(middle - 30, middle + 30))
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
        canvas.paint(tube(path, width), value, organ, near=(path.min(0) - reach, path.max(0) + reach))


def _parenchyma(points: torch.Tensor) -> torch.Tensor:
    """Dependent parts of the lung hold more blood: denser towards the back."""
    return _lung_texture(points) + 0.35 * points[..., 1]


def bronchial_tree(side: int) -> list[tuple[np.ndarray, np.ndarray]]:
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


def draw_skeleton(canvas: Canvas) -> None:
    _draw_ribs(canvas)
    sternum = both(_sternum_shape, lambda p: p[..., 0].abs() - 19 + 5 * (p[..., 2] < 100))
    front = (np.array([-22.0, -125.0, 10.0]), np.array([22.0, -50.0, 165.0]))
    canvas.paint(sternum, texture(230.0, 40.0, 6.0, 51), 15, near=front)
    spongiosa, cortex = texture(170.0, 35.0, 5.0, 52), 480.0
    for index, (z, pitch) in enumerate(zip(VERTEBRA_Z, VERTEBRA_PITCH, strict=True)):
        width = float(np.interp(z, [-215, 190], [24.0, 15.0]))
        y = float(spine_y(z))
        low, high = np.array([-60.0, y - 30, z - pitch]), np.array([60.0, y + 75, z + pitch])
        disc = _vertebra(z - pitch / 2, 3.5, width * 0.96)
        canvas.paint(disc, 85.0, near=(low, high))
        body = _vertebra(z, pitch / 2 - 2.6, width)
        label = 20 + index
        canvas.paint(body, cortex, label, near=(low, high))
        canvas.paint(grown(body, -2.2), spongiosa, label, near=(low, high))
        for solid in _vertebral_arch(y, z, width):
            canvas.paint(solid, 330.0, label, near=(low, high))
    canal = np.stack([np.array([0.0, float(spine_y(z)) + 24.0, z]) for z in np.linspace(215, -215, 30)])
    canvas.paint(tube(canal, 8.5), 22.0, 1, near=(canal.min(0) - 10, canal.max(0) + 10))
    canvas.paint(tube(canal, 5.0), 42.0, 1, near=(canal.min(0) - 10, canal.max(0) + 10))


def _sternum_shape(points: torch.Tensor) -> torch.Tensor:
    depth = (_chest_wall(points) - 8).abs() - 5.5
    front = points[..., 1] + 35
    length = (points[..., 2] - 88).abs() - 68
    return torch.stack([depth, front, length]).amax(0)


def _draw_ribs(canvas: Canvas) -> None:
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

    cartilage = both(rib, lambda p: p[..., 1] + 62)
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
    arch: list[Solid] = [tube(spinous, np.array([4.5, 4.0]))]
    for side in (-1, 1):
        pedicle = np.array([[side * 0.7 * width, y + 8, z + 3], [side * 12.5, back, z + 1], [0.0, back + 12, z - 1]])
        process = np.array([[side * 12.0, back, z + 1], [side * (width + 18), back + 6, z + 2]])
        arch += [tube(pedicle, 4.2), tube(process, np.array([4.5, 3.5]))]
    return arch


def draw_parenchyma(canvas: Canvas) -> None:
    """What a scan shows inside its organs: small vessels in lungs and liver, septa in fat, bundles in muscle.

    Amplitudes as measured in chest and abdomen CTs of people: what lies between a smoothing by 2 and by 4 mm (standard
    deviations) has a spread of 20 to 25 HU in lungs and 3 to 6 HU in fat and soft tissue. Nothing is finer than about
    two voxels of 3 mm, so that an image resampled from this one keeps it.
    """
    points, values = canvas.atlas, canvas.hounsfield
    lungs = ((canvas.labels == 2) | (canvas.labels == 3)) & (values < -600)
    liver = canvas.labels == 6
    tissue = (canvas.labels > 0) & (values > -200) & (values < 300)
    fine, coarse = texture(0.0, 1.0, 6.0, 61), texture(0.0, 1.0, 11.0, 62)
    grain = fine(points) + coarse(points)
    twigs, veins = _vessel_net(points, 16.0, 1.7, 63), _vessel_net(points, 28.0, 2.2, 65)
    values += torch.where(lungs, 15.0 * grain + 220.0 * twigs, 0.0)
    values += torch.where(tissue, torch.where(liver, 5.0 * grain + 45.0 * veins, 9.0 * grain), 0.0)


def _vessel_net(points: torch.Tensor, apart_mm: float, thick_mm: float, seed: int) -> torch.Tensor:
    """0 to 1: one along curves that cross a plane about every ``apart_mm``, fading with the standard deviation
    ``thick_mm`` off them. Where two smooth random fields are both zero, there are curves.
    """
    lattice = apart_mm / 2
    first, second = texture(0.0, 1.0, lattice, seed), texture(0.0, 1.0, lattice, seed + 1)
    # Between nodes the fields rise by about the root of two.
    near_zero = 1.4 * thick_mm / lattice
    return torch.exp(-0.5 * (first(points).square() + second(points).square()) / near_zero**2)


def draw_couch(canvas: Canvas, center: np.ndarray) -> None:
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
