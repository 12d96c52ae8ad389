"""The diameters of the selected lesion as two line markups in the views, to be dragged. No Qt."""

import numpy as np
import slicer
import vtk
from SAMConvexLib import nodes
from slicer.i18n import tr as _

from .course import VOLUME, nodeOf, placeOf

LONGEST, SHORT = "longest_line", "short_line"
ROLES = {LONGEST: "SAMLandmark.LongestDiameter", SHORT: "SAMLandmark.ShortAxis"}
COLORS = {LONGEST: (1.0, 0.9, 0.2), SHORT: (0.2, 0.9, 1.0)}
# Where a measurement begins that nobody suggested, mm.
STARTING_MM = {LONGEST: 20.0, SHORT: 10.0}


class MeasureLines:
    """Two lines that follow one reading, and tell when somebody drags them.

    Args:
        onDragged: called with {LONGEST or SHORT: [[x, y, z], [x, y, z]] LPS mm of the time point's image}.
    """

    def __init__(self, onDragged):
        self._onDragged = onDragged
        self._observations = []
        self._updating = False
        self._table = self._visit = None

    def show(self, table, visit, reading):
        """Draw a reading's lines; those that it has not are emptied."""
        self._updating = True
        try:
            if self._table is not table:
                self.forget()
            self._table, self._visit = table, visit
            for kind in ROLES:
                line = getattr(reading, kind) if reading is not None else None
                node = self.node(kind, create=line is not None)
                if node is not None:
                    self._put(node, None if line is None else [placeOf(table, visit, point) for point in line])
        finally:
            self._updating = False

    def hide(self):
        """No lines in the views."""
        if self._table is not None:
            self.show(self._table, self._visit, None)

    def forget(self):
        """Stop following; the nodes go with the scene or stay hidden."""
        for node, tag in self._observations:
            node.RemoveObserver(tag)
        self._observations = []
        self._table = self._visit = None

    def node(self, kind, create=False):
        """The line node of a kind, or None."""
        if self._table is None:
            return None
        node = self._table.GetNodeReference(ROLES[kind])
        if node is None and create:
            names = {LONGEST: _("Longest diameter"), SHORT: _("Short axis")}
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", names[kind])
            # The course keeps the lines; these only show those of one reading.
            node.SetSaveWithScene(False)
            node.SetHideFromEditors(True)
            node.CreateDefaultDisplayNodes()
            display = node.GetDisplayNode()
            display.SetSelectedColor(*COLORS[kind])
            display.SetColor(*COLORS[kind])
            display.SetTextScale(2.5)
            # Two labels at one place would cover each other; the short axis is known by its color.
            display.SetPropertiesLabelVisibility(kind == LONGEST)
            display.SetPointLabelsVisibility(False)
            self._table.SetNodeReferenceID(ROLES[kind], node.GetID())
        if node is not None and node not in [known for known, _tag in self._observations]:
            event = slicer.vtkMRMLMarkupsNode.PointModifiedEvent
            self._observations.append((node, node.AddObserver(event, lambda caller, event: self._dragged(caller))))
        return node

    def drawn(self):
        """The line nodes that have a line."""
        found = [self.node(kind) for kind in ROLES] if self._table is not None else []
        return [node for node in found if node is not None and node.GetNumberOfControlPoints()]

    @staticmethod
    def _put(node, line):
        """``line`` in world RAS mm, or None: a line without points is drawn nowhere, whatever its visibility."""
        if line is None:
            if node.GetNumberOfControlPoints():
                node.RemoveAllControlPoints()
            return
        for index, place in enumerate(line):
            if index < node.GetNumberOfControlPoints():
                node.SetNthControlPointPositionWorld(index, *[float(value) for value in place])
            else:
                node.AddControlPointWorld(vtk.vtkVector3d(*[float(value) for value in place]))

    def _dragged(self, node):
        if self._updating or self._table is None or node.GetNumberOfControlPoints() != 2:
            return
        volume = nodeOf(self._table, self._visit, VOLUME)
        frame = np.eye(4) if volume is None else nodes.exportFrame(volume)[1]
        drawn = {}
        for kind in ROLES:
            line = self.node(kind)
            if line is not None and line.GetNumberOfControlPoints() == 2:
                drawn[kind] = nodes.lpsInFrame(nodes.worldPoints(line)[1], frame).round(3).tolist()
        self._onDragged(drawn)


def length(line):
    """mm between a line's end points."""
    return float(np.linalg.norm(np.subtract(*np.asarray(line, dtype=float))))


def scaled(line, millimeters):
    """A line of another length about the same middle; one without a length stays as it is."""
    line = np.asarray(line, dtype=float)
    before = length(line)
    if before < 1e-6 or millimeters is None or millimeters <= 0:
        return line.tolist()
    middle = line.mean(0)
    return (middle + (line - middle) * (millimeters / before)).round(3).tolist()


def starting(position):
    """Lines to begin a measurement with, around a point (3,) LPS mm: across the image, one behind the other."""
    half = {kind: millimeters / 2 for kind, millimeters in STARTING_MM.items()}
    axes = {LONGEST: np.array([1.0, 0.0, 0.0]), SHORT: np.array([0.0, 1.0, 0.0])}
    place = np.asarray(position, dtype=float)
    return {
        kind: [(place - axes[kind] * half[kind]).tolist(), (place + axes[kind] * half[kind]).tolist()] for kind in ROLES
    }
