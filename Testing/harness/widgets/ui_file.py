"""What PySide6's .ui loader cannot read of a Slicer .ui file is prepared here; the file on disk stays as it is."""

from __future__ import annotations

from xml.etree import ElementTree

from PySide6 import QtCore


def prepare_ui(content):
    """(tree for PySide6, connections taken out).

    Connections with MRML types in their signatures are unknown to PySide6: the stand-in of qMRMLWidget hands the scene
    on by itself. Sets and enumerations of ctk and Slicer classes are passed as texts.
    """
    root = ElementTree.fromstring(content)
    taken = []
    for connections in root.iter("connections"):
        for connection in list(connections):
            entry = {child.tag: (child.text or "") for child in connection}
            if "vtkMRML" in entry.get("signal", "") or "vtkMRML" in entry.get("slot", ""):
                connections.remove(connection)
                taken.append(entry)
    for widget in root.iter("widget"):
        if not widget.get("class", "").startswith(("ctk", "qMRML", "qSlicer")):
            continue
        for prop in widget.findall("property"):
            for value in prop:
                if value.tag in ("set", "enum") and not (value.text or "").startswith("Q"):
                    value.tag = "string"
    return root, taken


def check_connections(widget, connections):
    """Raise for a connection that Slicer could not make: the sender or the receiver does not exist."""
    names = {child.property("objectName") for child in (widget, *widget.findChildren(QtCore.QObject))}
    for entry in connections:
        for role in ("sender", "receiver"):
            if entry.get(role) not in names:
                raise ValueError(f"the .ui file connects {entry.get(role)!r}, which does not exist")
