"""The panel under other circumstances: a small screen, a dark theme, the keyboard alone, letters of 125 %.

Called by pictures.py with a result on the screen; as a program it takes the picture that needs another scale factor:

    QT_SCALE_FACTOR=1.25 python circumstances.py SCENE.mrb FOLDER
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

SMALL_SCREEN = (1366, 768)
SCALE = 1.25


def take_all(window, camera, widget):
    """One picture of each circumstance; the window is as before afterwards."""
    from harness.pictures import activate, settle
    from PySide6 import QtCore, QtTest

    before = window.size
    prepare(widget)
    window.resize(*SMALL_SCREEN)
    settle(0.3)
    camera.take("panel-1366x768", widget.ui.verdictLabel)
    with_palette(window, dark(), lambda: camera.take("panel-dark", widget.ui.verdictLabel))
    # The tab key leads from the fixed volume to Apply.
    widget.ui.inputsButton.collapsed = widget.ui.settingsButton.collapsed = False
    activate(window)
    widget.ui.fixedSelector.setFocus(QtCore.Qt.FocusReason.TabFocusReason)
    for _step in range(40):
        if window.focusWidget() is widget.ui.applyButton:
            break
        QtTest.QTest.keyClick(window.focusWidget(), QtCore.Qt.Key.Key_Tab)
    settle(0.2)
    print(f"Tab key: {_step} steps from the fixed volume to Apply", flush=True)
    camera.take("panel-keyboard", widget.ui.applyButton)
    window.resize(before)
    scaled(camera)


def prepare(widget):
    """What a user has in front of him after a run: the figures and the preview, blended."""
    ui = widget.ui
    for name in ("inputsButton", "settingsButton", "outputsButton", "advancedButton"):
        getattr(ui, name).collapsed = True
    ui.qualityButton.collapsed = ui.previewButton.collapsed = False
    ui.previewModeComboBox.setCurrentIndex(ui.previewModeComboBox.findData("blend"))
    ui.blendSlider.value = 50


def dark():
    """A dark theme as desktops have it."""
    from PySide6 import QtGui

    palette = QtGui.QPalette(QtGui.QColor(53, 53, 53))
    palette.setColor(QtGui.QPalette.ColorRole.Base, QtGui.QColor(35, 35, 35))
    palette.setColor(QtGui.QPalette.ColorRole.AlternateBase, QtGui.QColor(45, 45, 45))
    palette.setColor(QtGui.QPalette.ColorRole.Link, QtGui.QColor(120, 180, 255))
    return palette


def with_palette(window, palette, work):
    """Do something under another palette of the whole application."""
    from PySide6 import QtWidgets

    application = QtWidgets.QApplication.instance()
    before = QtWidgets.QApplication.palette()
    application.setPalette(palette)
    try:
        work()
    finally:
        application.setPalette(before)


def scaled(camera):
    """The same scene in a process of its own, where everything is drawn larger."""
    import slicer

    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.mrb"
        slicer.util.saveScene(str(scene))
        words = [sys.executable, __file__, str(scene), str(camera.folder)]
        subprocess.run(words, env={**os.environ, "QT_SCALE_FACTOR": str(SCALE)}, check=True)


def main(scene: str, folder: str) -> int:
    from camera import REPOSITORY, Camera

    for name in ("Testing", "SAMConvexRegistration", "SAMLandmark"):
        sys.path.insert(0, str(REPOSITORY / name))
    from harness import load_module, start

    start()
    import slicer
    from harness.pictures import settle
    from harness.window import MainWindow

    window = MainWindow.instance()
    window.show()
    load_module(REPOSITORY / "SAMConvexRegistration" / "SAMConvexRegistration.py")
    slicer.util.loadScene(scene)
    slicer.util.selectModule("SAMConvexRegistration")
    widget = slicer.modules.SAMConvexRegistrationWidget
    owner = next(
        each for each in widget.logic.getAllParameterNodes() if widget.logic.parametersOf(each).outputTransform
    )
    widget.ui.parameterSetSelector.setCurrentNode(owner)
    prepare(widget)
    window.resize(*[round(length / SCALE) for length in SMALL_SCREEN])
    settle(0.3)
    window.fit()
    Camera(window, Path(folder)).take("panel-125-percent", widget.ui.verdictLabel)
    widget.cleanup()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
