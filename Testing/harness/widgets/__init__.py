"""Stand-ins for the ctk and qMRML widgets that our .ui files and modules use, under the names Slicer has them."""

from __future__ import annotations

import sys
import types
from xml.etree import ElementTree

import slicer
from PySide6 import QtCore, QtUiTools

from . import ctk, mrml
from .placeholder import placeholder_class
from .ui_file import connect_mrml, prepare_ui


def install() -> None:
    """Provide the module ``ctk``, put the widget classes into ``slicer``, and teach Qt's .ui loader all of them."""
    for cls in (*ctk.CLASSES, *mrml.CLASSES):
        _add_setters(cls)
    module = types.ModuleType("ctk")
    for cls in ctk.CLASSES:
        setattr(module, cls.__name__, cls)
    module.__getattr__ = _unknown("ctk")
    sys.modules["ctk"] = module
    for cls in mrml.CLASSES:
        setattr(slicer, cls.__name__, cls)
    slicer.__getattr__ = _unknown("qMRML", "qSlicer")
    mrml.install_helpers()

    import qt

    qt.QUiLoader = _loader_class()


def _unknown(*prefixes):
    """Classes nobody wrote a stand-in for become gray, labeled placeholders."""

    def get(name):
        if name.startswith(prefixes):
            return placeholder_class(name)
        raise AttributeError(name)

    return get


def _loader_class():
    class QUiLoader(QtUiTools.QUiLoader):
        """Knows the stand-ins, and every other custom class as a placeholder."""

        def load(self, file, parent=None):
            content = bytes(file.readAll())
            file.close()
            root, connections = prepare_ui(content)
            for name in {w.get("class") for w in root.iter("widget")}:
                if name.startswith(("ctk", "qMRML", "qSlicer")):
                    self.registerCustomWidget(_stand_in(name))
            buffer = QtCore.QBuffer()
            buffer.setData(ElementTree.tostring(root))
            buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
            widget = super().load(buffer, parent)
            if widget is not None:
                connect_mrml(widget, connections)
            return widget

    return QUiLoader


def _stand_in(name):
    known = {cls.__name__: cls for cls in (*ctk.CLASSES, *mrml.CLASSES)}
    return known.get(name) or placeholder_class(name)


def _add_setters(cls):
    """C++ has a setter function beside every property; ``setNodeTypes`` works as ``nodeTypes =`` does."""
    for name, value in list(vars(cls).items()):
        setter = "set" + name[0].upper() + name[1:]
        if isinstance(value, QtCore.Property) and not hasattr(cls, setter):
            setattr(cls, setter, lambda self, new, _name=name: setattr(self, _name, new))
