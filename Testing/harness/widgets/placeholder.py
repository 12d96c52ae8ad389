"""What a widget class without a stand-in looks like: a gray box with its name."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets

_classes = {}


class Placeholder(QtWidgets.QFrame):
    """Takes any call and paints the name of the class it stands for."""

    def setMRMLScene(self, scene):
        pass

    def paintEvent(self, event):
        painter = QtGui.QPainter(self)
        painter.fillRect(self.rect(), QtGui.QColor(200, 200, 200))
        painter.setPen(QtGui.QColor(90, 90, 90))
        painter.drawText(self.rect(), QtCore.Qt.AlignmentFlag.AlignCenter, type(self).__name__)
        painter.end()


def placeholder_class(name):
    if name not in _classes:
        _classes[name] = type(name, (Placeholder,), {"__doc__": f"Placeholder for {name}."})
    return _classes[name]
