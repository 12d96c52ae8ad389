"""``slicer.modules``, the module manager, and the loading of scripted modules as Slicer's module factory does it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from .module_logics import create_module_logics
from .widgets.mrml import qMRMLWidget


class Modules:
    """``slicer.modules``: one attribute per module, by lower-case name; scripted widgets as ``<Name>Widget``."""


class qSlicerCoreModule(QtCore.QObject):
    """A module that slicer-core brings the logic of."""

    PYTHON_ATTRIBUTES = ("title", "path", "categories", "dependencies", "hidden")

    def __init__(self, name, logic=None):
        super().__init__()
        self.setObjectName(name)
        self.title = name
        self.path = ""
        self.categories = []
        self.dependencies = []
        self.hidden = False
        self._logic = logic

    def logic(self):
        return self._logic

    def widgetRepresentation(self):
        return None


class qSlicerScriptedLoadableModule(qSlicerCoreModule):
    """What a scripted module's class gets as ``parent``, and what ``slicer.modules.<name>`` is."""

    PYTHON_ATTRIBUTES = (
        *qSlicerCoreModule.PYTHON_ATTRIBUTES,
        "contributors",
        "helpText",
        "acknowledgementText",
        "icon",
        "index",
        "associatedNodeTypes",
        "widgetRepresentationCreationEnabled",
    )

    def __init__(self, name, path):
        super().__init__(name, slicer.vtkSlicerScriptedLoadableModuleLogic())
        self.path = str(path)
        self.contributors = []
        self.helpText = ""
        self.acknowledgementText = ""
        self.icon = QtGui.QIcon()
        self.index = -1
        self.associatedNodeTypes = []
        self.widgetRepresentationCreationEnabled = True
        self._instance = None
        self._widget = None
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._logic.SetMRMLScene(slicer.mrmlScene)

    def self(self):
        return self._instance

    def widgetRepresentation(self):
        if self._widget is None:
            self._widget = self.createNewWidgetRepresentation()
        return self._widget

    def createNewWidgetRepresentation(self):
        if not self.widgetRepresentationCreationEnabled:
            return None
        python_module = sys.modules[self.objectName]
        if not hasattr(python_module, self.objectName + "Widget"):
            return None
        widget = slicer.qSlicerScriptedLoadableModuleWidget(self)
        widget.reload()
        return widget


class ModuleManager(QtCore.QObject):
    """``slicer.app.moduleManager()``"""

    moduleAboutToBeUnloaded = QtCore.Signal(str)
    moduleLoaded = QtCore.Signal(str)

    def __init__(self):
        super().__init__()
        self._modules = {}

    def add(self, module):
        self._modules[module.objectName] = module
        setattr(slicer.modules, module.objectName.lower(), module)

    def module(self, name):
        return self._modules.get(name)

    def modulesNames(self):
        return list(self._modules)

    def loadedModules(self):
        return list(self._modules.values())

    def factoryManager(self):
        return self

    def loadedModuleNames(self):
        return list(self._modules)

    def isLoaded(self, name):
        return name in self._modules

    def unload(self, name):
        """Take a scripted module out again: its widget is cleaned up and deleted."""
        module = self._modules[name]
        if getattr(module, "_widget", None) is not None:
            module._widget.exit()
        self.moduleAboutToBeUnloaded.emit(name)
        del self._modules[name]
        if getattr(module, "_widget", None) is not None:
            module._widget.setMRMLScene(None)
            module._widget.setParent(None)
            module._widget.deleteLater()
            # Only a running event loop deletes it; selectors that stayed would follow every later scene.
            for child in module._widget.findChildren(QtCore.QObject):
                if hasattr(child, "forgetScene"):
                    child.forgetScene()
        for attribute in (name.lower(), name + "Widget", name + "Instance"):
            if hasattr(slicer.modules, attribute):
                delattr(slicer.modules, attribute)
        sys.modules.pop(name, None)


