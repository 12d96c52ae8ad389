"""The overlay of how much every place of an image looks like the one under the mouse: colors and legend. No Qt."""

import numpy as np
import slicer
from SAMConvexLib import nodes, segments
from SAMConvexLib.scene import addHidden
from slicer.i18n import tr as _

# Places are shown whose similarity is at least this share of the best one's.
SHARE = 0.7
# As many places as fill this volume (mm3) are shown even where fewer are as similar: a ball of 4 cm can be seen.
LEAST_VOLUME = 33500.0
OPACITY = 0.6
COLORS = 256
# Similarity from the least shown (0) to the best (1), and its color: cold to hot.
STOPS = ((0.0, (0.1, 0.2, 0.8)), (0.35, (0.0, 0.8, 0.9)), (0.65, (1.0, 0.9, 0.1)), (1.0, (0.9, 0.05, 0.0)))


def color(volume, scores):
    """Color a similarity volume: blue where little, red where most similar, nothing elsewhere.

    Args:
        volume: scalar volume node that holds ``scores``.
        scores: uint8 array, 100 times the cosine of the embeddings; 0 outside the body.
    """
    if volume.GetDisplayNode() is None:
        volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    display.SetSaveWithScene(False)
    if display.GetNodeReference("SAMLandmark.Colors") is None:
        table = _table()
        display.SetNodeReferenceID("SAMLandmark.Colors", table.GetID())
        display.SetAndObserveColorNodeID(table.GetID())
    least, best = shownRange(scores, abs(np.linalg.det(nodes.ijkToRas(volume)[:3, :3])))
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(least, best)
    display.SetThreshold(least, best)
    display.SetApplyThreshold(True)


def shownRange(scores, voxelVolume):
    """(least, best) similarity that is shown, of uint8 scores on voxels of ``voxelVolume`` mm3."""
    best = max(int(scores.max()), 1)
    count = min(int(np.ceil(LEAST_VOLUME / voxelVolume)), scores.size)
    enough = int(np.partition(scores, scores.size - count, axis=None)[scores.size - count])
    # Not down to 0, which is air, and wide enough for the colors to differ.
    return max(min(round(SHARE * best), enough, best - 1), 1 if best > 1 else 0), best


def showLegend(volume, visible):
    """Show or hide the legend of a similarity volume, in the views that show it."""
    display = volume.GetDisplayNode()
    if display is None:
        return
    logic = slicer.modules.colors.logic()
    legend = logic.GetColorLegendDisplayNode(display)
    if legend is None and visible:
        legend = logic.AddDefaultColorLegendDisplayNode(display)
        legend.SetSaveWithScene(False)
        legend.SetTitleText(_("Similarity (%)"))
        legend.SetLabelFormat("%.0f")
        legend.SetNumberOfLabels(3)
        legend.SetSize(0.07, 0.4)
    if legend is not None:
        legend.SetVisibility(bool(visible))


def remove(volume):
    """Remove a similarity volume with its colors and legend."""
    display = volume.GetDisplayNode()
    table = display.GetNodeReference("SAMLandmark.Colors") if display is not None else None
    legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(display) if display is not None else None
    segments.removeWithDisplay(volume)
    for node in (legend, table):
        if node is not None and slicer.mrmlScene.IsNodePresent(node):
            slicer.mrmlScene.RemoveNode(node)


def _table():
    """A color table from cold to hot; those that Slicer brings run the other way or are not in every build."""
    table = addHidden("vtkMRMLColorTableNode", _("Similarity"))
    table.SetTypeToUser()
    table.SetNumberOfColors(COLORS)
    places, colors = zip(*STOPS, strict=True)
    for index in range(COLORS):
        share = index / (COLORS - 1)
        rgb = [float(np.interp(share, places, channel)) for channel in zip(*colors, strict=True)]
        table.SetColor(index, str(index), *rgb, 1.0)
    return table
