"""What the preview computes: comparable images, checkerboard, worst places, the colors of volume change."""

import numpy as np
import SimpleITK as sitk
import slicer
from SAMConvexLib import nodes
from SAMConvexLib.scene import addHidden
from slicer.i18n import tr as _

MAXIMUM_COMPOSED_VOXELS = 4_000_000
CHECKER_MM = 30.0


def coarseImage(volumeNode):
    """ImageInFrame of a volume, thinned out to at most 4 million voxels, the finest axis first."""
    voxelToFrame, worldFromFrame = nodes.exportFrame(volumeNode)
    array = slicer.util.arrayFromVolume(volumeNode)
    spacing = np.linalg.norm(voxelToFrame[:3, :3], axis=0)
    step = np.ones(3, int)
    while np.prod(np.ceil(np.array(array.shape[::-1]) / step)) > MAXIMUM_COMPOSED_VOXELS:
        step[int(np.argmin(spacing * step))] += 1
    array = array[:: step[2], :: step[1], :: step[0]]
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    coarse = voxelToFrame @ np.diag([*step.astype(float), 1.0])
    return nodes.ImageInFrame(nodes.setImageGeometry(image, coarse), worldFromFrame)


def windowed(array, volumeNode):
    """Gray values 0 to 255 as the volume's window and level show them."""
    display = volumeNode.GetDisplayNode()
    if display is not None:
        lower, upper = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    else:
        lower, upper = np.percentile(array, [1, 99])
    return np.clip((array - lower) * (255.0 / max(upper - lower, 1e-6)), 0, 255).astype(np.uint8)


def checkerboard(first, second, spacing):
    """Alternate two (k, j, i) arrays in cubes of 30 mm."""
    tiles = [
        (np.arange(size) * step // CHECKER_MM).astype(int)
        for size, step in zip(first.shape, reversed(spacing), strict=True)
    ]
    odd = (tiles[0][:, None, None] + tiles[1][None, :, None] + tiles[2][None, None]) % 2
    return np.where(odd == 1, second, first)


def worstPlaces(vectors, lattice, fixedVolume, count=5, apart=25.0):
    """[(RAS mm, determinant)] of the lowest Jacobian determinants inside the fixed image's body."""
    determinant = nodes.jacobianDeterminant(vectors, lattice)
    index = np.argwhere(np.isfinite(determinant))[:, ::-1]
    points = index @ lattice[:3, :3].T + lattice[:3, 3]
    inverse = np.linalg.inv(nodes.parentToWorld(fixedVolume) @ nodes.ijkToRas(fixedVolume))
    voxels = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    array = slicer.util.arrayFromVolume(fixedVolume)
    inside = np.all((voxels >= 0) & (voxels < np.array(array.shape[::-1])), axis=1)
    values = np.full(len(points), -np.inf)
    values[inside] = array[tuple(voxels[inside][:, ::-1].T)]
    if inside.any():
        # Halfway between air and the middle of the tissue: bodies are brighter than what surrounds them.
        darkest, median = float(values[inside].min()), float(np.median(values[inside]))
        brightest = float(np.percentile(values[inside], 90))
        inside &= values > (darkest + max(median, (darkest + brightest) / 2)) / 2
    candidates = determinant[tuple(index.T[::-1])]
    order = np.argsort(np.where(inside, candidates, np.inf))
    found = []
    for place in order[: int(inside.sum())]:
        if all(np.linalg.norm(points[place] - other) >= apart for other, _value in found):
            found.append((points[place], float(candidates[place])))
            if len(found) == count:
                break
    return found


def jacobianColors():
    """Color table for determinants 0 to 2: magenta folds, blue shrinks, light gray keeps, red grows.

    Slice views ignore a table's opacities, so "keeps" has a color of its own.
    """
    table = addHidden("vtkMRMLColorTableNode", _("Volume change"), save=True)
    table.SetTypeToUser()
    table.SetNumberOfColors(256)
    neutral = np.full(3, 0.85)
    for entry in range(256):
        deviation = (entry - 127.5) / 127.5
        extreme = np.array((0.1, 0.3, 1.0) if deviation < 0 else (1.0, 0.2, 0.1))
        color = neutral + (extreme - neutral) * abs(deviation)
        table.SetColor(entry, f"{entry / 127.5:.2f}", *[float(value) for value in color], 1.0)
    table.SetColor(0, "fold", 1.0, 0.0, 1.0, 1.0)
    return table
