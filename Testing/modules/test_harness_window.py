"""``python -m harness`` opens the window, photographs it, or says why it cannot."""

import os
import subprocess
import sys

import pytest


def test_without_a_display_one_sentence_says_what_to_do(monkeypatch, capsys):
    from harness import __main__ as command

    monkeypatch.setattr(command.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert command.main([]) == 2
    assert "--picture" in capsys.readouterr().err


def test_the_modules_are_photographed_with_what_is_loaded(main_window, tmp_path, repository):
    import numpy as np
    import SimpleITK as sitk
    import slicer
    from harness import __main__ as command
    from PySide6 import QtGui

    path = tmp_path / "ramp.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(8000, dtype=np.int16).reshape(20, 20, 20)), str(path))
    picture = tmp_path / "window.png"
    assert command.main(["--picture", str(picture), "--size", "1000x700", "--load", str(path)]) == 0
    image = QtGui.QImage(str(picture))
    assert (image.width(), image.height()) == (1000, 700)
    assert slicer.util.selectedModule() == "SAMConvexRegistration"
    assert slicer.util.getNode("ramp")
    for name in ("SAMConvexRegistration", "SAMLandmark"):
        if slicer.app.moduleManager().isLoaded(name):
            slicer.app.moduleManager().unload(name)


@pytest.mark.parametrize("order", ["fixture first", "again"])
def test_the_window_starts_clean_for_every_test(main_window, scene, order):
    import slicer

    assert slicer.util.selectedModule() == ""
    red = slicer.app.layoutManager().sliceWidget("Red")
    assert red.sliceOrientation == "Axial" and red.mrmlSliceCompositeNode().GetBackgroundVolumeID() is None
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUp3DView)
    red.mrmlSliceNode().SetOrientation("Coronal")
    red.mrmlSliceCompositeNode().SetForegroundOpacity(0.7)


def test_nothing_of_ours_is_called_after_the_end(app):
    """A selector that outlived the interpreter and still followed the scene crashed the process at its very end."""
    program = """
import slicer
from harness.startup import start, stop
start()
from harness.modules import load_module, module_file
load_module(module_file("SAMConvexRegistration")).widgetRepresentation().enter()
selectors = [slicer.qMRMLNodeComboBox() for _ in range(2)]
for selector in selectors:
    selector.setMRMLScene(slicer.mrmlScene)
from harness.widgets import node_combo_box
stop()
node_combo_box._release = lambda *arguments: print("called")
import shiboken6
shiboken6.delete(selectors[0])
print("end", len(slicer.app.moduleManager().loadedModules()) > 0, hasattr(slicer.modules, "samconvexregistration"))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=environment
    )
    assert (ended.returncode, ended.stdout.split("\n")[0], ended.stderr) == (0, "end True False", "")
