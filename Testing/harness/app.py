"""``slicer.app``: a QApplication with the methods of qSlicerApplication that modules use."""

from __future__ import annotations

import os
import sys
import sysconfig

import slicer
from PySide6 import QtCore, QtWidgets

from .io_manager import IOManager, temporary_folder
from .scene import create_scene
from .subject_hierarchy import SubjectHierarchyFiller


class _CommandOptions:
    """The command line that Slicer was started with."""

    noMainWindow = False
    runPythonAndExit = False
    disableSettings = True
    verbose = False

    def __init__(self):
        self.isTestingEnabled = False


class _ExtensionsManagerModel:
    """Installs what a test made available, and then restarts unless told not to, as Slicer does.

    Attributes:
        interactive: asks before installing and before restarting.
        available: names on the server; none, until a test adds some.
    """

    def __init__(self):
        self.interactive = True
        self.available = set()
        self._installed = set()

    def isExtensionInstalled(self, name):
        return name in self._installed

    def isExtensionEnabled(self, name):
        return name in self._installed

    def installExtensionFromServer(self, name, restart=True, update=False, /):
        if name in self._installed:
            return True
        if not self._confirmed(f"Do you want to install '{name}' now?", whenTesting=True):
            return False
        if name not in self.available:
            return False
        self._installed.add(name)
        if restart and self._confirmed(f"Extension {name} has been installed from server.", whenTesting=False):
            slicer.app.restart()
        return True

    def uninstallExtension(self, name):
        self._installed.discard(name)
        return True

    def _confirmed(self, question, whenTesting):
        if slicer.app.testingEnabled():
            return whenTesting
        if not self.interactive:
            return True
        answer = QtWidgets.QMessageBox.question(None, "Extensions Manager", question)
        return answer == QtWidgets.QMessageBox.StandardButton.Yes


