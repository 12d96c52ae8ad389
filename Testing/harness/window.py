"""The application window: menus and tool bar, module panel at the left, views at the right."""

from __future__ import annotations

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from .layout import LayoutManager

LAYOUTS = (
    ("Four-up", "SlicerLayoutFourUpView"),
    ("Conventional", "SlicerLayoutConventionalView"),
    ("Three slices", "SlicerLayoutThreeOverThreeView"),
    ("Side by side", "SlicerLayoutSideBySideView"),
    ("Four-up with plot", "SlicerLayoutFourUpPlotView"),
    ("Plot only", "SlicerLayoutOneUpPlotView"),
    ("3D only", "SlicerLayoutOneUp3DView"),
    ("Red slice only", "SlicerLayoutOneUpRedSliceView"),
    ("Yellow slice only", "SlicerLayoutOneUpYellowSliceView"),
    ("Green slice only", "SlicerLayoutOneUpGreenSliceView"),
)


class ModuleSelector(QtCore.QObject):
    """``slicer.util.moduleSelector()``: which module the panel shows."""

    moduleSelected = QtCore.Signal(str)

    def __init__(self, window):
        super().__init__(window)
        self._window = window

    def selectModule(self, name):
        self._window.showModule(name)
        self.moduleSelected.emit(name)

    @property
    def selectedModule(self):
        return self._window._module