def add_logic_modules(classes):
    """``slicer.modules.volumes`` and its like, each with its real logic."""
    app = slicer.app
    for name, logic in create_module_logics(app.mrmlScene, app.applicationLogic(), classes).items():
        app.moduleManager().add(qSlicerCoreModule(name, logic))


def load_module(path) -> qSlicerScriptedLoadableModule:
    """Load a scripted module file, unmodified, and return its module object. A loaded one is returned as it is.

    The folder goes to the end of ``sys.path``, the file is executed under its own name, its module class is constructed
    and ``startupCompleted()`` reaches what the file connected to it, unless the window is shown: the start of Slicer is
    over then. The widget is made by ``widgetRepresentation()``.
    """
    path = Path(path).resolve()
    name = path.stem
    manager = slicer.app.moduleManager()
    if manager.isLoaded(name) and manager.module(name).path == str(path):
        return manager.module(name)
    if manager.isLoaded(name):
        raise ValueError(f"another module named {name} is loaded from {manager.module(name).path}")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    python_module = importlib.util.module_from_spec(spec)
    sys.modules[name] = python_module
    try:
        spec.loader.exec_module(python_module)
        module = qSlicerScriptedLoadableModule(name, path)
        module._instance = getattr(python_module, name)(module)
    except BaseException:
        del sys.modules[name]
        raise
    manager.add(module)
    setattr(slicer.modules, name + "Instance", module._instance)
    if hasattr(module._instance, "setup"):
        module._instance.setup()
    slicer.app.completeStartup()
    manager.moduleLoaded.emit(name)
    return module


def install_into_slicer():
    """The classes that ``slicer.util`` and modules compare with."""

    class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
        """The panel of a scripted module; ``self()`` is the Python widget class that fills it."""

        PYTHON_ATTRIBUTES = ("isEntered",)

        def __init__(self, module):
            super().__init__()
            self._module = module
            self._instance = None
            self.isEntered = False
            self.setObjectName(module.objectName + "ModuleWidget")
            self.setLayout(QtWidgets.QVBoxLayout())
            self.setMRMLScene(slicer.mrmlScene)

        def reload(self):
            name = self._module.objectName
            self._instance = getattr(sys.modules[name], name + "Widget")(self)
            setattr(slicer.modules, name + "Widget", self._instance)
            self._instance.setup()

        def self(self):
            return self._instance

        def module(self):
            return self._module

        def moduleName(self):
            return self._module.objectName

        def enter(self):
            if not self.isEntered:
                self.isEntered = True
                self._call("enter")

        def exit(self):
            if self.isEntered:
                self.isEntered = False
                self._call("exit")

        def setEditedNode(self, node, role="", context=""):
            return self._answer("setEditedNode", bool, False, node, role, context)

        def nodeEditable(self, node):
            return self._answer("nodeEditable", float, 0.5, node)

        def _answer(self, method, kind, default, *arguments):
            """Slicer takes exactly this type; an int is not a float to it."""
            if not hasattr(self._instance, method):
                return default
            result = self._call(method, *arguments)
            if type(result) is not kind:
                raise TypeError(f"{method} of {self._module.objectName} must return a {kind.__name__}, not {result!r}")
            return result

        def _call(self, method, *arguments):
            function = getattr(self._instance, method, None)
            return function(*arguments) if function else None

    slicer.qSlicerCoreModule = qSlicerCoreModule
    slicer.qSlicerScriptedLoadableModule = qSlicerScriptedLoadableModule
    slicer.qSlicerScriptedLoadableModuleWidget = qSlicerScriptedLoadableModuleWidget
    slicer.qSlicerAbstractModuleWidget = qSlicerScriptedLoadableModuleWidget


def module_file(name, repository=None):
    """Path of a module of this repository: ``module_file("SAMLandmark")``."""
    root = Path(repository) if repository else Path(__file__).resolve().parents[2]
    return os.path.join(root, name, name + ".py")
