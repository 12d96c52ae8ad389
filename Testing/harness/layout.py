"""The arrangement of views: ``slicer.app.layoutManager()`` and the widgets it hands out."""

from __future__ import annotations

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from .plotview import PlotView
from .views import SliceView, ThreeDView, register_displayable_managers

SLICE_NAMES = ("Red", "Yellow", "Green")
ORIENTATIONS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}

# Layout number -> rows of view names; "1" is the 3D view, "P" the plot view. Others are shown as four-up.
ARRANGEMENTS = {
    slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView: (("Red", "1"), ("Green", "Yellow")),
    slicer.vtkMRMLLayoutNode.SlicerLayoutTwoOverTwoView: (("Red", "1"), ("Green", "Yellow")),
    slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView: (("1",), ("Red", "Yellow", "Green")),
    slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalWidescreenView: (("1", "Red"), ("Yellow", "Green")),
    slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreeView: (("Red", "Yellow", "Green"),),
    slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView: (("Red", "Yellow"),),
    slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalPlotView: (("1", "P"), ("Red", "Yellow", "Green")),
    slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView: (("Red", "P"), ("Green", "Yellow")),
    slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreePlotView: (("Red", "Yellow", "Green"), ("P",)),
    slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpPlotView: (("P",),),
    slicer.vtkMRMLLayoutNode.SlicerLayoutOneUp3DView: (("1",),),
    slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView: (("Red",),),
    slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpYellowSliceView: (("Yellow",),),
    slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpGreenSliceView: (("Green",),),
}


class _Bar(QtWidgets.QFrame):
    """The colored strip above a view."""

    def __init__(self, label, color, parent=None):
        super().__init__(parent)
        self.setFixedHeight(22)
        self.setAutoFillBackground(True)
        self.setColor(color)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(4, 0, 4, 0)
        row.setSpacing(4)
        self._name = QtWidgets.QLabel(label)
        font = QtGui.QFont(self.property("font"))
        font.setBold(True)
        self._name.setFont(font)
        self._name.setMinimumWidth(16)
        row.addWidget(self._name)

    def setColor(self, color):
        palette = QtGui.QPalette(self.property("palette"))
        for role in (QtGui.QPalette.ColorRole.Window, QtGui.QPalette.ColorRole.Button):
            palette.setColor(role, QtGui.QColor.fromRgbF(*color))
        for role in (QtGui.QPalette.ColorRole.WindowText, QtGui.QPalette.ColorRole.ButtonText):
            palette.setColor(role, QtGui.QColor(20, 20, 20))
        self.setPalette(palette)

    def _button(self, icon, tip, function):
        button = QtWidgets.QToolButton()
        button.setText(icon)
        button.setToolTip(tip)
        button.setAutoRaise(True)
        button.setFixedSize(20, 18)
        button.setFocusPolicy(QtCore.Qt.FocusPolicy.NoFocus)
        button.clicked.connect(lambda checked=False: function())
        self.layout().addWidget(button)
        return button


class SliceController(_Bar):
    """Name, offset slider and fit button of a slice view."""

    def __init__(self, view, parent=None):
        node = view.mrmlSliceNode()
        super().__init__(node.GetLayoutLabel() or node.GetName()[:1], node.GetLayoutColor(), parent)
        self._view = view
        self._button("⤢", "Fit the slice to its volume", self.fitSliceToBackground)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        self._slider.setFocusPolicy(QtCore.Qt.FocusPolicy.NoFocus)
        self._value = QtWidgets.QLabel()
        self._value.setMinimumWidth(84)
        self._value.setAlignment(QtCore.Qt.AlignmentFlag.AlignRight | QtCore.Qt.AlignmentFlag.AlignVCenter)
        self.layout().addWidget(self._slider, 1)
        self.layout().addWidget(self._value)
        self._showing = False
        self._slider.valueChanged.connect(self._moved)
        node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *a: self._show())
        view.sliceLogic().GetSliceCompositeNode().AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *a: self._show())
        self._show()

    def fitSliceToBackground(self):
        logic = self._view.sliceLogic()
        self._view.pixels()  # the slice node must know the size of its view
        logic.FitSliceToBackground()
        logic.SnapSliceOffsetToIJK()

    def setSliceOffsetValue(self, offset):
        self._view.sliceLogic().SetSliceOffset(offset)

    def sliceOffsetSlider(self):
        return self._slider

    def _bounds(self):
        logic = self._view.sliceLogic()
        bounds = [0.0] * 6
        logic.GetLowestVolumeSliceBounds(bounds)
        spacing = logic.GetLowestVolumeSliceSpacing()
        return bounds[4], bounds[5], max(spacing[2], 0.01)

    def _show(self):
        low, high, step = self._bounds()
        offset = self._view.sliceLogic().GetSliceOffset()
        self._showing = True
        try:
            self._slider.setRange(0, max(1, round((high - low) / step)))
            self._slider.setValue(round((offset - low) / step - 0.5))
        finally:
            self._showing = False
        # The letter tells on which side of the origin the slice lies, along the axis it is closest to.
        matrix = self._view.mrmlSliceNode().GetSliceToRAS()
        normal = [matrix.GetElement(axis, 2) for axis in range(3)]
        axis = max(range(3), key=lambda i: abs(normal[i]))
        letter = ("LR", "PA", "IS")[axis][int(normal[axis] * offset >= 0)]
        self._value.setText(f"{letter}: {abs(offset):.3f}mm")

    def _moved(self, position):
        if not self._showing:
            low, _, step = self._bounds()
            self._view.sliceLogic().SetSliceOffset(low + (position + 0.5) * step)


