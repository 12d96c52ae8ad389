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
VOLUME_CHANGE_TOP = 2.0
LEGEND_FONT_SIZE = 9
# Between skin and air every field changes steeply, and nobody reads it there.
SKIN_MM = 10.0


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


def volumeChange(determinant):
    """Volume of the registered tissue against its volume in the moving image, of Jacobians from fixed to moving.

    Args:
        determinant: (k, j, i) of the map from fixed to moving.
    Returns:
        (k, j, i) float32: 0.5 where tissue shrinks to half, 2 where it grows to twice its volume (limited to 1/100 and
        100); 0 where the map folds, as there is no such volume.
    """
    change = 1.0 / np.clip(determinant, 0.01, 100.0)
    return np.where(determinant > 0, change, 0.0).astype(np.float32)


def worstPlaces(vectors, lattice, fixedVolume, count=5, apart=25.0):
    """[(RAS mm, determinant)] well inside the fixed image's body: folds first, then what shrinks or grows most."""
    determinant = nodes.jacobianDeterminant(vectors, lattice)
    # Folded places are below every other.
    order = np.where(determinant > 0, -np.abs(np.log(np.clip(determinant, 1e-6, None))), determinant - 1e3)
    places = lowestPlaces(order, lattice, fixedVolume, count, apart, SKIN_MM)
    return [(position, float(determinant[index])) for position, index in places]


def leastCertainPlaces(errorVolume, fixedVolume, count=5, apart=25.0):
    """[(RAS mm, mm)] of the largest expected errors inside the fixed image's body."""
    millimeters = slicer.util.arrayFromVolume(errorVolume).astype(float)
    lattice = nodes.parentToWorld(errorVolume) @ nodes.ijkToRas(errorVolume)
    places = lowestPlaces(-millimeters, lattice, fixedVolume, count, apart)
    return [(position, float(millimeters[index])) for position, index in places]


def lowestPlaces(values, lattice, fixedVolume, count, apart, depth=0.0):
    """[(RAS mm, (k, j, i))] of the lowest values of a lattice inside the fixed body, ``apart`` mm or more.

    Args:
        depth: mm from the body's surface; without effect in a body nowhere that thick.
    """
    index = np.argwhere(np.isfinite(values))
    points = index[:, ::-1] @ lattice[:3, :3].T + lattice[:3, 3]
    inside = insideBody(points, fixedVolume, depth)
    if depth and not inside.any():
        inside = insideBody(points, fixedVolume, 0.0)
    order = np.argsort(np.where(inside, values[tuple(index.T)], np.inf), kind="stable")
    found = []
    for place in order[: int(inside.sum())]:
        if all(np.linalg.norm(points[place] - other) >= apart for other, _index in found):
            found.append((points[place], tuple(index[place])))
            if len(found) == count:
                break
    return found


def insideBody(points, volumeNode, depth):
    """(N,) bool: which world points lie in the body that an image shows, ``depth`` mm or more below its surface."""
    gray = _grayAt(points, volumeNode)
    inside = np.isfinite(gray)
    if not inside.any():
        return inside
    # Halfway between air and the middle of the tissue: bodies are brighter than what surrounds them.
    darkest, median = float(gray[inside].min()), float(np.median(gray[inside]))
    brightest = float(np.percentile(gray[inside], 90))
    limit = (darkest + max(median, (darkest + brightest) / 2)) / 2
    inside &= gray > limit
    if depth:
        for step in np.concatenate([np.eye(3), -np.eye(3)]) * depth:
            inside[inside] = _grayAt(points[inside] + step, volumeNode) > limit
    return inside


def _grayAt(points, volumeNode):
    """(N,) values of a volume at world points, -inf outside."""
    inverse = np.linalg.inv(nodes.parentToWorld(volumeNode) @ nodes.ijkToRas(volumeNode))
    voxels = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    array = slicer.util.arrayFromVolume(volumeNode)
    within = np.all((voxels >= 0) & (voxels < np.array(array.shape[::-1])), axis=1)
    gray = np.full(len(points), -np.inf)
    gray[within] = array[tuple(voxels[within][:, ::-1].T)]
    return gray


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


def errorTitle():
    """What the legend of the expected error says."""
    return _("Expected error, mm")


def volumeChangeColors(save=True):
    """Color table for changes of 0 to 2: magenta folds, blue shrinks, light gray keeps, red grows.

    Slice views ignore a table's opacities, so "keeps" has a color of its own.

    Args:
        save: one for the whole scene, saved with it; else a new one that the caller removes.
    """
    name = _("Volume change")
    if save:
        for table in slicer.util.getNodesByClass("vtkMRMLColorTableNode"):
            if table.GetName() == name and table.GetSaveWithScene():
                return table
    table = addHidden("vtkMRMLColorTableNode", name, save=save)
    table.SetTypeToUser()
    table.SetNumberOfColors(256)
    neutral = np.full(3, 0.85)
    for entry in range(256):
        deviation = (entry - 127.5) / 127.5
        extreme = np.array((0.1, 0.3, 1.0) if deviation < 0 else (1.0, 0.2, 0.1))
        color = neutral + (extreme - neutral) * abs(deviation)
        table.SetColor(entry, f"{entry / 127.5:.2f}", *[float(value) for value in color], 1.0)
    folded = np.array(engineModule("samconvex.report.colors").FOLDED) / 255
    table.SetColor(0, "fold", *[float(value) for value in folded], 1.0)
    return table


def showVolumeChange(volumeNode, colors):
    """Give a map of volume changes its colors and its legend."""
    display = volumeNode.GetDisplayNode()
    display.SetAndObserveColorNodeID(colors.GetID())
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, VOLUME_CHANGE_TOP)
    showLegend(volumeNode, _("Volume change\n1 the same\nblue shrunk\nred grown"))


def showLegend(volumeNode, title):
    """The colors' meaning beside every slice that shows the volume; returns the display node."""
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(volumeNode)
    if legend is None:
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(volumeNode)
    legend.SetTitleText(title)
    legend.SetLabelFormat("%.1f")
    legend.SetNumberOfLabels(5)
    for properties in (legend.GetTitleTextProperty(), legend.GetLabelTextProperty()):
        properties.SetFontSize(LEGEND_FONT_SIZE)
    legend.SetVisibility(True)
    return legend
