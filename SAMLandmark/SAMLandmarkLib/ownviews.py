"""Points are drawn only where the image they belong to is shown: elsewhere their place means nothing. No Qt."""

import json

import slicer
import vtk

from .views import layoutNode, sliceLogics, volumesOf

# What the display of the points was before, kept with it: a scene may be saved meanwhile.
BEFORE_ATTRIBUTE = "SAMLandmark.DisplayBefore"


class OwnViews:
    """Follows the views and shows each point list in those of its image only, until ``release()``.

    Args:
        belonging: callable that gives [(markups node, volume node or None)]; the first pair is also drawn in 3D views.
            A list without a volume is left alone.
    """

    def __init__(self, belonging):
        self._belonging = belonging
        self._observations = []
        self._confined = []

    def follow(self):
        """Confine the points now and after every change of the views."""
        if not self._observations:
            watched = [layoutNode(), *(logic.GetSliceCompositeNode() for logic in sliceLogics())]
            self._observations = [
                (node, node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: self.update()))
                for node in watched
                if node is not None
            ]
        self.update()

    def update(self):
        """Confine the points as the views are now."""
        if not self._observations:
            return
        pairs = {}
        for markups, volume in self._belonging():
            if markups is not None and volume is not None:
                pairs.setdefault(markups, volume)
        first = next(iter(pairs), None)
        self._restore(keep=[markups.GetDisplayNode() for markups in pairs])
        for markups, volume in pairs.items():
            if markups.GetDisplayNode() is not None:
                self._confine(markups.GetDisplayNode(), volume, markups is first)

    def release(self):
        """Every point list is drawn as before."""
        for node, tag in self._observations:
            node.RemoveObserver(tag)
        self._observations = []
        self._restore()

    def _confine(self, display, volume, inThreeD):
        shown = [logic for logic in sliceLogics() if logic.GetSliceNode().IsMappedInLayout()]
        solids = [view for view in slicer.util.getNodesByClass("vtkMRMLViewNode") if view.IsMappedInLayout()]
        own = [logic.GetSliceNode().GetID() for logic in shown if volume in (volumesOf(logic) or [volume])]
        own += [view.GetID() for view in solids if inThreeD]
        anyImage = any(volumesOf(logic) for logic in shown)
        if not anyImage or len(own) == len(shown) + len(solids):
            _putBack(display)
            return
        if display.GetAttribute(BEFORE_ATTRIBUTE) is None:
            before = {"views": list(display.GetViewNodeIDs() or ()), "visible": bool(display.GetVisibility())}
            display.SetAttribute(BEFORE_ATTRIBUTE, json.dumps(before))
        self._confined = [*(known for known in self._confined if known is not display), display]
        # No view at all would mean every view.
        visible = json.loads(display.GetAttribute(BEFORE_ATTRIBUTE))["visible"] and bool(own)
        _draw(display, own, visible)

    def _restore(self, keep=()):
        for display in [known for known in self._confined if known not in keep]:
            _putBack(display)
            self._confined.remove(display)


def _putBack(display):
    before = display.GetAttribute(BEFORE_ATTRIBUTE)
    if before is None:
        return
    before = json.loads(before)
    display.RemoveAttribute(BEFORE_ATTRIBUTE)
    _draw(display, before["views"], before["visible"])


def _draw(display, identifiers, visible):
    if sorted(display.GetViewNodeIDs() or ()) != sorted(identifiers):
        with slicer.util.NodeModify(display):
            display.RemoveAllViewNodeIDs()
            for identifier in identifiers:
                display.AddViewNodeID(identifier)
    if bool(display.GetVisibility()) != visible:
        display.SetVisibility(visible)