class MainWindow(QtWidgets.QMainWindow):
    """One per process, as in Slicer: the views register with process-wide VTK factories."""

    _instance = None
    SIZE = (1440, 900)
    PANEL_WIDTH = 500

    @classmethod
    def instance(cls):
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def __init__(self):
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.setWindowTitle("SAMConvex preview application")
        self._module = ""
        self._layoutManager = LayoutManager()
        slicer.app._layoutManager = self._layoutManager
        self._selector = ModuleSelector(self)
        self.setCentralWidget(self._layoutManager.viewport())
        self._makePanel()
        self._makeActions()
        self.statusBar().setSizeGripEnabled(False)
        self._updateModules()
        manager = slicer.app.moduleManager()
        manager.moduleLoaded.connect(lambda name: self._updateModules())
        manager.moduleAboutToBeUnloaded.connect(self._forgetModule)
        self._observeCursor()
        self.resize(*self.SIZE)

    # Parts that slicer.util asks for

    def moduleSelector(self):
        return self._selector

    def layoutManager(self):
        return self._layoutManager

    def views(self):
        return self._layoutManager.views()

    # The panel

    def _makePanel(self):
        panel = QtWidgets.QWidget()
        panel.setObjectName("ModulePanel")
        column = QtWidgets.QVBoxLayout(panel)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        self._title = QtWidgets.QLabel()
        font = QtGui.QFont(self._title.property("font"))
        font.setPointSizeF(font.pointSizeF() * 1.25)
        font.setBold(True)
        self._title.setFont(font)
        self._title.setContentsMargins(12, 8, 8, 4)
        self._scroll = QtWidgets.QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QtWidgets.QFrame.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._probe = QtWidgets.QLabel()
        self._probe.setObjectName("DataProbeCollapsibleWidget")
        self._probe.setContentsMargins(12, 4, 8, 6)
        self._probe.setFont(QtGui.QFontDatabase.systemFont(QtGui.QFontDatabase.SystemFont.FixedFont))
        self._probe.setMinimumHeight(52)
        self._probe.setFrameShape(QtWidgets.QFrame.Shape.StyledPanel)
        column.addWidget(self._title)
        column.addWidget(self._scroll, 1)
        column.addWidget(self._probe)
        dock = QtWidgets.QDockWidget("Module Panel", self)
        dock.setObjectName("PanelDockWidget")
        dock.setFeatures(QtWidgets.QDockWidget.DockWidgetFeature.DockWidgetMovable)
        dock.setTitleBarWidget(QtWidgets.QWidget(dock))
        dock.setWidget(panel)
        self.addDockWidget(QtCore.Qt.DockWidgetArea.LeftDockWidgetArea, dock)
        self._dock = dock
        self.resizeDocks([dock], [self.PANEL_WIDTH], QtCore.Qt.Orientation.Horizontal)

    def showModule(self, name):
        """Leave the module that is shown, enter this one; "" leaves the panel empty."""
        if name == self._module:
            return
        if self._module:
            current = slicer.app.moduleManager().module(self._module)
            if current is not None and current.widgetRepresentation() is not None:
                current.widgetRepresentation().exit()
                self._scroll.takeWidget()
                current.widgetRepresentation().setParent(None)
        self._module = name
        module = slicer.app.moduleManager().module(name) if name else None
        self._title.setText(module.title if module else "")
        if module is not None:
            representation = module.widgetRepresentation()
            self._scroll.setWidget(representation)
            representation.show()
            representation.enter()
        index = self._moduleBox.findData(name)
        self._moduleBox.setCurrentIndex(index)

    def _forgetModule(self, name):
        if name == self._module:
            self.showModule("")
        index = self._moduleBox.findData(name)
        if index >= 0:
            self._moduleBox.removeItem(index)

    def _updateModules(self):
        for module in slicer.app.moduleManager().loadedModules():
            if (
                isinstance(module, slicer.qSlicerScriptedLoadableModule)
                and self._moduleBox.findData(module.objectName) < 0
            ):
                self._moduleBox.addItem(module.icon, module.title, module.objectName)
        self._moduleBox.setCurrentIndex(self._moduleBox.findData(self._module))

    # Menus and tool bar

    def _makeActions(self):
        style = self.style()
        pixmap = QtWidgets.QStyle.StandardPixmap
        file_menu = self.menuBar().addMenu("&File")
        load = self._action("Add &data…", self.addData, "Ctrl+O", pixmap.SP_DialogOpenButton)
        save = self._action("&Save scene…", self.saveScene, "Ctrl+S", pixmap.SP_DialogSaveButton)
        close = self._action("&Close scene", lambda: slicer.mrmlScene.Clear(0), "Ctrl+W")
        file_menu.addActions([load, save, close])
        self._samples = file_menu.addMenu("Sample data")
        self._samples.aboutToShow.connect(self._listSamples)
        file_menu.addSeparator()
        file_menu.addAction(self._action("E&xit", self.close, "Ctrl+Q"))
        view_menu = self.menuBar().addMenu("&View")
        for text, name in LAYOUTS:
            number = getattr(slicer.vtkMRMLLayoutNode, name)
            view_menu.addAction(self._action(text, lambda n=number: self._layoutManager.setLayout(n)))
        view_menu.addSeparator()
        fit = self._action("&Fit slices to volumes", self._layoutManager.resetSliceViews, "Ctrl+F")
        center = self._action("&Center 3D view", self._layoutManager.resetThreeDViews)
        view_menu.addActions([fit, center])
        help_menu = self.menuBar().addMenu("&Help")
        help_menu.addAction(self._action("About the module", self._about))

        bar = self.addToolBar("Main")
        bar.setObjectName("MainToolBar")
        bar.setMovable(False)
        bar.setToolButtonStyle(QtCore.Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        load.setIconText("Data")
        save.setIconText("Save")
        bar.addActions([load, save])
        bar.addSeparator()
        bar.addWidget(QtWidgets.QLabel("Modules: "))
        self._moduleBox = QtWidgets.QComboBox()
        self._moduleBox.setMinimumWidth(230)
        self._moduleBox.activated.connect(lambda i: self._selector.selectModule(self._moduleBox.itemData(i)))
        bar.addWidget(self._moduleBox)
        bar.addSeparator()
        bar.addWidget(QtWidgets.QLabel("Layout: "))
        self._layoutBox = QtWidgets.QComboBox()
        for text, name in LAYOUTS:
            self._layoutBox.addItem(text, getattr(slicer.vtkMRMLLayoutNode, name))
        self._layoutBox.activated.connect(lambda i: self._layoutManager.setLayout(self._layoutBox.itemData(i)))
        self._layoutManager.layoutChanged.connect(
            lambda layout: self._layoutBox.setCurrentIndex(self._layoutBox.findData(layout))
        )
        bar.addWidget(self._layoutBox)
        bar.addSeparator()
        fit.setIcon(style.standardIcon(pixmap.SP_BrowserReload))
        fit.setIconText("Fit")
        bar.addAction(fit)

    def _action(self, text, function, shortcut=None, icon=None):
        action = QtGui.QAction(text, self)
        if icon is not None:
            action.setIcon(self.style().standardIcon(icon))
        if shortcut:
            action.setShortcut(shortcut)
        action.triggered.connect(lambda checked=False: function())
        return action

    def addData(self):
        paths = QtWidgets.QFileDialog.getOpenFileNames(self, "Add data to the scene", "", "All files (*)")
        for path in paths or []:
            self.load(path)
        self.fit()

    def load(self, path):
        """Load a file of any kind the stand-in knows."""
        kind = slicer.app.coreIOManager().fileType(path)
        with slicer.util.tryWithErrorDisplay(f"Failed to load {path}.", waitCursor=True):
            if kind == "SceneFile":
                slicer.util.loadScene(path)
            else:
                slicer.util.loadNodeFromFile(path, kind)

    def fit(self):
        """All views show all there is."""
        self._layoutManager.resetSliceViews()
        self._layoutManager.resetThreeDViews()

    def saveScene(self):
        path = QtWidgets.QFileDialog.getSaveFileName(self, "Save the scene", "scene.mrb", "Scene bundle (*.mrb)")
        if path:
            slicer.util.saveScene(path)

    def _listSamples(self):
        import SampleData

        self._samples.clear()
        for source in SampleData.SampleDataLogic.sources:
            action = self._action(source.sampleName, lambda n=source.sampleName: self._loadSample(n))
            self._samples.addAction(action)
        if not SampleData.SampleDataLogic.sources:
            self._samples.addAction("(none registered)").setEnabled(False)

    def _loadSample(self, name):
        import SampleData

        with slicer.util.tryWithErrorDisplay(f"Failed to load {name}.", waitCursor=True):
            SampleData.SampleDataLogic().clickButton(name)
        self.fit()

    def _about(self):
        module = slicer.app.moduleManager().module(self._module)
        if module is not None:
            QtWidgets.QMessageBox.information(self, module.title, module.helpText + module.acknowledgementText)

    # Position and values under the mouse

    def _observeCursor(self):
        self._cursor = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self._cursor.AddObserver(slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent, lambda *a: self._showProbe())
        self._showProbe()

    def _showProbe(self):
        ras = [0.0, 0.0, 0.0]
        if not self._cursor.GetCursorPositionRAS(ras):
            self._probe.setText("Move the mouse over a slice to see\nposition and values.")
            return
        lines = [f"R {ras[0]:8.1f}   A {ras[1]:8.1f}   S {ras[2]:8.1f} mm"]
        composite = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
        for letter, identifier in (("F", composite.GetForegroundVolumeID()), ("B", composite.GetBackgroundVolumeID())):
            node = slicer.mrmlScene.GetNodeByID(identifier) if identifier else None
            if node is not None and node.GetImageData() is not None:
                lines.append(f"{letter} {node.GetName()}: {_value_at(node, ras)}")
        self._probe.setText("\n".join(lines))

    # Between tests

    def reset(self):
        """The window as it started: no module, four-up, slices in their own planes, nothing in the layers."""
        self.showModule("")
        self._layoutManager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        for name in self._layoutManager.sliceViewNames():
            widget = self._layoutManager.sliceWidget(name)
            widget.mrmlSliceNode().SetOrientation(widget.mrmlSliceNode().GetDefaultOrientation())
            widget.mrmlSliceNode().SetSliceVisible(False)
            composite = widget.mrmlSliceCompositeNode()
            composite.SetBackgroundVolumeID(None)
            composite.SetForegroundVolumeID(None)
            composite.SetLabelVolumeID(None)
            composite.SetForegroundOpacity(0.0)
            composite.SetLinkedControl(False)
            composite.SetCompositing(slicer.vtkMRMLSliceCompositeNode.Alpha)
        self._layoutManager.plotWidget(0).mrmlPlotViewNode().SetPlotChartNodeID(None)
        self.resize(*self.SIZE)
        self.resizeDocks([self._dock], [self.PANEL_WIDTH], QtCore.Qt.Orientation.Horizontal)
        view = self._layoutManager.threeDWidget(0).threeDView()
        view.rotateToViewAxis(3)
        self._layoutManager.resetThreeDViews()


def _value_at(node, ras):
    """The voxel value at a world position, or a dash outside."""
    local = list(ras)
    if node.GetParentTransformNode():
        to_node = vtk.vtkGeneralTransform()
        slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, node.GetParentTransformNode(), to_node)
        local = list(to_node.TransformPoint(local))
    matrix = vtk.vtkMatrix4x4()
    node.GetRASToIJKMatrix(matrix)
    index = [round(v) for v in matrix.MultiplyPoint((*local, 1.0))[:3]]
    size = node.GetImageData().GetDimensions()
    if any(not 0 <= i < n for i, n in zip(index, size, strict=True)):
        return "-"
    return f"{node.GetImageData().GetScalarComponentAsDouble(*index, 0):g}"
