"""Choices that panels offer and the engine understands."""

from enum import Enum

from slicer.i18n import tr as _


class Device(Enum):
    """Where the engine computes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"

    def label(self):
        return {Device.AUTO: _("Automatic"), Device.CPU: _("CPU"), Device.CUDA: _("NVIDIA GPU")}[self]


class Mode(Enum):
    """Accuracy against time."""

    STABLE = "stable"
    FAST = "fast"

    def label(self):
        return {Mode.STABLE: _("Accurate"), Mode.FAST: _("Fast")}[self]