class SliceWidget(QtWidgets.QWidget):
    """qMRMLSliceWidget: a slice view below its controller."""

    def __init__(self, name, parent=None):
        super().__init__(parent)
        self.setObjectName("qMRMLSliceWidget" + name)
        self._view = SliceView(name)
        node = self._view.mrmlSliceNode()
        node.SetDefaultOrientation(ORIENTATIONS[name])
        node.SetOrientation(ORIENTATIONS[name])
        node.SetLayoutLabel(name[0])
        node.SetLayoutColor(getattr(slicer.vtkMRMLAbstractViewNode, f"Get{name}Color")())
        self._controller = SliceController(self._view)
        _stack(self, self._controller, self._view)

    def sliceView(self):
        return self._view

    def sliceController(self):
        return self._controller

    def sliceLogic(self):
        return self._view.sliceLogic()

    def mrmlSliceNode(self):
        return self._view.mrmlSliceNode()

    def mrmlSliceCompositeNode(self):
        return self._view.mrmlSliceCompositeNode()

    def interactorStyle(self):
        return self._view.interactorStyle()

    def fitSliceToBackground(self):
        self._controller.fitSliceToBackground()

    @property
    def sliceViewName(self):
        return self._view.mrmlSliceNode().GetLayoutName()

    @property
    def sliceOrientation(self):
        return self._view.mrmlSliceNode().GetOrientation()


class ThreeDWidget(QtWidgets.QWidget):
    """qMRMLThreeDWidget: a 3D view below its controller."""

    def __init__(self, node, parent=None):
        super().__init__(parent)
        self.setObjectName("ThreeDWidget" + node.GetLayoutLabel())
        self._view = ThreeDView(node)
        self._controller = _Bar(node.GetLayoutLabel(), node.GetThreeDViewBlueColor())
        self._controller._button("⤢", "Center the view on what it shows", self._view.resetCamera)
        self._controller.layout().addStretch(1)
        for letter, axis in zip("RLPAIS", range(6), strict=True):
            self._controller._button(letter, f"Look from {letter}", lambda a=axis: self._view.rotateToViewAxis(a))
        _stack(self, self._controller, self._view)

    def threeDView(self):
        return self._view

    def threeDController(self):
        return self._controller

    def mrmlViewNode(self):
        return self._view.mrmlViewNode()


class PlotWidget(QtWidgets.QWidget):
    """qMRMLPlotWidget: a plot view below its controller."""

    def __init__(self, node, parent=None):
        super().__init__(parent)
        self.setObjectName("qMRMLPlotWidget" + node.GetLayoutName())
        self._view = PlotView(node)
        self._controller = _Bar(node.GetLayoutLabel() or "P", node.GetLayoutColor())
        self._controller._button("⤢", "Fit the axes to the numbers", self._view.fitToContent)
        self._controller.layout().addStretch(1)
        _stack(self, self._controller, self._view)

    def plotView(self):
        return self._view

    def plotController(self):
        return self._controller

    def mrmlPlotViewNode(self):
        return self._view.mrmlPlotViewNode()


def _stack(widget, *parts):
    column = QtWidgets.QVBoxLayout(widget)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(0)
    for part in parts:
        column.addWidget(part, 1 if part is parts[-1] else 0)


