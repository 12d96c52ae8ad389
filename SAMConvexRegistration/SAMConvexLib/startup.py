"""What a module does once Slicer has started."""

import logging

import slicer


def whenStarted(*steps):
    """Run functions after the start of Slicer, or now where it is over; one that fails does not keep the next from it.

    ``startupCompleted()`` comes once: a module that is loaded later (Extension Wizard, Python console) never gets it.
    """

    def run():
        for step in steps:
            try:
                step()
            except Exception:
                logging.exception("SAMConvex: a step at the start of Slicer failed")

    # The main window is first shown when everything is loaded, and that showing is what emits the signal.
    window = slicer.util.mainWindow()
    if window is not None and window.visible:
        run()
    else:
        slicer.app.connect("startupCompleted()", run)
