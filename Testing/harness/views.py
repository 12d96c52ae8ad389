"""Slice and 3D views: Slicer's own logics and displayable managers, rendered off screen and painted by Qt."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from vtk.util.numpy_support import vtk_to_numpy

SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLTransformsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)
# Without the slice edge manager: slicer-core cannot make one.
THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLThreeDReformatDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager3D",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLTransformsDisplayableManager3D",
    "vtkMRMLLinearTransformsDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLColorLegendDisplayableManager",
)


def register_displayable_managers() -> None:
    for factory_class, names in (
        (slicer.vtkMRMLSliceViewDisplayableManagerFactory, SLICE_MANAGERS),
        (slicer.vtkMRMLThreeDViewDisplayableManagerFactory, THREE_D_MANAGERS),
    ):
        factory = factory_class.GetInstance()
        for name in names:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)


class RenderedView(QtWidgets.QWidget):
    """An off-screen render window that is painted as a picture; mouse and keys go to its VTK interactor."""

    rendered = QtCore.Signal()

    def __init__(self, factory, parent=None):
        super().__init__(parent)
        self.setMouseTracking(True)
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.ClickFocus)
        self.setMinimumSize(60, 60)
        self._renderer = vtk.vtkRenderer()
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._interactor.Initialize()
        # Slicer's styles are observers of their own; VTK's default style would act beside them.
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self._group = None
        self._factory = factory
        self._picture = None
        self._stale = True
        self._scale = 1.0

    def _start(self, node):
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.Initialize(self._factory, self._renderer)
        self._group.SetMRMLDisplayableNode(node)
        self._group.AddObserver(vtk.vtkCommand.UpdateEvent, lambda *a: self.scheduleRender())
        self._style.SetDisplayableManagers(self._group)

    # What modules call

    def renderWindow(self):
        return self._window

    def interactor(self):
        return self._interactor

    def interactorStyle(self):
        return self._style

    def renderer(self):
        return self._renderer

    def displayableManagerByClassName(self, name):
        return self._group.GetDisplayableManagerByClassName(name)

    def scheduleRender(self):
        self._stale = True
        self.update()

    def forceRender(self):
        self._stale = True
        self.pixels()
        self.update()

    def pixels(self) -> np.ndarray:
        """The view as it is now: (height, width, 3) uint8, first row on top."""
        ratio = self.devicePixelRatioF()
        width = max(2, int(self.size.width() * ratio))
        height = max(2, int(self.size.height() * ratio))
        if tuple(self._window.GetSize()) != (width, height):
            self._resizeTo(width, height)
            self._stale = True
        if self._stale or self._picture is None:
            # Cleared first: what the rendering itself changes must be painted again.
            self._stale = False
            self._window.Render()
            data = vtk.vtkUnsignedCharArray()
            self._window.GetPixelData(0, 0, width - 1, height - 1, 0, data, 0)
            self._picture = np.ascontiguousarray(vtk_to_numpy(data).reshape(height, width, 3)[::-1])
            self.rendered.emit()
        return self._picture

    def _resizeTo(self, width, height):
        self._window.SetSize(width, height)
        self._interactor.SetSize(width, height)
        self._interactor.ConfigureEvent()

    # Qt events

    def resizeEvent(self, event):
        self.scheduleRender()
        super().resizeEvent(event)

    def paintEvent(self, event):
        picture = self.pixels()
        height, width, _ = picture.shape
        image = QtGui.QImage(picture.data, width, height, 3 * width, QtGui.QImage.Format.Format_RGB888)
        painter = QtGui.QPainter(self)
        painter.drawImage(QtCore.QRect(QtCore.QPoint(0, 0), self.size), image)
        self._paintOver(painter)
        painter.end()

    def _paintOver(self, painter):
        pass

    def _forward(self, event, vtk_event, key=None):
        ratio = self.devicePixelRatioF()
        position = (
            event.position() if hasattr(event, "position") else QtCore.QPointF(self.mapFromGlobal(QtGui.QCursor.pos()))
        )
        modifiers = event.modifiers()
        shift = int(bool(modifiers & QtCore.Qt.KeyboardModifier.ShiftModifier))
        control = int(bool(modifiers & QtCore.Qt.KeyboardModifier.ControlModifier))
        # VTK counts rows from the bottom.
        y = int((self.size.height() - 1 - position.y()) * ratio)
        self._interactor.SetEventInformation(int(position.x() * ratio), y, control, shift, "\0", 0, key)
        self._interactor.SetAltKey(int(bool(modifiers & QtCore.Qt.KeyboardModifier.AltModifier)))
        self._interactor.InvokeEvent(vtk_event)

    _BUTTONS = {
        QtCore.Qt.MouseButton.LeftButton: "LeftButton",
        QtCore.Qt.MouseButton.MiddleButton: "MiddleButton",
        QtCore.Qt.MouseButton.RightButton: "RightButton",
    }

    def mousePressEvent(self, event):
        self._forward(event, self._BUTTONS.get(event.button(), "LeftButton") + "PressEvent")

    def mouseReleaseEvent(self, event):
        self._forward(event, self._BUTTONS.get(event.button(), "LeftButton") + "ReleaseEvent")

    def mouseDoubleClickEvent(self, event):
        self._forward(event, self._BUTTONS.get(event.button(), "LeftButton") + "DoubleClickEvent")

    def mouseMoveEvent(self, event):
        self._forward(event, "MouseMoveEvent")

    def wheelEvent(self, event):
        self._forward(event, "MouseWheelForwardEvent" if event.angleDelta().y() > 0 else "MouseWheelBackwardEvent")

    def leaveEvent(self, event):
        self._interactor.InvokeEvent("LeaveEvent")

    def enterEvent(self, event):
        self._interactor.InvokeEvent("EnterEvent")

    def keyPressEvent(self, event):
        if event.text():
            self._forward(event, "KeyPressEvent", event.text())


class SliceView(RenderedView):
    """qMRMLSliceView: the blended layers below, what the displayable managers draw above."""

    def __init__(self, name, parent=None):
        super().__init__(slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance(), parent)
        logic_of_application = slicer.app.applicationLogic()
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(logic_of_application)
        logic_of_application.GetSliceLogics().AddItem(self._logic)
        self._logic.SetMRMLScene(slicer.mrmlScene)
        self._node = self._logic.AddSliceNode(name)
        self._renderer.SetBackground(0, 0, 0)
        camera = self._renderer.GetActiveCamera()
        camera.ParallelProjectionOn()

        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._actor = vtk.vtkActor2D()
        self._actor.SetMapper(self._mapper)
        # Before the displayable managers: two-dimensional actors are drawn in the order they are added.
        self._renderer.AddViewProp(self._actor)
        self._style = slicer.vtkMRMLSliceViewInteractorStyle()
        self._style.SetInteractor(self._interactor)
        self._style.SetSliceLogic(self._logic)
        self._start(self._node)
        self._logic.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *a: self._connectImage())
        self._node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *a: self.scheduleRender())
        self._logic.GetSliceCompositeNode().AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *a: self.scheduleRender())
        self._connectImage()

    def sliceLogic(self):
        return self._logic

    def mrmlSliceNode(self):
        return self._node

    def mrmlSliceCompositeNode(self):
        return self._logic.GetSliceCompositeNode()

    def convertDeviceToXYZ(self, xy):
        return [xy[0], self.size.height() - 1 - xy[1], 0]

    def convertRASToXYZ(self, ras):
        matrix = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self._node.GetXYToRAS(), matrix)
        return list(matrix.MultiplyPoint((*ras, 1.0))[:3])

    def convertXYZToRAS(self, xyz):
        return list(self._node.GetXYToRAS().MultiplyPoint((*xyz, 1.0))[:3])

    def _connectImage(self):
        connection = self._logic.GetImageDataConnection()
        self._mapper.SetInputConnection(connection)
        self._actor.SetVisibility(connection is not None)
        self.scheduleRender()

    def _resizeTo(self, width, height):
        super()._resizeTo(width, height)
        self._logic.ResizeSliceNode(width, height)

    def _paintOver(self, painter):
        lines = self.annotation_lines()
        if not lines:
            return
        font = QtGui.QFont(self.property("font"))
        font.setPointSizeF(font.pointSizeF() * 0.92)
        painter.setFont(font)
        step = QtGui.QFontMetrics(font).height()
        y = self.size.height() - 6 - step * (len(lines) - 1)
        for line in lines:
            # A dark edge keeps the text readable on bright bone.
            painter.setPen(QtGui.QColor(0, 0, 0, 200))
            painter.drawText(7, y + 1, line)
            painter.setPen(QtGui.QColor(255, 235, 120))
            painter.drawText(6, y, line)
            y += step

    def annotation_lines(self):
        """Which volumes the layers show, as Slicer's corner annotation lists them."""
        composite = self._logic.GetSliceCompositeNode()
        lines = []
        for letter, identifier, opacity in (
            ("F", composite.GetForegroundVolumeID(), composite.GetForegroundOpacity()),
            ("B", composite.GetBackgroundVolumeID(), 1.0 - composite.GetForegroundOpacity()),
        ):
            node = slicer.mrmlScene.GetNodeByID(identifier) if identifier else None
            if node is not None:
                share = f" ({round(100 * opacity)}%)" if composite.GetForegroundVolumeID() else ""
                lines.append(f"{letter}: {node.GetName()}{share}")
        return lines


