"""A button that places points on one image: the views show it, and every click in them is a point. No Qt."""

import slicer
import vtk
from slicer.i18n import tr as _

from .views import showVolume


class Placing:
    """Bridges a checkable button and Slicer's place mode, in both directions.

    Args:
        volume: callable that gives the image to place the points on, or None.
        markups: callable that gives the point list they go to, made when there is none.
        missing: what to do first, where there is no image yet.
    """

    def __init__(self, button, volume, markups, missing):
        self._button, self._volume, self._markups, self._missing = button, volume, markups, missing
        self._observation = None
        button.connect("toggled(bool)", self._toggled)

    @property
    def isOn(self):
        return self._observation is not None

    def start(self):
        """Show the image and place points until the mode is left."""
        volume = self._volume()
        if volume is None:
            return
        showVolume(volume)
        logic, mode = slicer.modules.markups.logic(), interactionNode()
        logic.SetActiveList(self._markups())
        logic.StartPlaceMode(True)
        self._observation = mode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: self._modeChanged())
        self.update()

    def stop(self):
        """Clicks are clicks again."""
        if self._observation is None:
            self._check(False)
            return
        interactionNode().RemoveObserver(self._observation)
        self._observation = None
        if interactionNode().GetCurrentInteractionMode() == slicer.vtkMRMLInteractionNode.Place:
            interactionNode().SwitchToViewTransformMode()
        self.update()

    def update(self):
        """Button as the mode and the choices are."""
        self._check(self.isOn)
        volume = self._volume()
        self._button.enabled = self.isOn or volume is not None
        if self.isOn:
            self._button.toolTip = _("Click in the views; press this again, or the right mouse button, when done.")
        elif volume is None:
            self._button.toolTip = self._missing
        else:
            self._button.toolTip = _("Show '{volume}' and place points in it with the mouse.").format(
                volume=volume.GetName()
            )

    def _modeChanged(self):
        if interactionNode().GetCurrentInteractionMode() != slicer.vtkMRMLInteractionNode.Place:
            self.stop()

    def _toggled(self, checked):
        self.start() if checked else self.stop()
        self._check(self.isOn)

    def _check(self, checked):
        wasBlocked = self._button.blockSignals(True)
        self._button.checked = checked
        self._button.blockSignals(wasBlocked)


def interactionNode():
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLInteractionNode")
