"""Looking at a registration without hardening: stand-ins of the moving nodes hang under a copy of the transform.

The user's nodes keep their parents, layers and windows; ``revert()`` puts every slice view back as it was.
"""

from enum import Enum

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from SAMConvexLib import nodes, segments
from SAMConvexLib.scene import addHidden, copyDisplay
from SAMConvexLib.viewstate import ViewState
from slicer.i18n import tr as _

from .comparison import (
    checkerboard,
    coarseImage,
    leastCertainPlaces,
    showVolumeChange,
    volumeChange,
    volumeChangeColors,
    windowed,
    worstPlaces,
)


class PreviewMode(Enum):
    BLEND = "blend"
    FLICKER = "flicker"
    CHECKERBOARD = "checkerboard"
    DIFFERENCE = "difference"
    JACOBIAN = "jacobian"
    ERROR = "error"

    def label(self):
        return {
            PreviewMode.BLEND: _("Blend"),
            PreviewMode.FLICKER: _("Flicker"),
            PreviewMode.CHECKERBOARD: _("Checkerboard"),
            PreviewMode.DIFFERENCE: _("Difference"),
            PreviewMode.JACOBIAN: _("Volume change"),
            PreviewMode.ERROR: _("Expected error"),
        }[self]


class RegistrationPreview:
    """Shows fixed and registered moving data in the slice views.

    Args:
        transformNode: result of a registration (grid from parent, fixed world to moving world).
        movingSegmentation: its outlines are drawn on the fixed image.
        errorVolume: expected error of the registration in mm.
        hidden: nodes that are not seen meanwhile, such as segmentations of the state before the registration.
    Raises:
        nodes.NodeError: the transform is no displacement grid, or a volume sits under a non-linear transform.
    """

    def __init__(self, fixedVolume, movingVolume, transformNode, movingSegmentation=None, errorVolume=None, hidden=()):
        content = nodes.gridOfTransform(transformNode)
        if content is None:
            raise nodes.NodeError(
                _("'{name}' is no displacement grid; choose the result of a registration.").format(
                    name=transformNode.GetName()
                )
            )
        nodes.checkVolume(fixedVolume)
        nodes.checkVolume(movingVolume)
        self._vectors, self._lattice = content
        # What the scanners' positions make of the map is no deformation: the slider and the grid are without it.
        self._alignment = nodes.alignmentOf(transformNode)
        self._deformation = nodes.withoutAlignment(*content, self._alignment)
        self._fixed, self._moving, self._error = fixedVolume, movingVolume, errorVolume
        self._fixedToWorld, self._movingToWorld = nodes.parentToWorld(fixedVolume), nodes.parentToWorld(movingVolume)
        self._views = ViewState()
        self._views.hide(hidden)
        self._temporary = []
        self._composed = None
        self._composedKey = None
        self._jacobian = None
        self._worst = None
        self._outlines = None
        self._marker = None
        self._mode = None
        self._percent = 100.0
        self._blend = 0.5
        self._flickerShowsMoving = False
        self.transformNode = self._add("vtkMRMLTransformNode", _("Preview transform"))
        nodes.fillGridTransform(self.transformNode, self._deformation, self._lattice)
        self.movingStandIn = self._standIn(movingVolume)
        if movingSegmentation is not None:
            self._outlines = self._outlineStandIn(movingSegmentation)

    # --- what a user chooses ----------------------------------------------------------------------------------------

    @property
    def mode(self):
        return self._mode

    def show(self, mode):
        """Bring one way of comparing into all slice views."""
        self._mode = mode
        if mode in (PreviewMode.BLEND, PreviewMode.FLICKER):
            self._setLayers(self._fixed, self.movingStandIn, self._blend)
            if mode is PreviewMode.FLICKER:
                self._flickerShowsMoving = False
                self.flick()
        elif mode is PreviewMode.JACOBIAN:
            self._setLayers(self._fixed, self._jacobianVolume(), 0.6)
        elif mode is PreviewMode.ERROR:
            self._setLayers(self._fixed, self._error, 0.5)
        else:
            self._compose()
            self._setLayers(self._composed, None, 0.0)

    def setDeformation(self, percent):
        """0 shows the moving data aligned alone, 100 registered, 50 with half of the deformation."""
        self._percent = float(percent)
        self._grid().SetDisplacementScale(self._percent / 100.0)
        self.transformNode.Modified()
        if self._mode in (PreviewMode.CHECKERBOARD, PreviewMode.DIFFERENCE):
            self._compose()

    def setBlend(self, fraction):
        """0 shows the fixed, 1 the moving image."""
        self._blend = float(fraction)
        if self._mode is PreviewMode.BLEND:
            self._setOpacity(self._blend)

    def flick(self):
        """Swap fixed and moving once (call it from a timer)."""
        if self._mode is PreviewMode.FLICKER:
            self._flickerShowsMoving = not self._flickerShowsMoving
            self._setOpacity(1.0 if self._flickerShowsMoving else 0.0)

    def setOutlinesVisible(self, visible):
        if self._outlines is not None:
            self._outlines.GetDisplayNode().SetVisibility(bool(visible))

    def setGridVisible(self, visible):
        """Deformation grid in the slice views."""
        display = self.transformNode.GetDisplayNode()
        if display is None:
            if not visible:
                return
            self.transformNode.CreateDefaultDisplayNodes()
            display = self.transformNode.GetDisplayNode()
            display.SetSaveWithScene(False)
            # Views add this color node as soon as they see the display; otherwise the first drawing would, for good.
            if display.GetColorNode() is None:
                display.SetDefaultColors()
            colors = display.GetColorNode()
            colors.SetSaveWithScene(False)
            # Removed last to first: without its colors the display would make new ones.
            self._temporary += [colors, display]
            display.SetVisualizationMode(slicer.vtkMRMLTransformDisplayNode.VIS_MODE_GRID)
            display.SetGridSpacingMm(15.0)
            display.SetGridLineDiameterMm(0.8)
        display.SetVisibility(bool(visible))
        display.SetVisibility2D(bool(visible))

    def worstPlaces(self, count=5):
        """[(RAS mm, Jacobian determinant)] where volume changes most inside the body, folds first, 25 mm apart."""
        if self._worst is None:
            self._worst = worstPlaces(self._vectors, self._lattice, self._fixed)
        return self._worst[:count]

    def leastCertainPlaces(self, count=5):
        """[(RAS mm, mm)] of the largest expected errors inside the body, 25 mm apart; none without that volume."""
        return [] if self._error is None else leastCertainPlaces(self._error, self._fixed, count)

    def jumpTo(self, position):
        """Move all slice views to a world point."""
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *[float(value) for value in position])

    def mark(self, position, text):
        """Put the one marker of this preview, with a text beside it, at a world point."""
        if self._marker is None:
            self._marker = self._add("vtkMRMLMarkupsFiducialNode", _("Place (preview)"))
            self._marker.CreateDefaultDisplayNodes()
            self._marker.GetDisplayNode().SetSaveWithScene(False)
            self._marker.AddControlPointWorld(vtk.vtkVector3d(*[float(value) for value in position]))
            self._marker.SetLocked(True)
        self._marker.SetNthControlPointPositionWorld(0, *[float(value) for value in position])
        self._marker.SetNthControlPointLabel(0, text)

    def bringIntoView(self):
        """Move the slice views to the middle of the fixed image where one of them shows nothing of it."""
        bounds = np.zeros(6)
        self._fixed.GetRASBounds(bounds)
        lower, upper = bounds.reshape(3, 2).T
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            plane = nodes.matrixFromVtk(node.GetSliceToRAS())
            corners = np.array([[(lower, upper)[(c >> a) & 1][a] for a in range(3)] for c in range(8)])
            distances = (corners - plane[:3, 3]) @ plane[:3, 2]
            if distances.min() > 0 or distances.max() < 0:
                self.jumpTo((lower + upper) / 2)
                return

    def isComplete(self):
        """False once a node that the preview needs has been removed."""
        scene = slicer.mrmlScene
        needed = [self._fixed, self._moving, *([] if self._error is None else [self._error]), *self._temporary]
        return all(scene.IsNodePresent(node) for node in needed)

    def revert(self):
        """Remove every stand-in and restore layers, opacities and positions of the views."""
        self._views.restore()
        scene = slicer.mrmlScene
        for node in reversed(self._temporary):
            if scene.IsNodePresent(node):
                segments.removeWithDisplay(node)
        self._temporary = []
        self._composed = self._jacobian = self._outlines = self._marker = self._mode = None

    # --- stand-ins --------------------------------------------------------------------------------------------------

    def _add(self, className, name):
        node = addHidden(className, name)
        self._temporary.append(node)
        return node

    def _grid(self):
        return self.transformNode.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)

    def _placement(self, parentToWorld):
        """Transform that a stand-in hangs under: the node's own linear parents, alignment, then the deformation."""
        matrix = np.linalg.inv(self._alignment) @ parentToWorld
        if np.allclose(matrix, np.eye(4)):
            return self.transformNode
        placement = self._add("vtkMRMLTransformNode", _("Preview placement"))
        placement.SetMatrixTransformToParent(nodes.vtkFromMatrix(matrix))
        placement.SetAndObserveTransformNodeID(self.transformNode.GetID())
        return placement

    def _standIn(self, volume):
        standIn = self._add("vtkMRMLScalarVolumeNode", _("{name} (preview)").format(name=volume.GetName()))
        # The voxels are shared, not copied.
        standIn.SetAndObserveImageData(volume.GetImageData())
        standIn.SetIJKToRASMatrix(nodes.vtkFromMatrix(nodes.ijkToRas(volume)))
        self._addDisplay(standIn, volume)
        standIn.SetAndObserveTransformNodeID(self._placement(self._movingToWorld).GetID())
        return standIn

    def _addDisplay(self, standIn, source=None):
        standIn.CreateDefaultDisplayNodes()
        display = standIn.GetDisplayNode()
        display.SetSaveWithScene(False)
        if source is not None:
            copyDisplay(source, standIn)
        return display

    def _outlineStandIn(self, segmentation):
        standIn = self._add("vtkMRMLSegmentationNode", _("{name} (preview)").format(name=segmentation.GetName()))
        segments.copySegments(segmentation, standIn)
        standIn.CreateDefaultDisplayNodes()
        display = standIn.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetVisibility2DFill(False)
        display.SetVisibility2DOutline(True)
        display.SetVisibility3D(False)
        display.SetSliceIntersectionThickness(2)
        placement = self._placement(nodes.parentToWorld(segmentation))
        standIn.SetAndObserveTransformNodeID(placement.GetID())
        return standIn

    # --- layers -----------------------------------------------------------------------------------------------------

    def _setLayers(self, background, foreground, opacity):
        self._views.keepInScene()
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            with slicer.util.NodeModify(composite):
                composite.SetCompositing(slicer.vtkMRMLSliceCompositeNode.Alpha)
                composite.SetBackgroundVolumeID(background.GetID())
                composite.SetForegroundVolumeID(foreground.GetID() if foreground else None)
                composite.SetForegroundOpacity(opacity)
        # Views look for a legend when its node is modified, not when their layers change.
        for legend in slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode"):
            legend.Modified()

    def _setOpacity(self, opacity):
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            composite.SetForegroundOpacity(opacity)

    def _jacobianVolume(self):
        if self._jacobian is None:
            self._jacobian = self._add("vtkMRMLScalarVolumeNode", _("Volume change (preview)"))
            determinant = nodes.jacobianDeterminant(self._vectors, self._lattice)
            nodes.fillVolume(self._jacobian, volumeChange(determinant), self._lattice)
            colors = volumeChangeColors(save=False)
            self._temporary.append(colors)
            showVolumeChange(self._jacobian, colors)
            for index in range(self._jacobian.GetNumberOfDisplayNodes()):
                self._jacobian.GetNthDisplayNode(index).SetSaveWithScene(False)
        return self._jacobian

    def _compose(self):
        """Checkerboard or difference of fixed and moving on a coarse version of the fixed grid."""
        key = (self._mode, self._percent)
        if self._composedKey == key:
            return
        if self._composed is None:
            self._composed = self._add("vtkMRMLScalarVolumeNode", _("Comparison (preview)"))
        fixed = coarseImage(self._fixed)
        warped, inside = self._warpedOnto(fixed.image)
        fixedArray = sitk.GetArrayFromImage(fixed.image).astype(np.float32)
        if self._mode is PreviewMode.CHECKERBOARD:
            values = checkerboard(
                windowed(fixedArray, self._fixed), windowed(warped, self._moving), fixed.image.GetSpacing()
            )
            window, level = 255.0, 127.5
        else:
            values = np.where(inside, fixedArray - warped, 0).astype(np.float32)
            spread = float(np.percentile(np.abs(values[:: max(1, values.shape[0] // 64)]), 98)) or 1.0
            window, level = 2 * spread, 0.0
        nodes.fillVolume(self._composed, values, nodes.imageToRas(fixed.image))
        if not np.allclose(fixed.worldFromFrame, np.eye(4)):
            self._composed.SetAndObserveTransformNodeID(self._fixed.GetTransformNodeID())
        display = self._composed.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(window, level)
        self._composedKey = key

    def _warpedOnto(self, reference):
        """(moving values float32, where they come from inside the moving image) on the reference grid."""
        moving = coarseImage(self._moving)
        field = sitk.GetImageFromArray(
            self._deformation.astype(np.float64) * np.array([-1.0, -1.0, 1.0]) * (self._percent / 100.0), isVector=True
        )
        nodes.setImageGeometry(field, self._lattice)
        chain = sitk.CompositeTransform(3)
        frame = nodes.exportFrame(self._fixed)[1]
        chain.AddTransform(nodes.affineToSitk(np.linalg.inv(moving.worldFromFrame)))
        chain.AddTransform(nodes.affineToSitk(self._alignment))
        chain.AddTransform(sitk.DisplacementFieldTransform(field))
        chain.AddTransform(nodes.affineToSitk(frame))
        outside = -1.0e6
        warped = sitk.Resample(
            sitk.Cast(moving.image, sitk.sitkFloat32), reference, chain, sitk.sitkLinear, outside, sitk.sitkFloat32
        )
        values = sitk.GetArrayFromImage(warped)
        inside = values > outside / 2
        lowest = float(values[inside].min()) if inside.any() else 0.0
        return np.where(inside, values, lowest), inside
