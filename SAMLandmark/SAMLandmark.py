"""Slicer module: one-shot landmarks, live matching and lesion tracking with self-supervised anatomical embeddings."""

import numpy as np
import slicer
import vtk
from SAMConvexLib import dependencies, nodes
from SAMConvexLib.choices import Device
from SAMConvexLib.startup import whenStarted
from SAMLandmarkLib import results, sampledata
from SAMLandmarkLib.logic import SAMLandmarkLogic
from SAMLandmarkLib.parameters import SAMLandmarkParameterNode
from SAMLandmarkLib.widget import SAMLandmarkWidget
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

# Slicer and scripts look these up in the module's file.
__all__ = [
    "SAMLandmark",
    "SAMLandmarkLogic",
    "SAMLandmarkParameterNode",
    "SAMLandmarkTest",
    "SAMLandmarkWidget",
]


class SAMLandmark(ScriptedLoadableModule):
    """Name, category and help of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("SAM Landmarks")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        parent.dependencies = ["SAMConvexRegistration", "Markups", "Segmentations", "Tables", "Plots"]
        parent.associatedNodeTypes = ["vtkMRMLScriptedModuleNode"]
        parent.contributors = ["SAMConvex contributors"]
        parent.helpText = _(
            "Finds landmarks that were placed once in any other CT, follows the mouse from one scan to another, and "
            "tracks lesions over time, with self-supervised anatomical embeddings (SAM; not Segment Anything). "
            'See the <a href="{url}">tutorial</a>.'
        ).format(url="https://github.com/samconvex/SlicerSAMConvex/blob/main/docs/tutorial-landmarks.md")
        parent.acknowledgementText = _(
            "Follows SAM (Yan et al., 2022), UAE (Bai et al., 2023) and RECIST 1.1 (Eisenhauer et al., 2009)."
        )
        whenStarted(sampledata.register)


class SAMLandmarkTest(ScriptedLoadableModuleTest):
    """Self test on a synthetic body; needs no network. What needs the engine is skipped where torch is absent."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        for name in sorted(name for name in dir(self) if name.startswith("test_")):
            self.setUp()
            getattr(self, name)()
        slicer.mrmlScene.Clear(0)

    def test_decisions_about_points(self):
        self.delayDisplay("Accepting, rejecting and correcting points")
        volume, template = self.makeBody("Query", 0.0), self.makePoints()
        markups = results.create(volume, template)
        entry = {"label": "a", "point": [-10.0, 5.0, 0.0], "score": 0.9, "cycle_mm": 1.0, "found": True}
        missed = {**entry, "label": "b", "score": 0.3, "found": False}
        frame = nodes.imageFromVolume(volume)
        results.fill(markups, [entry, missed], results.templatePoints(template), frame, volume, template)
        self.assertEqual([shown.state for shown in results.rows(markups)], [results.NEW, results.NOT_FOUND])
        results.decide(markups, 0, results.REJECTED)
        self.assertIsNone(results.positionOf(markups, 0))
        results.decide(markups, 0, "")
        self.assertLess(np.abs(results.positionOf(markups, 0) - [10.0, -5.0, 0.0]).max(), 1e-6)
        results.place(markups, 1, [1.0, 2.0, 3.0])
        self.assertEqual(results.rows(markups)[1].state, results.CORRECTED)

    def test_landmarks_are_found(self):
        reason = dependencies.missingReason()
        if reason:
            self.delayDisplay("Skipped: " + reason)
            return
        self.delayDisplay("Finding points in a shifted body")
        template, query, points = self.makeBody("Template", 0.0), self.makeBody("Query", 12.0), self.makePoints()
        found = SAMLandmarkLogic().matchLandmarks(template, points, query, minimumScore=0.2, device=Device.CPU)
        truth = np.array([point.position for point in results.templatePoints(points)]) + [0.0, 0.0, 12.0]
        errors = [
            np.linalg.norm(results.positionOf(found, n) - truth[n])
            for n in range(len(truth))
            if results.positionOf(found, n) is not None
        ]
        self.assertGreaterEqual(len(errors), 2)
        self.assertLess(np.median(errors), 8.0)

    def makePoints(self):
        """Points at organ borders of the body."""
        markups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Points")
        for label, position in (("a", (-25, 20, 10)), ("b", (22, 5, -15)), ("c", (0, -30, 20))):
            markups.AddControlPointWorld(vtk.vtkVector3d(*position))
            markups.SetNthControlPointLabel(markups.GetNumberOfControlPoints() - 1, label)
        return markups

    def makeBody(self, name, shift):
        """A body of 14 cm with organs, ``shift`` mm higher, on a grid of 3 mm."""
        size, spacing = 64, 3.0
        matrix = np.diag([spacing, spacing, spacing, 1.0])
        matrix[:3, 3] = -spacing * (size - 1) / 2
        index = np.moveaxis(np.indices((size, size, size))[::-1], 0, -1)
        offset = index @ matrix[:3, :3].T + matrix[:3, 3] - [0.0, 0.0, shift]
        array = np.full((size, size, size), -1000, np.int16)
        for middle, radii, value in (
            ((0, 0, 0), (75, 60, 80), 40),
            ((-25, 5, 10), (22, 18, 25), 150),
            ((22, -8, -15), (15, 20, 22), -700),
            ((0, -30, 0), (10, 9, 70), 500),
            ((10, 25, 30), (14, 10, 12), 90),
        ):
            array[(((offset - middle) / radii) ** 2).sum(-1) < 1] = value
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        nodes.fillVolume(volume, array, matrix)
        return volume
