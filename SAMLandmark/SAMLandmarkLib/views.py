"""Template and query side by side: two views that move together by anatomy, and put back what was shown before."""

import numpy as np
import slicer
import vtk
from SAMConvexLib.viewstate import ViewState

TEMPLATE_VIEW, QUERY_VIEW = "Red", "Yellow"
ORIENTATION = "Axial"


class SideBySide:
    """The template volume left, a query volume right; scrolling and zooming in one moves the other.

    The right view shows what the matched points say lies opposite: each point pulls with the inverse square of its
    distance. Without points both views show the same world position.

    Args:
        layoutNode: the scene's layout node.
    """

    def __init__(self, templateVolume, queryVolume, pairs=()):
        self._before = ViewState()
        self._layoutBefore = None
        self._orientations = {}
        self._pairs = (np.zeros((0, 3)), np.zeros((0, 3)))
        self._moving = False
        self._observations = []
        self.templateVolume, self.queryVolume = templateVolume, queryVolume
        self.linked = True
        self.setPairs(pairs)

    def enter(self):
        """Arrange the views."""
        layout = layoutNode()
        self._layoutBefore = layout.GetViewArrangement()
        layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
        for name, volume in ((TEMPLATE_VIEW, self.templateVolume), (QUERY_VIEW, self.queryVolume)):
            node, logic = sliceNode(name), sliceLogic(name)
            self._orientations[name] = node.GetOrientation()
            composite = logic.GetSliceCompositeNode()
            composite.SetLinkedControl(False)
            composite.SetForegroundVolumeID(None)
            composite.SetBackgroundVolumeID(volume.GetID() if volume is not None else None)
            node.SetOrientation(ORIENTATION)
            logic.FitSliceToBackground()
            tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event, name=name: self._follow(name))
            self._observations.append((node, tag))
        return self

    def leave(self):
        """Everything as before."""
        for node, tag in self._observations:
            node.RemoveObserver(tag)
        self._observations = []
        for name, orientation in self._orientations.items():
            if sliceNode(name) is not None:
                sliceNode(name).SetOrientation(orientation)
        if self._layoutBefore is not None:
            layoutNode().SetViewArrangement(self._layoutBefore)
        self._before.restore()

    def setVolumes(self, templateVolume, queryVolume, pairs):
        """Other volumes in the two views."""
        self.templateVolume, self.queryVolume = templateVolume, queryVolume
        self.setPairs(pairs)
        if self._observations:
            for name, volume in ((TEMPLATE_VIEW, templateVolume), (QUERY_VIEW, queryVolume)):
                identifier = volume.GetID() if volume is not None else None
                sliceLogic(name).GetSliceCompositeNode().SetBackgroundVolumeID(identifier)

    def setPairs(self, pairs):
        """[(template position, query position)] world RAS mm of points that correspond."""
        if len(pairs):
            first, second = zip(*pairs, strict=True)
            self._pairs = np.array(first, dtype=float), np.array(second, dtype=float)
        else:
            self._pairs = np.zeros((0, 3)), np.zeros((0, 3))

    def opposite(self, position, toQuery=True):
        """World point of the other volume that corresponds to a world point, as far as the pairs tell."""
        source, target = self._pairs if toQuery else self._pairs[::-1]
        return opposite(np.asarray(position, dtype=float), source, target)

    def jump(self, position, inQuery=None):
        """Center both views: on a template position, and on a query position (None: the opposite one)."""
        self._moving = True
        try:
            other = self.opposite(position) if inQuery is None else inQuery
            for name, place in ((TEMPLATE_VIEW, position), (QUERY_VIEW, other)):
                sliceNode(name).JumpSliceByCentering(*[float(value) for value in place])
        finally:
            self._moving = False

    def _follow(self, name):
        if self._moving or not self.linked:
            return
        self._moving = True
        try:
            leader = sliceNode(name)
            follower = sliceNode(QUERY_VIEW if name == TEMPLATE_VIEW else TEMPLATE_VIEW)
            place = self.opposite(centerOf(leader), toQuery=name == TEMPLATE_VIEW)
            fields = leader.GetFieldOfView()[0], follower.GetFieldOfView()
            if abs(fields[0] - fields[1][0]) > 1e-3 * fields[0]:
                scale = fields[0] / fields[1][0]
                follower.SetFieldOfView(fields[0], fields[1][1] * scale, fields[1][2])
            follower.JumpSliceByCentering(*[float(value) for value in place])
        finally:
            self._moving = False


def opposite(position, source, target):
    """A point carried by pairs (N, 3): the mean of their displacements, near ones counting more."""
    if not len(source):
        return position
    distance = np.linalg.norm(source - position, axis=1)
    weight = 1.0 / (distance**2 + 1.0)
    return position + (weight[:, None] * (target - source)).sum(0) / weight.sum()


def showVolume(volume):
    """All slice views of the layout show a volume; one that shows it already, alone or blended, keeps its layers."""
    for logic in sliceLogics():
        composite = logic.GetSliceCompositeNode()
        if logic.GetSliceNode().IsMappedInLayout() and volume not in volumesOf(logic):
            composite.SetForegroundOpacity(0.0)
            composite.SetBackgroundVolumeID(volume.GetID())
            logic.FitSliceToBackground()


def showPlace(volume, position):
    """Show a world point (RAS mm) of a volume in all slice views of the layout; they change to that volume."""
    showVolume(volume)
    for logic in sliceLogics():
        node = logic.GetSliceNode()
        if node.IsMappedInLayout():
            node.JumpSliceByOffsetting(*[float(value) for value in position])
            if not isInField(node, position):
                node.JumpSliceByCentering(*[float(value) for value in position])


def isInField(node, position):
    """Whether a slice view's field of view holds the foot of a world point (RAS mm) on its plane."""
    toView = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(node.GetSliceToRAS(), toView)
    place = toView.MultiplyPoint((*[float(value) for value in position], 1.0))
    # The origin of the field is where its middle lies in the slice.
    return all(abs(place[axis] - node.GetXYZOrigin()[axis]) <= node.GetFieldOfView()[axis] / 2 for axis in range(2))


def sliceLogics():
    """Logics of all slice views, without Qt."""
    logics = slicer.app.applicationLogic().GetSliceLogics()
    found = [logics.GetItemAsObject(number) for number in range(logics.GetNumberOfItems())] if logics else []
    return [logic for logic in found if logic.GetSliceNode() is not None]


def volumesOf(logic):
    """The volumes that a slice view visibly shows, its background first."""
    composite = logic.GetSliceCompositeNode()
    identifiers = [composite.GetBackgroundVolumeID()]
    if composite.GetForegroundOpacity() > 0:
        identifiers.append(composite.GetForegroundVolumeID())
    found = [slicer.mrmlScene.GetNodeByID(identifier) for identifier in identifiers if identifier]
    return [node for node in found if node is not None]


def sliceLogic(name):
    """Logic of a slice view by its name."""
    return next((logic for logic in sliceLogics() if logic.GetSliceNode().GetLayoutName() == name), None)


def sliceNode(name):
    logic = sliceLogic(name)
    return logic.GetSliceNode() if logic is not None else None


def layoutNode():
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")


def centerOf(node):
    """World RAS mm of the middle of a slice view."""
    matrix = node.GetSliceToRAS()
    return np.array([matrix.GetElement(row, 3) for row in range(3)])
