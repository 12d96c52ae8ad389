"""Stand-ins for Slicer's MRML widgets."""

from __future__ import annotations

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from .ctk import ctkSliderWidget
from .node_combo_box import qMRMLNodeComboBox


class qMRMLWidget(QtWidgets.QWidget):
    """Tells of its scene by a signal only: it reaches the widgets inside by the connections of the .ui file."""

    mrmlSceneChanged = QtCore.Signal(object)
    PQ_SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qMRMLSliderWidget(ctkSliderWidget):
    """A slider that knows units; here just a slider."""

    quantity = QtCore.Property(str, lambda self: "", lambda self, value: None)

    def setMRMLScene(self, scene):
        pass


class qMRMLSpinBox(QtWidgets.QDoubleSpinBox):
    """A spin box that knows units; here just a spin box."""

    quantity = QtCore.Property(str, lambda self: "", lambda self, value: None)

    def setMRMLScene(self, scene):
        pass


class qMRMLCheckableNodeComboBox(qMRMLNodeComboBox):
    """Several nodes with check marks."""

    checkedNodesChanged = QtCore.Signal()

    def __init__(self, parent=None):
        super().__init__(parent)
        self._checked = set()

    def checkedNodes(self):
        return [n for n in self.nodes() if n.GetID() in self._checked]

    def setCheckState(self, node, state):
        checked = state == QtCore.Qt.CheckState.Checked
        (self._checked.add if checked else self._checked.discard)(node.GetID())
        self.checkedNodesChanged.emit()

    def uncheckedNodes(self):
        return [n for n in self.nodes() if n.GetID() not in self._checked]

    def checkState(self, node):
        return QtCore.Qt.CheckState.Checked if node.GetID() in self._checked else QtCore.Qt.CheckState.Unchecked


class qMRMLUtils:
    """Pictures between Qt and VTK."""

    @staticmethod
    def qImageToVtkImageData(image, data):
        image = image.convertToFormat(QtGui.QImage.Format.Format_RGB888).flipped(QtCore.Qt.Orientation.Vertical)
        width, height = image.width(), image.height()
        rows = bytes(image.constBits())
        stride = image.bytesPerLine()
        packed = b"".join(rows[y * stride : y * stride + 3 * width] for y in range(height))
        data.SetDimensions(width, height, 1)
        array = vtk.vtkUnsignedCharArray()
        array.SetNumberOfComponents(3)
        array.SetArray(bytearray(packed), len(packed), 1)
        copy = vtk.vtkUnsignedCharArray()
        copy.DeepCopy(array)
        data.GetPointData().SetScalars(copy)
        return True


class qMRMLScreenShotDialog:
    """The names of the views a screenshot can be of."""

    ThreeD, Red, Yellow, Green, FullLayout = range(5)


CLASSES = (
    qMRMLCheckableNodeComboBox,
    qMRMLNodeComboBox,
    qMRMLSliderWidget,
    qMRMLSpinBox,
    qMRMLWidget,
)


def install_helpers():
    slicer.qMRMLUtils = qMRMLUtils
    slicer.qMRMLScreenShotDialog = qMRMLScreenShotDialog
