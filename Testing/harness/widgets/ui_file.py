"""What PySide6's .ui loader cannot read of a Slicer .ui file is prepared here; the file on disk stays as it is."""

from __future__ import annotations

from xml.etree import ElementTree

from PySide6 import QtCore


def prepare_ui(content):
    """(tree for PySide6, connections taken out).

    Connections with MRML types in their signatures are unknown to PySide6: ``connect_mrml`` makes them. Sets and
    enumerations of ctk and Slicer classes are passed as texts.
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


def connect_mrml(widget, connections):
    """Make the connections taken out: scenes and nodes reach exactly those widgets that the .ui file names.

    Raises ValueError for one that Slicer could not make: the sender, the receiver, the signal or the slot is missing.
    """
    named = {child.property("objectName"): child for child in (widget, *widget.findChildren(QtCore.QObject))}
    for entry in connections:
        ends = []
        for role, member in (("sender", "signal"), ("receiver", "slot")):
            if entry.get(role) not in named:
                raise ValueError(f"the .ui file connects {entry.get(role)!r}, which does not exist")
            end = getattr(named[entry[role]], entry[member].split("(")[0], None)
            if end is None:
                raise ValueError(f"the .ui file connects {entry[role]!r} by {entry[member]!r}, which it does not have")
            ends.append(end)
        ends[0].connect(ends[1])
