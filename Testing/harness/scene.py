"""The MRML scene with its application logic, set up as Slicer does it."""

from __future__ import annotations

import os
from pathlib import Path


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


def singletons(scene) -> set[str]:
    """IDs of the nodes that ``scene.Clear(0)`` keeps."""
    nodes = (scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes()))
    return {node.GetID() for node in nodes if node.GetSingletonTag()}


def clear(scene, own: set[str]) -> None:
    """Empty the scene down to the application's ``own`` singletons.

    A view node becomes a singleton by its layout name: one that a test makes or loads would outlive the test, and the
    window's logics would take it for their own.
    """
    scene.Clear(0)
    for identifier in singletons(scene) - own:
        scene.RemoveNode(scene.GetNodeByID(identifier))


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
