"""Installs the extension as Slicer's CMake macros do: what the lists name, all modules into one flat folder."""

from __future__ import annotations

import compileall
import re
import shutil
from pathlib import Path

MODULES = ("SAMConvexRegistration", "SAMLandmark")


def listed(text: str, name: str, module: str) -> set[str]:
    """The entries of a CMakeLists.txt's ``set(NAME ...)``, comments left out and the module's name put in."""
    block = re.search(rf"set\({name}\s(.*?)\)", text, re.S)
    lines = [line.split("#")[0].strip() for line in block.group(1).splitlines()] if block else []
    return {line.replace("${MODULE_NAME}", module) for line in lines if line}


def install(repository: Path, folder: Path) -> Path:
    """Copy both modules into ``folder``, as slicerMacroBuildScriptedModule does, byte-compile, and return it.

    Scripts and resources keep their paths below the module's source folder; there is no folder per module, so that a
    resource of one would replace a resource of the same name of the other.
    """
    taken: set[str] = set()
    for module in MODULES:
        source = repository / module
        text = (source / "CMakeLists.txt").read_text(encoding="utf-8")
        for name in listed(text, "MODULE_PYTHON_SCRIPTS", module) | listed(text, "MODULE_PYTHON_RESOURCES", module):
            if name in taken:
                raise ValueError(f"{name} is installed by two modules")
            taken.add(name)
            _copy(source / name, folder / name)
        for name in listed(text, "MODEL_FILES", module):
            _copy(repository / "Resources" / "Models" / name, folder / "Resources" / "Models" / name)
    compileall.compile_dir(folder, quiet=1)
    return folder


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
