"""The extension as Slicer installs it: one flat folder with what the CMake lists name and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from harness.installation import MODULES, install

# Runs in a process of its own: the stand-in application of the tests has loaded the repository's modules.
SCRIPT = """
import json, subprocess, sys
from pathlib import Path

installed, site, full = Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3] == "full"
from harness import load_module, start
app = start()
if site:
    # Pip's packages come before the extension's folder in Slicer, in this process and in those it starts.
    Path(app.sitePackages).rmdir()
    Path(app.sitePackages).symlink_to(site)
    sys.path.insert(0, site)
import slicer
from harness.window import MainWindow
MainWindow.instance()
for name in ("SAMConvexRegistration", "SAMLandmark"):
    module = load_module(installed / f"{name}.py")
    module.widgetRepresentation().enter()
    assert not module.icon.isNull(), name

from SAMConvexLib import dependencies
from SAMConvexLib.process import engineCommand, engineModule
if not full:
    dependencies.torchVersion = lambda: None
for name in ("SAMConvexRegistration", "SAMLandmark"):
    slicer.selfTests[name](msec=0)
assert engineModule("samconvex.memory").available_memory_gib() > 0
engineModule("samconvex.lesions.assessment")


def engine(*arguments):
    ended = subprocess.run(engineCommand(arguments), capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


print(json.dumps({
    "version": engine("--version"),
    "weights": dict(line.split(": ") for line in engine("weights", "verify").splitlines()),
    "path": engine("weights", "path").strip(),
    "elsewhere": sorted(
        name
        for name, module in sys.modules.items()
        if name.startswith(("SAM", "samconvex"))
        and installed not in Path(getattr(module, "__file__", None) or "/").resolve().parents
        and name != "SampleData"
    ),
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory, repository):
    return install(repository, tmp_path_factory.mktemp("Slicer") / "lib" / "qt-scripted-modules")


def test_the_two_modules_share_the_folder_without_replacing_each_others_files(installed):
    names = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert {f"{module}.py" for module in MODULES} | {"SAMConvexLib/startengine.py", "samconvex/__main__.py"} <= names
    assert {f"Resources/UI/{module}.ui" for module in MODULES} <= names
    assert not [name for name in names if name.startswith(("Testing", "docs", "samconvex/training"))]


@pytest.fixture
def other_samconvex(tmp_path):
    """Pip's folder with another samconvex in it, which only says that it is the wrong one."""
    package = tmp_path / "site" / "samconvex"
    package.mkdir(parents=True)
    for name in ("__init__", "__main__"):
        (package / f"{name}.py").write_text("raise SystemExit('the wrong samconvex')")
    return package.parent


def run(installed, repository, folder, full, site=""):
    import json

    environment = {**os.environ, "PYTHONPATH": str(repository / "Testing")}
    script = folder / "installed_test.py"
    script.write_text(SCRIPT)
    arguments = [str(installed), str(site), "full" if full else "quick"]
    ended = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=folder,
        env=environment,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    return json.loads(ended.stdout.splitlines()[-1])


def check(found, installed):
    assert found["elsewhere"] == []
    assert found["version"].startswith("samconvex ")
    shipped = {path.stem.replace("_", "-") for path in (installed / "Resources" / "Models").glob("*.pt")}
    assert found["weights"] == dict.fromkeys(shipped, "ok") and len(shipped) > 3
    assert found["path"].startswith(str(installed))


def test_the_installed_modules_find_weights_and_engine_where_pip_has_installed_another_samconvex(
    app, installed, repository, tmp_path, other_samconvex
):
    check(run(installed, repository, tmp_path, full=False, site=other_samconvex), installed)


@pytest.mark.slow
@pytest.mark.parametrize("pip", [False, True], ids=["alone", "beside pip's"])
def test_the_installed_self_tests_pass(app, installed, repository, tmp_path, other_samconvex, pip):
    check(run(installed, repository, tmp_path, full=True, site=other_samconvex if pip else ""), installed)