class LayoutManager(QtCore.QObject):
    """The views and their arrangement; the scene's layout node says which."""

    layoutChanged = QtCore.Signal(int)

    def __init__(self):
        super().__init__()
        register_displayable_managers()
        scene = slicer.mrmlScene
        self._sliceWidgets = {name: SliceWidget(name) for name in SLICE_NAMES}
        self._layoutLogic = slicer.vtkMRMLLayoutLogic()
        self._layoutLogic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._layoutLogic.SetMRMLScene(scene)
        # Moves linked slice views together.
        self._linkLogic = slicer.vtkMRMLSliceLinkLogic()
        self._linkLogic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._linkLogic.SetMRMLScene(scene)
        # The logic makes a view's node when a layout first holds it.
        for name in ("SlicerLayoutOneUpPlotView", "SlicerLayoutFourUpView"):
            self._layoutLogic.GetLayoutNode().SetViewArrangement(getattr(slicer.vtkMRMLLayoutNode, name))
        view_node = scene.GetFirstNodeByClass("vtkMRMLViewNode")
        self._viewLogic = slicer.vtkMRMLViewLogic()
        self._viewLogic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._viewLogic.SetMRMLScene(scene)
        slicer.app.applicationLogic().GetViewLogics().AddItem(self._viewLogic)
        self._threeDWidget = ThreeDWidget(view_node)
        self._plotWidget = PlotWidget(scene.GetFirstNodeByClass("vtkMRMLPlotViewNode"))
        self._viewport = QtWidgets.QWidget()
        self._viewport.setObjectName("LayoutViewport")
        self._grid = QtWidgets.QGridLayout(self._viewport)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(2)
        self._shown = None
        self._layoutLogic.GetLayoutNode().AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *a: self._arrange())
        self._arrange()
        self.resetThreeDViews()

    # Arrangement

    def layoutLogic(self):
        return self._layoutLogic

    def setLayout(self, layout):
        self._layoutLogic.GetLayoutNode().SetViewArrangement(int(layout))

    def _getLayout(self):
        return self._layoutLogic.GetLayoutNode().GetViewArrangement()

    layout = property(_getLayout, setLayout)

    def _arrange(self):
        layout = self._getLayout()
        if layout == self._shown:
            return
        self._shown = layout
        rows = ARRANGEMENTS.get(layout, ARRANGEMENTS[slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView])
        while self._grid.count():
            widget = self._grid.takeAt(0).widget()
            widget.hide()
        for index in range(6):
            self._grid.setColumnStretch(index, 0)
            self._grid.setRowStretch(index, 0)
        columns = 6
        others = {"1": self._threeDWidget, "P": self._plotWidget}
        for y, row in enumerate(rows):
            span = columns // len(row)
            for x, name in enumerate(row):
                widget = others.get(name) or self._sliceWidgets[name]
                self._grid.addWidget(widget, y, x * span, 1, span)
                widget.show()
            self._grid.setRowStretch(y, 1)
        for index in range(columns):
            self._grid.setColumnStretch(index, 1)
        for name, widget in self._sliceWidgets.items():
            widget.mrmlSliceNode().SetMappedInLayout(int(any(name in row for row in rows)))
        self._threeDWidget.mrmlViewNode().SetMappedInLayout(int(any("1" in row for row in rows)))
        self._plotWidget.mrmlPlotViewNode().SetMappedInLayout(int(any("P" in row for row in rows)))
        self.layoutChanged.emit(layout)

    def viewport(self):
        return self._viewport

    # Views

    def sliceViewNames(self):
        return list(self._sliceWidgets)

    def sliceWidget(self, name):
        return self._sliceWidgets.get(name)

    def mrmlSliceLogics(self):
        return slicer.app.applicationLogic().GetSliceLogics()

    @property
    def threeDViewCount(self):
        return 1

    @property
    def tableViewCount(self):
        return 0

    @property
    def plotViewCount(self):
        return 1

    def plotWidget(self, index):
        return self._plotWidget

    def threeDWidget(self, index):
        return self._threeDWidget

    def activeMRMLThreeDViewNode(self):
        return self._threeDWidget.mrmlViewNode()

    def activeThreeDRenderer(self):
        return self._threeDWidget.threeDView().renderer()

    def resetSliceViews(self):
        for widget in self._sliceWidgets.values():
            widget.fitSliceToBackground()

    def resetThreeDViews(self):
        view = self._threeDWidget.threeDView()
        view.resetFocalPoint()
        view.resetCamera()

    def setRenderPaused(self, paused):
        pass

    def views(self):
        """Rendered views by name, the 3D view as "3D", the plot view as "Plot"."""
        found = {name: widget.sliceView() for name, widget in self._sliceWidgets.items()}
        found["3D"] = self._threeDWidget.threeDView()
        found["Plot"] = self._plotWidget.plotView()
        return found