class ThreeDView(RenderedView):
    """qMRMLThreeDView"""

    def __init__(self, node, parent=None):
        super().__init__(slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance(), parent)
        self._node = node
        self._style = slicer.vtkMRMLThreeDViewInteractorStyle()
        self._style.SetInteractor(self._interactor)
        self._renderer.GradientBackgroundOn()
        self._renderer.SetUseFXAA(True)
        self._start(node)
        self._node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *a: self.scheduleRender())

    def mrmlViewNode(self):
        return self._node

    def cameraNode(self):
        return self.displayableManagerByClassName("vtkMRMLCameraDisplayableManager").GetCameraNode()

    def resetFocalPoint(self):
        """The box encloses what is visible, and the camera turns around its center."""
        self._node.InvokeEvent(slicer.vtkMRMLViewNode.ResetFocalPointRequestedEvent)
        self.scheduleRender()

    def resetCamera(self, *args):
        """Everything visible fills the view, seen from where the camera is."""
        self._renderer.ResetCameraScreenSpace()
        self._renderer.ResetCameraClippingRange()
        self.scheduleRender()

    def lookFromAxis(self, axis, *args):
        self.rotateToViewAxis(axis)

    def rotateToViewAxis(self, axis):
        """0 R, 1 L, 2 P, 3 A, 4 I, 5 S, as in ctkAxesWidget: the viewer stands there."""
        directions = {0: (1, 0, 0), 1: (-1, 0, 0), 2: (0, -1, 0), 3: (0, 1, 0), 4: (0, 0, -1), 5: (0, 0, 1)}
        camera = self.cameraNode().GetCamera()
        focal = np.array(camera.GetFocalPoint())
        distance = camera.GetDistance()
        camera.SetPosition(*(focal + distance * np.array(directions[axis])))
        camera.SetViewUp(*((0, 1, 0) if axis in (4, 5) else (0, 0, 1)))
        self._renderer.ResetCameraClippingRange()
        self.scheduleRender()
