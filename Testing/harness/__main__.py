"""Show the application window on a desktop, or photograph it: ``python -m harness [options]``."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness", description=__doc__)
    parser.add_argument("--module", default="SAMConvexRegistration", help="module to open, by name or file")
    parser.add_argument("--load", nargs="*", default=[], metavar="FILE", help="images, scenes, points ... to load")
    parser.add_argument("--picture", metavar="PNG", help="photograph the window instead of showing it")
    parser.add_argument("--size", default="1440x900", help="window size (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="scaling of texts and widgets, such as 1.25")
    options = parser.parse_args(arguments)

    if options.scale != 1.0:
        os.environ["QT_SCALE_FACTOR"] = str(options.scale)
    desktop = not options.picture
    reason = _desktop_unavailable_reason() if desktop else None
    if reason:
        print(reason, file=sys.stderr)
        return 2

    from .startup import start, stop

    try:
        app = start(desktop=desktop, testing=not desktop)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2

    import slicer

    from .modules import load_module, module_file
    from .window import MainWindow

    window = MainWindow.instance()
    width, height = (int(value) for value in options.size.split("x"))
    window.resize(width, height)
    window.show()
    for name in sorted({"SAMConvexRegistration", "SAMLandmark"}):
        if os.path.isfile(module_file(name)):
            load_module(module_file(name))
    name = options.module
    if os.path.isfile(name):
        name = load_module(name).objectName
    slicer.util.selectModule(name)
    for path in options.load:
        window.load(path)
    window.fit()
    app.processEvents()
    if options.picture:
        from .pictures import photograph

        photograph(window, options.picture)
        return 0
    app.setQuitOnLastWindowClosed(True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C in the terminal ends it
    status = app.exec()
    stop()
    return status


def _desktop_unavailable_reason() -> str | None:
    """Why no window can be shown on this machine, with what helps; None when one can."""
    if not sys.platform.startswith("linux"):
        return None
    if os.environ.get("WAYLAND_DISPLAY"):
        return None
    if not os.environ.get("DISPLAY"):
        return "There is no display here. To photograph the window instead: make app ARGS='--picture window.png'"
    try:
        ctypes.CDLL("libxcb-cursor.so.0")
    except OSError:
        return "Qt needs one more system library: sudo apt-get install libxcb-cursor0"
    return None


if __name__ == "__main__":
    sys.exit(main())
