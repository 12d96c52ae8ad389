"""The report's page in a window of its own, from where it is saved."""

import numpy as np
import qt
import SimpleITK as sitk
import slicer
from SAMConvexLib.process import temporaryFolder
from slicer.i18n import tr as _

# Of the screen, at most.
SCREEN_SHARE = 0.9


def hasPage(node):
    """True for a node that holds a report's page."""
    return node is not None and node.GetImageData() is not None


class ReportWindow:
    """A scrollable window with the page of a vtkMRMLVectorVolumeNode and a button that saves it.

    The page is shown as it was when the window was opened, whatever becomes of the node.
    """

    def __init__(self, node):
        self._name = node.GetName()
        self._page = np.ascontiguousarray(slicer.util.arrayFromVolume(node)[0])
        path = temporaryFolder() / "page.png"
        writePage(self._page, path)
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.setWindowTitle(self._name)
        picture = qt.QLabel()
        picture.setPixmap(qt.QPixmap(str(path)))
        path.unlink()
        path.parent.rmdir()
        area = qt.QScrollArea()
        area.setWidget(picture)
        self.saveButton = qt.QPushButton(_("Save as..."))
        self.saveButton.connect("clicked(bool)", self.onSaveButton)
        layout = qt.QVBoxLayout(self.dialog)
        layout.addWidget(area)
        layout.addWidget(self.saveButton)
        available = qt.QApplication.primaryScreen().availableGeometry
        rows, columns = self._page.shape[:2]
        width = min(columns + 60, int(SCREEN_SHARE * available.width()))
        height = min(rows + 90, int(SCREEN_SHARE * available.height()))
        self.dialog.resize(width, height)
        self.dialog.show()

    def onSaveButton(self, checked=False):
        path = qt.QFileDialog.getSaveFileName(
            self.dialog, _("Save the report page"), f"{self._name}.png", _("Pictures (*.png *.jpg *.tif)")
        )
        if not path:
            return
        try:
            writePage(self._page, path)
        except RuntimeError:
            slicer.util.errorDisplay(
                _("{path} could not be written; choose a folder that can be, and a name ending in .png.").format(
                    path=path
                )
            )


def writePage(page, path):
    """Write (rows, columns, 3) uint8 as a picture; RuntimeError where that cannot be done."""
    sitk.WriteImage(sitk.GetImageFromArray(page, isVector=True), str(path))
