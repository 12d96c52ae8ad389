"""What must be set before Qt and VTK are imported, and which system libraries they need."""

from __future__ import annotations

import ctypes
import os
import sys

# The Debian packages are listed once, in Testing/system_packages.sh.
REQUIRED_LIBRARIES = (
    "libEGL.so.1",
    "libGL.so.1",
    "libglib-2.0.so.0",
    "libxkbcommon.so.0",
    "libdbus-1.so.3",
    "libfontconfig.so.1",
)

SETUP_COMMAND = "Testing/system_packages.sh"


def prepare(desktop: bool = False) -> None:
    """Choose off-screen rendering, and an off-screen Qt unless the window is to be shown on a desktop."""
    if sys.platform.startswith("linux"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    if not desktop:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    # PythonQt's enumerations are integers; PySide6 makes them so when told before its first import.
    os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "0x02")
    # The pictures and the positions that tests click must not depend on the user's desktop.
    os.environ.setdefault("QT_STYLE_OVERRIDE", "Fusion")


def missing_libraries() -> list[str]:
    """Names of required system libraries that cannot be loaded (always empty outside Linux)."""
    if not sys.platform.startswith("linux"):
        return []
    missing = []
    for name in REQUIRED_LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    return missing


def unavailable_reason() -> str | None:
    """One sentence that says why the application cannot start and the one command that helps, or None."""
    try:
        import PySide6  # noqa: F401
        import slicer  # noqa: F401
    except ImportError as error:
        return f"{error.name or error} is not installed; run: pip install -r Testing/harness/requirements.txt"
    missing = missing_libraries()
    if missing:
        return f"system libraries are missing ({', '.join(missing)}); run: {SETUP_COMMAND}"
    return None