class Application(QtWidgets.QApplication):
    """The application object. One per process."""

    startupCompleted = QtCore.Signal()
    mrmlSceneChanged = QtCore.Signal(object)
    pauseRenderChanged = QtCore.Signal(bool)

    PQ_SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}

    PYTHON_ATTRIBUTES = ("restartRequested",)

    majorVersion = 5
    minorVersion = 13
    revision = "31053"
    repositoryRevision = "31053"
    releaseType = "Preview"
    documentationBaseUrl = "https://slicer.readthedocs.io/en/latest/"
    isInstalled = True

    def __init__(self):
        super().__init__([sys.argv[0] or "Slicer"])
        self.setQuitOnLastWindowClosed(False)
        QtCore.QCoreApplication.setApplicationName("Slicer")
        QtCore.QCoreApplication.setApplicationVersion("5.13.0")
        QtCore.QCoreApplication.setOrganizationName("slicer.org")
        self._folder = temporary_folder()
        self._providePythonSlicer()
        # A test must neither read nor change the settings of a Slicer that is installed on this machine.
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        for scope in (QtCore.QSettings.Scope.UserScope, QtCore.QSettings.Scope.SystemScope):
            QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, scope, os.path.join(self._folder, "Settings"))
        QtCore.QStandardPaths.setTestModeEnabled(True)

        self.mrmlScene, self._applicationLogic, self._ioLogics = create_scene(self._folder)
        self._subjectHierarchy = SubjectHierarchyFiller(self.mrmlScene)
        self._ioManager = IOManager(self)
        self._commandOptions = _CommandOptions()
        self._extensionsManagerModel = _ExtensionsManagerModel()
        self._moduleManager = None
        self._layoutManager = None
        self._testing = True
        self._startupFunctions = []
        self.restartRequested = False

    def _providePythonSlicer(self):
        """Slicer has its interpreter on the PATH under this name; modules start their processes with it.

        It is a launcher: its own folders (site-packages among them) come before the caller's PYTHONPATH, and a program
        that is killed or crashes reaches the caller as a line and exit status 1. (A shell tells a signal by a status
        above 128; no program of ours ends with such a one.)
        """
        if sys.platform == "win32":
            return
        folder = os.path.join(self._folder, "bin")
        os.makedirs(folder)
        os.makedirs(self.sitePackages)
        paths = os.pathsep.join([self.sitePackages, sysconfig.get_path("purelib")])
        script = os.path.join(folder, "PythonSlicer")
        with open(script, "w") as file:
            file.write(
                "#!/bin/sh\n"
                f'PYTHONPATH="{paths}${{PYTHONPATH:+:$PYTHONPATH}}"\n'
                "export PYTHONPATH\n"
                f'"{sys.executable}" "$@"\n'
                "status=$?\n"
                'if [ "$status" -gt 128 ]; then\n'
                f'  echo "error: [{sys.executable}] exit abnormally - Report the problem." >&2\n'
                "  exit 1\n"
                "fi\n"
                'exit "$status"\n'
            )
        os.chmod(script, 0o755)
        os.environ["PATH"] = folder + os.pathsep + os.environ.get("PATH", "")

    # Folders and versions

    @property
    def temporaryPath(self):
        return self._applicationLogic.GetTemporaryPath()

    @property
    def cachePath(self):
        path = os.path.join(self._folder, "Cache")
        os.makedirs(path, exist_ok=True)
        return path

    @property
    def sitePackages(self):
        """Where pip installs into this Slicer; PythonSlicer sees it, and a test puts packages there."""
        return os.path.join(self._folder, "lib", "Python", "site-packages")

    @property
    def slicerHome(self):
        return self._folder

    @property
    def defaultScenePath(self):
        return self._folder

    @property
    def os(self):
        return {"win32": "win", "darwin": "macosx"}.get(sys.platform, "linux")

    def moduleDocumentationUrl(self, moduleName):
        return f"{self.documentationBaseUrl}user_guide/modules/{moduleName.lower()}.html"

    # Parts

    def applicationLogic(self):
        return self._applicationLogic

    def layoutManager(self):
        return self._layoutManager

    def moduleManager(self):
        return self._moduleManager

    def coreIOManager(self):
        return self._ioManager

    def ioManager(self):
        return self._ioManager

    def commandOptions(self):
        return self._commandOptions

    def extensionsManagerModel(self):
        return self._extensionsManagerModel

    def userSettings(self):
        return QtCore.QSettings()

    def settings(self):
        return QtCore.QSettings()

    def revisionUserSettings(self):
        return QtCore.QSettings()

    def mainWindow(self):
        return slicer.util.mainWindow()

    # "Edit properties"

    def nodeModule(self, node):
        """Name of the module that edits the node best. Only modules with a matching associatedNodeTypes are asked."""
        best, confidence = "Data", 0.0
        for module in self._moduleManager.loadedModules():
            if not any(node.IsA(kind) for kind in getattr(module, "associatedNodeTypes", ())):
                continue
            mine = module.widgetRepresentation().nodeEditable(node)
            if mine > confidence:
                best, confidence = module.objectName, mine
        return best

    def openNodeModule(self, node, role="", context=""):
        """The node is handed to the module's panel first; the module is entered after that, if it is not shown."""
        module = self._moduleManager.module(self.nodeModule(node))
        if module is None:
            return
        module.widgetRepresentation().setEditedNode(node, role, context)
        slicer.util.selectModule(module.objectName)

    # State

    def testingEnabled(self):
        return self._testing

    def setTestingEnabled(self, enabled):
        self._testing = bool(enabled)
        self._commandOptions.isTestingEnabled = self._testing

    def processEvents(self, *args):
        QtCore.QCoreApplication.processEvents(*args)
        self._applicationLogic.ProcessModified()

    def pauseRender(self):
        self._applicationLogic.PauseRender()

    def resumeRender(self):
        self._applicationLogic.ResumeRender()

    def restart(self):
        self.restartRequested = True

    def toSlicerHomeAbsolutePath(self, path):
        return os.path.join(self.slicerHome, path)

    def startupEnvironment(self):
        environment = QtCore.QProcessEnvironment.systemEnvironment()
        return environment

    # Startup

    def connectSignature(self, signature, function):
        """Keeps what waits for the end of the start; see :meth:`completeStartup`."""
        if signature != "startupCompleted()":
            return False
        self._startupFunctions.append(function)
        return True

    def completeStartup(self):
        """Call, once, what connected to startupCompleted(): Slicer emits it when its window is first shown.

        A module loaded while the window is already there never gets it. As in every slot, an exception is printed and
        the others are called all the same.
        """
        functions, self._startupFunctions = self._startupFunctions, []
        window = slicer.util.mainWindow()
        if window is not None and window.visible:
            return
        for function in functions:
            try:
                function()
            except Exception:
                sys.excepthook(*sys.exc_info())
