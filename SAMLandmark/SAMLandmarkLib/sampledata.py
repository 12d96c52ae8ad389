"""Sample data: a chest CT with landmarks, and a breathing-like deformed copy to find them in, with the true places."""

import numpy as np
import slicer
import vtk
from SAMConvexLib import nodes
from SAMConvexLib import sampledata as registrationSample
from slicer.i18n import tr as _

SAMPLE_NAME = "SAMConvexChestLandmarks"
# Where the landmarks lie, as shares of the volume's extent along its axes.
PLACES = ((0.5, 0.55, 0.5), (0.35, 0.5, 0.6), (0.65, 0.5, 0.6), (0.5, 0.7, 0.4), (0.4, 0.6, 0.3), (0.6, 0.6, 0.3))


def register():
    """Add the sample to the Sample Data module; downloads nothing by itself."""
    registrationSample.registerSample(SAMPLE_NAME, loadChestLandmarks)


def loadChestLandmarks():
    """Slicer's CTChest sample, its deformed copy and landmarks; returns [template, query, template points]."""
    pair = registrationSample.loadChestPair()
    return [*pair, addLandmarks(pair[0])] if pair else []


def addLandmarks(volume):
    """A point list spread over the middle of a volume."""
    markups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", _("Chest landmarks"))
    size = np.array(volume.GetImageData().GetDimensions()) - 1
    matrix = nodes.parentToWorld(volume) @ nodes.ijkToRas(volume)
    for number, share in enumerate(PLACES):
        position = matrix @ [*(size * share), 1.0]
        markups.AddControlPointWorld(vtk.vtkVector3d(*position[:3]))
        markups.SetNthControlPointLabel(number, _("Landmark {number}").format(number=number + 1))
    return markups
