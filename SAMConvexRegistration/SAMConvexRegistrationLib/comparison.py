"""What the preview computes: comparable images, checkerboard, worst places, colors of volume change and error."""

import numpy as np
import SimpleITK as sitk
import slicer
from SAMConvexLib import nodes
from SAMConvexLib.process import engineModule
from SAMConvexLib.scene import addHidden
from slicer.i18n import tr as _

MAXIMUM_COMPOSED_VOXELS = 4_000_000
CHECKER_MM = 30.0
ERROR_TOP_MM = 20.0


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
    return lowestPlaces(determinant, lattice, fixedVolume, count, apart)


def leastCertainPlaces(errorVolume, fixedVolume, count=5, apart=25.0):
    """[(RAS mm, mm)] of the largest expected errors inside the fixed image's body."""
    millimeters = slicer.util.arrayFromVolume(errorVolume).astype(float)
    lattice = nodes.parentToWorld(errorVolume) @ nodes.ijkToRas(errorVolume)
    found = lowestPlaces(-millimeters, lattice, fixedVolume, count, apart)
    return [(position, -value) for position, value in found]


def lowestPlaces(values, lattice, fixedVolume, count, apart):
    """[(RAS mm, value)] of the lowest (k, j, i) values of a lattice inside the fixed body, ``apart`` mm or more."""
    index = np.argwhere(np.isfinite(values))[:, ::-1]
    points = index @ lattice[:3, :3].T + lattice[:3, 3]
    inverse = np.linalg.inv(nodes.parentToWorld(fixedVolume) @ nodes.ijkToRas(fixedVolume))
    voxels = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    array = slicer.util.arrayFromVolume(fixedVolume)
    inside = np.all((voxels >= 0) & (voxels < np.array(array.shape[::-1])), axis=1)
    gray = np.full(len(points), -np.inf)
    gray[inside] = array[tuple(voxels[inside][:, ::-1].T)]
    if inside.any():
        # Halfway between air and the middle of the tissue: bodies are brighter than what surrounds them.
        darkest, median = float(gray[inside].min()), float(np.median(gray[inside]))
        brightest = float(np.percentile(gray[inside], 90))
        inside &= gray > (darkest + max(median, (darkest + brightest) / 2)) / 2
    candidates = values[tuple(index.T[::-1])]
    order = np.argsort(np.where(inside, candidates, np.inf))
    found = []
    for place in order[: int(inside.sum())]:
        if all(np.linalg.norm(points[place] - other) >= apart for other, _value in found):
            found.append((points[place], float(candidates[place])))
            if len(found) == count:
                break
    return found


def errorColors():
    """Color table for 0 to 20 mm, the colors of the report's picture; one for the whole scene."""
    name = _("Expected error, mm")
    table = slicer.mrmlScene.GetFirstNode(name, "vtkMRMLColorTableNode")
    if table is not None:
        return table
    table = addHidden("vtkMRMLColorTableNode", name, save=True)
    table.SetTypeToUser()
    table.SetNumberOfColors(256)
    colors = engineModule("samconvex.report.colors")
    for entry in range(256):
        millimeters = entry / 255 * ERROR_TOP_MM
        color = colors.error_color(np.array(millimeters)) / 255
        table.SetColor(entry, f"{millimeters:.1f} mm", *[float(value) for value in color], 1.0)
    return table


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
