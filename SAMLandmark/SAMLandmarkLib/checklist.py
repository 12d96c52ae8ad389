"""A list of nodes of which any number can be checked."""

import qt
import slicer


class CheckList:
    """Bridges a QListWidget and node lists; Slicer's wrapper has no connector for it.

    Args:
        onChecked: called with the checked nodes after the user changed them.
        hint: what to do, shown while there is nothing to check.
    """

    def __init__(self, widget, onChecked, hint):
        self._widget, self._onChecked, self._hint = widget, onChecked, hint
        widget.wordWrap = True
        widget.connect("itemChanged(QListWidgetItem*)", self._changed)

    def show(self, offered, checked):
        """List nodes, some of them checked."""
        widget = self._widget
        known = [(item.data(qt.Qt.UserRole), item.text(), self._isChecked(item)) for item in self._items()]
        wanted = [(node.GetID(), node.GetName(), node in checked) for node in offered]
        if known == wanted and self._widget.count:
            return
        wasBlocked = widget.blockSignals(True)
        widget.clear()
        for identifier, name, isChecked in wanted:
            item = qt.QListWidgetItem(name)
            item.setData(qt.Qt.UserRole, identifier)
            item.setCheckState(qt.Qt.Checked if isChecked else qt.Qt.Unchecked)
            widget.addItem(item)
        if not wanted:
            item = qt.QListWidgetItem(self._hint)
            item.setFlags(qt.Qt.NoItemFlags)
            widget.addItem(item)
        widget.blockSignals(wasBlocked)

    def checked(self):
        """The checked nodes, in the order of the list."""
        found = [
            slicer.mrmlScene.GetNodeByID(item.data(qt.Qt.UserRole)) for item in self._items() if self._isChecked(item)
        ]
        return [node for node in found if node is not None]

    def setChecked(self, node, checked=True):
        """Check or uncheck a node as the user does."""
        for item in self._items():
            if item.data(qt.Qt.UserRole) == node.GetID():
                item.setCheckState(qt.Qt.Checked if checked else qt.Qt.Unchecked)

    def _items(self):
        every = [self._widget.item(row) for row in range(self._widget.count)]
        return [item for item in every if item.data(qt.Qt.UserRole)]

    @staticmethod
    def _isChecked(item):
        return item.checkState() == qt.Qt.Checked

    def _changed(self, item):
        self._onChecked(self.checked())


def scalarVolumes():
    """The scene's volumes that a user sees and that hold an image."""
    found = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [node for node in found if not node.GetHideFromEditors() and not node.IsA("vtkMRMLLabelMapVolumeNode")]
