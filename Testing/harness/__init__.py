"""A stand-in for the 3D Slicer application: real MRML, PySide6 with PythonQt's manners, rendered views.

Unmodified scripted modules load, are clicked and photographed in it, without a display::

    from harness import load_module, start

    app = start()
    module = load_module("SAMConvexRegistration/SAMConvexRegistration.py")
    widget = module.widgetRepresentation().self()

Start it before anything imports Qt or VTK. ``python -m harness`` shows the same window on a desktop.
"""

from __future__ import annotations

from .environment import unavailable_reason
from .startup import start

__all__ = ["load_module", "start", "unavailable_reason", "wait_until"]


def load_module(path):
    """Load one scripted module file into the running application; see :func:`harness.modules.load_module`."""
    from .modules import load_module as load

    return load(path)


def wait_until(condition, seconds=10.0, message="the condition did not come true"):
    """Run the event loop until ``condition()`` is true; see :func:`harness.waiting.wait_until`."""
    from .waiting import wait_until as wait

    wait(condition, seconds, message)
