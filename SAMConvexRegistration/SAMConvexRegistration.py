"""Slicer module: deformable registration of CT and MR images with self-supervised anatomical embeddings."""

import numpy as np
import slicer
import vtk
from SAMConvexLib import dependencies, nodes, sampledata
from SAMConvexLib.choices import Device
from SAMConvexLib.polling import pollWithTimer
from SAMConvexLib.startup import whenStarted
from SAMConvexLib.viewstate import restoreSavedLayers
from SAMConvexRegistrationLib.logic import SAMConvexRegistrationLogic
from SAMConvexRegistrationLib.parameters import SAMConvexRegistrationParameterNode
from SAMConvexRegistrationLib.settings import Affine, RegistrationSettings
from SAMConvexRegistrationLib.widget import SAMConvexRegistrationWidget
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

# Slicer and scripts look these up in the module's file.
__all__ = [
    "SAMConvexRegistration",
    "SAMConvexRegistrationLogic",
    "SAMConvexRegistrationParameterNode",
    "SAMConvexRegistrationTest",
    "SAMConvexRegistrationWidget",
]

# The logic knows no Qt; in the application a timer advances its jobs.
SAMConvexRegistrationLogic.poller = staticmethod(pollWithTimer)


class SAMConvexRegistration(ScriptedLoadableModule):
    """Name, category and help of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("SAMConvex Registration")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        parent.dependencies = ["Segmentations", "Transforms", "Volumes", "Markups"]
        parent.associatedNodeTypes = ["vtkMRMLTransformNode", "vtkMRMLScriptedModuleNode"]
        parent.contributors = ["SAMConvex contributors"]
        parent.helpText = _(
            "Deforms a moving CT or MR image onto a fixed one with self-supervised anatomical embeddings and coupled "
            "convex optimization, and carries segmentations and landmarks along. "
            'See the <a href="{url}">tutorial</a>.'
        ).format(url="https://github.com/samconvex/SlicerSAMConvex/blob/main/docs/tutorial.md")
        parent.acknowledgementText = _(
            "Follows SAM (Yan et al., 2022), SAME (Liu et al., 2021), SAMConvex (Li et al., 2023) and ConvexAdam "
            "(Siebert et al., 2021)."
        )
        whenStarted(observeImport, sampledata.register)


def observeImport():
    """Put right, in every loaded scene, what its file cannot hold: interpolation, layers shown before a preview."""

    def onEndImport(scene, event):
        nodes.restoreInterpolation(scene)
        restoreSavedLayers(scene)

    slicer.mrmlScene.AddObserver(slicer.vtkMRMLScene.EndImportEvent, onEndImport)


class SAMConvexRegistrationTest(ScriptedLoadableModuleTest):
    """Self test on a small synthetic pair; needs no network. What needs the engine is skipped where torch is absent."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        for name in sorted(name for name in dir(self) if name.startswith("test_")):
            self.setUp()
            getattr(self, name)()
        slicer.mrmlScene.Clear(0)

    def test_geometry_round_trip(self):
        self.delayDisplay("Geometry of an oblique volume")
        volume = self.makeVolume("Volume", (0.0, 0.0, 0.0))
        exported = nodes.imageFromVolume(volume)
        difference = nodes.imageToRas(exported.image) - nodes.ijkToRas(volume)
        self.assertLess(np.abs(difference).max(), 1e-9)

    def test_transform_direction(self):
        self.delayDisplay("Direction of a displacement grid")
        transformNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
        vectors = np.zeros((9, 9, 9, 3), np.float32)
        vectors[..., 0] = 10.0
        lattice = np.diag([20.0, 20.0, 20.0, 1.0])
        lattice[:3, 3] = -80.0
        nodes.fillGridTransform(transformNode, vectors, lattice)
        markups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
        markups.AddControlPoint(vtk.vtkVector3d(0.0, 0.0, 0.0))
        markups.SetAndObserveTransformNodeID(transformNode.GetID())
        _labels, points = nodes.worldPoints(markups)
        # The fixed point at -10 looks up the moving point at 0.
        self.assertLess(np.abs(points[0] - [-10.0, 0.0, 0.0]).max(), 0.01)

    def test_registration_recovers_a_shift(self):
        reason = dependencies.missingReason()
        if reason:
            self.delayDisplay("Skipped: " + reason)
            return
        self.delayDisplay("Registration of a synthetic pair")
        shift = np.array([6.0, -4.0, 8.0])
        fixed, moving = self.makeVolume("Fixed", (0.0, 0.0, 0.0)), self.makeVolume("Moving", shift)
        logic = SAMConvexRegistrationLogic()
        settings = RegistrationSettings(preset="fast-preview", device=Device.CPU, affine=Affine.NONE)
        result = logic.registerVolumes(fixed, moving, settings=settings)
        center = np.array([[0.0, 0.0, 0.0]])
        moved = nodes.transformPoints(result.transformNode.GetTransformFromParent(), center)
        self.assertLess(np.abs(moved[0] - shift).max(), 4.0)

    def makeVolume(self, name, center):
        """A body of 12 cm with two organs around ``center`` (RAS mm) on an oblique grid of 4 mm."""
        size, spacing = 48, 4.0
        matrix = np.eye(4)
        angle = np.radians(10)
        matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix[:3, :3] *= spacing
        matrix[:3, 3] = -matrix[:3, :3] @ np.full(3, (size - 1) / 2)
        index = np.moveaxis(np.indices((size, size, size))[::-1], 0, -1)
        offset = index @ matrix[:3, :3].T + matrix[:3, 3] - np.asarray(center)
        array = np.full((size, size, size), -1000, np.int16)
        for middle, radii, value in (
            ((0, 0, 0), (62, 50, 70), 40),
            ((-25, 5, 10), (22, 18, 25), 150),
            ((22, -8, -15), (15, 20, 22), -700),
            ((0, -30, 0), (10, 9, 60), 500),
        ):
            array[(((offset - middle) / radii) ** 2).sum(-1) < 1] = value
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        nodes.fillVolume(volume, array, matrix)
        return volume
