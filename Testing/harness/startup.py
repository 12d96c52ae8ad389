"""The application without its window: MRML scene, module logics, application object.

``start()`` makes what a running Slicer has before any module is loaded: ``slicer.mrmlScene``, ``slicer.app`` and
``slicer.modules``. VTK keeps process-wide singletons that hold on to the first scene: there is one application per
process, and tests clear its scene instead of starting another.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import environment

_application = None

# Module name -> class of its logic in slicer-core.
LOGIC_CLASSES = {
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Units": "vtkSlicerUnitsLogic",
    "Colors": "vtkSlicerColorLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
}


def start(desktop: bool = False, testing: bool = True):
    """Start the application, or return the one that runs.

    :param desktop: show windows on the desktop instead of rendering them off screen.
    :param testing: what ``slicer.app.testingEnabled()`` answers; Slicer's message boxes are skipped when true.
    """
    global _application
    if _application is None:
        environment.prepare(desktop)
        reason = environment.unavailable_reason()
        if reason:
            raise RuntimeError(reason)
        _application = _start()
    _application.setTestingEnabled(testing)
    return _application


def _start():
    from . import pythonqt

    pythonqt.install()

    import slicer

    # The few Slicer Python files that slicer-core lacks. Added to the package's path after its own import: on
    # PYTHONPATH slicer-core would import every one of them and merge their names into the slicer namespace.
    slicer.__path__.append(str(Path(__file__).parent / "slicer_additions"))
    sys.path.append(str(Path(__file__).parent / "scripted_modules"))

    from . import widgets
    from .app import Application
    from .modules import ModuleManager, Modules, add_logic_modules

    widgets.install()

    app = Application()
    slicer.app = app
    slicer.modules = Modules()
    slicer.mrmlScene = app.mrmlScene
    app._moduleManager = ModuleManager()
    add_logic_modules(LOGIC_CLASSES)
    return app


def create_scene(temporary: str):
    """The scene and its application logic, set up in the order Slicer uses."""
    import slicer
    import vtk

    scene = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(scene)  # creates the selection and interaction nodes
    logic.SetHomeDirectory(temporary)
    logic.SetTemporaryPath(os.path.join(temporary, "Temporary"))
    logic.SetShareDirectory(os.path.join("share", "Slicer-5.13"))
    _write_generic_colors(os.path.join(temporary, "share", "Slicer-5.13", "ColorFiles"))
    os.makedirs(logic.GetTemporaryPath(), exist_ok=True)
    scene.SetRootDirectory(logic.GetTemporaryPath())
    logic.GetColorLogic().SetMRMLScene(scene)
    logic.GetColorLogic().AddDefaultColorNodes()

    io = slicer.vtkMRMLRemoteIOLogic()
    io.SetMRMLScene(scene)
    data_io = slicer.vtkDataIOManagerLogic()
    data_io.SetMRMLApplicationLogic(logic)
    data_io.SetAndObserveDataIOManager(io.GetDataIOManager())
    logic.SetMRMLSceneDataIO(scene, io, data_io)

    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    for factory in (
        slicer.vtkMRMLThreeDViewDisplayableManagerFactory,
        slicer.vtkMRMLSliceViewDisplayableManagerFactory,
    ):
        factory.GetInstance().SetMRMLApplicationLogic(logic)

    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    scene.AddNode(crosshair)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    # Both IO logics are kept: the scene only borrows them.
    return scene, logic, (io, data_io)


def create_module_logics(scene, application_logic, classes=None):
    """Instances of the module logics that slicer-core has, by module name."""
    import slicer

    logics = {}
    for name, class_name in (classes or LOGIC_CLASSES).items():
        logic = getattr(slicer, class_name)()
        logic.SetMRMLApplicationLogic(application_logic)
        application_logic.SetModuleLogic(name, logic)
        logic.SetMRMLScene(scene)
        logics[name] = logic
    return logics


def _write_generic_colors(folder: str) -> None:
    """A small table under the name the color logic looks for; Slicer ships a longer one."""
    os.makedirs(folder, exist_ok=True)
    colors = (
        (128, 174, 128),
        (241, 214, 145),
        (177, 122, 101),
        (111, 184, 210),
        (216, 101, 79),
        (221, 130, 101),
        (144, 238, 144),
    )
    lines = ["# Color table file", f"# {len(colors) + 1} values", "0 Background 0 0 0 0"]
    lines += [f"{i} Color_{i} {r} {g} {b} 255" for i, (r, g, b) in enumerate(colors, 1)]
    Path(folder, "GenericColors.txt").write_text("\n".join(lines) + "\n")
