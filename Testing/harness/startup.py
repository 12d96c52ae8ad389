"""The application without its window: MRML scene, module logics, application object.

``start()`` makes what a running Slicer has before any module is loaded: ``slicer.mrmlScene``, ``slicer.app`` and
``slicer.modules``. VTK keeps process-wide singletons that hold on to the first scene: there is one application per
process, and tests clear its scene instead of starting another.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .environment import prepare, unavailable_reason

_application = None


def start(desktop: bool = False, testing: bool = True):
    """Start the application, or return the one that runs.

    :param desktop: show windows on the desktop instead of rendering them off screen.
    :param testing: what ``slicer.app.testingEnabled()`` answers; Slicer's message boxes are skipped when true.
    """
    global _application
    if _application is None:
        prepare(desktop)
        reason = unavailable_reason()
        if reason:
            raise RuntimeError(reason)
        _application = _start()
    _application.setTestingEnabled(testing)
    return _application


def _start():
    from .pythonqt import install as install_pythonqt

    install_pythonqt()

    import slicer

    # The few Slicer Python files that slicer-core lacks. Added to the package's path after its own import: on
    # PYTHONPATH slicer-core would import every one of them and merge their names into the slicer namespace.
    slicer.__path__.append(str(Path(__file__).parent / "slicer_additions"))
    sys.path.append(str(Path(__file__).parent / "scripted_modules"))

    from .app import Application
    from .module_logics import LOGIC_CLASSES
    from .modules import ModuleManager, Modules, add_logic_modules, install_into_slicer
    from .widgets import install as install_widgets

    install_widgets()
    install_into_slicer()

    app = Application()
    slicer.app = app
    slicer.modules = Modules()
    slicer.mrmlScene = app.mrmlScene
    app._moduleManager = ModuleManager()
    add_logic_modules(LOGIC_CLASSES)
    return app


def stop():
    """End what ``start()`` began, while Python still runs: modules stop what they started, selectors leave the scene.

    A widget that outlives the interpreter and then calls a slot of ours crashes the process.
    """
    if _application is None:
        return
    import slicer

    manager = _application.moduleManager()
    for module in list(manager.loadedModules()):
        if isinstance(module, slicer.qSlicerScriptedLoadableModule):
            manager.unload(module.objectName)
    _application.processEvents()
    for widget in _application.allWidgets():
        if hasattr(widget, "forgetScene"):
            widget.forgetScene()
