"""Runs a module of the engine that lies beside this package: ``startengine.py MODULE [ARGUMENT ...]``.

Neither ``-m`` nor PYTHONPATH will do: the launcher of Slicer's interpreter puts its own folders, packages installed by
pip among them, before PYTHONPATH, and ``-m`` takes the working directory first. Another samconvex there would be run.
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parent), *(entry for entry in sys.path if entry and Path(entry) != here)]
    module = sys.argv[1]
    del sys.argv[1]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
