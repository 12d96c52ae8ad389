"""Choices of the panel."""

from enum import Enum

from slicer.i18n import tr as _


class Mode(Enum):
    """Accuracy against time."""

    STABLE = "stable"
    FAST = "fast"

    def label(self):
        return {Mode.STABLE: _("Accurate"), Mode.FAST: _("Fast")}[self]
