"""What an audit against Slicer's sources found: start-up, installation, packaging, folders, saving."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer
from modules import scene_builders as build

FAKE_ENGINE = str(Path(__file__).with_name("fake_engine.py"))
MODULES = ("SAMConvexRegistration", "SAMLandmark")


@pytest.fixture
def sample_data(app, monkeypatch):
    import SampleData

    monkeypatch.setattr(SampleData.SampleDataLogic, "sources", [])
    monkeypatch.setattr(SampleData, "files", {})
    return SampleData


@pytest.fixture
def load(load_scripted_module, repository):
    """Loads a module of this repository by name, its panel entered or not made."""
    return lambda name, **options: load_scripted_module(repository / name / f"{name}.py", **options)


# --- start ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("late", [False, True], ids=["at the start", "later"])
def test_the_samples_are_registered_whenever_the_module_is_loaded(load, sample_data, request, module, late):
    if late:
        request.getfixturevalue("main_window")
    load(module, enter=False)
    names = [source.sampleName for source in sample_data.SampleDataLogic.sources]
    assert (
        names == {"SAMConvexRegistration": ["SAMConvexChestPair"], "SAMLandmark": ["SAMConvexChestLandmarks"]}[module]
    )


def test_the_buttons_of_the_samples_bring_nodes_and_nothing_where_the_download_fails(load, sample_data):
    for module in MODULES:
        load(module, enter=False)
    logic = sample_data.SampleDataLogic()
    logic.registerCustomSampleDataSource(sampleName="CTChest", uris="chest", fileNames="c.nrrd", nodeNames="CTChest")
    assert logic.clickButton("SAMConvexChestPair") == logic.clickButton("SAMConvexChestLandmarks") == []
    sample_data.files["chest"] = lambda: build.volume("CTChest", build.smooth_array(), build.oblique())
    assert [node.GetName() for node in logic.clickButton("SAMConvexChestPair")] == ["CTChest", "CTChest deformed"]
    assert len(logic.clickButton("SAMConvexChestLandmarks")) == 3


def test_a_failing_step_of_the_start_does_not_keep_the_next_from_running(load, monkeypatch, caplog):
    import SampleData

    def broken(**description):
        raise RuntimeError("no samples today")

    monkeypatch.setattr(SampleData.SampleDataLogic, "registerCustomSampleDataSource", staticmethod(broken))
    before = observers_of_import()
    with caplog.at_level(logging.ERROR):
        load("SAMConvexRegistration", enter=False)
    # One of the step after the broken one, one of the panel.
    assert observers_of_import() == before + 2 and "no samples today" in caplog.text

    from SAMConvexLib.startup import whenStarted

    calls = []
    whenStarted(lambda: 1 / 0, lambda: calls.append(1))
    slicer.app.completeStartup()
    assert calls == [1]


def observers_of_import():
    return str(slicer.mrmlScene).count(f"Event: {slicer.vtkMRMLScene.EndImportEvent}")


# --- installation ---------------------------------------------------------------------------------------------------


@pytest.fixture
def without_torch(scene, app, monkeypatch):
    """SAMConvexLib.dependencies where torch is missing and the PyTorch extension is on the server."""
    from SAMConvexLib import dependencies

    manager = app.extensionsManagerModel()
    monkeypatch.setattr(dependencies, "torchVersion", lambda: None)
    monkeypatch.setattr(manager, "available", {"PyTorch"})
    yield dependencies
    manager.uninstallExtension("PyTorch")
    dependencies.setPending(False)


@pytest.mark.parametrize("interactive", [True, False])
def test_installing_the_extension_never_restarts_and_leaves_the_manager_as_it_was(
    without_torch, app, answers, interactive, monkeypatch
):
    app.setTestingEnabled(False)
    manager = app.extensionsManagerModel()
    monkeypatch.setattr(manager, "interactive", interactive)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: True)
    with pytest.raises(without_torch.DependencyError, match="save your work and restart"):
        without_torch.ensure()
    assert not app.restartRequested and manager.interactive is interactive and without_torch.isPending()
    # Pressed again before the restart: nothing is asked or installed a second time.
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: pytest.fail("asked again"))
    with pytest.raises(without_torch.DependencyError, match="not loaded"):
        without_torch.ensure()


def test_the_manager_is_put_back_where_it_fails(without_torch, app, monkeypatch):
    manager = app.extensionsManagerModel()

    def broken(name, restart):
        raise RuntimeError("server")

    monkeypatch.setattr(manager, "installExtensionFromServer", broken)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: True)
    with pytest.raises(without_torch.DependencyError, match="server"):
        without_torch.ensure()
    assert manager.interactive


FAILURES = {
    "pip": (subprocess.CalledProcessError(1, ["PythonSlicer", "-m", "light_the_torch"]), "ended with status 1"),
    "import": (ImportError("libtorch_cpu.so: cannot open\nmore"), "libtorch_cpu.so: cannot open"),
    "disk": (OSError(28, "No space left on device"), "No space left on device"),
    "backend": (ValueError("no such backend"), "no such backend"),
}


@pytest.fixture
def broken_installer(without_torch, monkeypatch):
    """A function that makes ``installTorch`` raise."""

    def install(error):
        class Logic:
            def installTorch(self, **options):
                raise error

        monkeypatch.setitem(sys.modules, "PyTorchUtils", SimpleNamespace(PyTorchUtilsLogic=Logic))

    return install


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_installation_is_one_sentence(without_torch, broken_installer, failure):
    error, reason = FAILURES[failure]
    broken_installer(error)
    with pytest.raises(without_torch.DependencyError) as raised:
        without_torch.ensure()
    sentence = str(raised.value)
    assert reason in sentence and "PythonSlicer" not in sentence and "\n" not in sentence
    assert sentence.startswith("PyTorch could not be installed (")


def run_panels(widget):
    """{name: (runs the panel's installation, its status label)} of a module's panel."""
    if widget.moduleName == "SAMConvexRegistration":
        panels = {"run": widget.runPanel, "batch": widget.batchPanel.runPanel}
    else:
        panels = {"landmarks": widget.landmarkPanel.runPanel, "lesions": widget.trackingPanel.runPanel}
    started = {
        name: (lambda panel=panel: panel.start(pytest.fail), panel._statusLabel) for name, panel in panels.items()
    }
    if widget.moduleName == "SAMLandmark":
        started["live"] = widget.livePanel.start, widget.ui.liveStatusLabel
    return started


@pytest.mark.parametrize("module", MODULES)
def test_every_panel_says_that_the_installation_failed(load, broken_installer, module):
    widget = load(module)
    broken_installer(subprocess.CalledProcessError(1, ["pip"]))
    for name, (start, label) in run_panels(widget).items():
        start()
        assert label.text.startswith("PyTorch could not be installed"), name


def test_while_torch_is_installed_the_panel_says_so_and_takes_no_second_apply(load, without_torch, monkeypatch):
    widget = load("SAMConvexRegistration")
    button, label = widget.ui.applyButton, widget.ui.statusLabel
    button.enabled = True
    seen = []

    class Logic:
        def installTorch(self, **options):
            slicer.app.processEvents()
            seen.append((label.text, button.enabled))
            # From another panel, or by a script.
            with pytest.raises(without_torch.DependencyError, match="being installed"):
                without_torch.ensure()
            return "torch"

    monkeypatch.setitem(sys.modules, "PyTorchUtils", SimpleNamespace(PyTorchUtilsLogic=Logic))
    assert widget.runPanel.installDependencies()
    assert seen == [("Installing PyTorch; that can take some minutes...", False)]
    assert button.enabled and label.text == ""


@pytest.mark.parametrize(
    "torch, numpy, works", [("2.2.2", "2.1.0", False), ("2.2.2", "1.26.4", True), ("2.3.0+cpu", "2.0.0", True)]
)
def test_a_torch_that_does_not_know_the_installed_numpy_is_told_before_the_run(scene, monkeypatch, torch, numpy, works):
    from SAMConvexLib import dependencies

    monkeypatch.setattr(dependencies, "torchVersion", lambda: torch)
    monkeypatch.setattr(dependencies, "numpyVersion", lambda: numpy)
    if works:
        assert dependencies.missingReason() == ""
        return
    monkeypatch.setattr(dependencies, "_install", lambda ask: pytest.fail("PyTorch is not what is missing"))
    with pytest.raises(dependencies.DependencyError, match=r"NumPy 2\.1\.0 .*Intel.*pip_install\('numpy<2'\)"):
        dependencies.ensure()


# --- processes ------------------------------------------------------------------------------------------------------


def test_a_killed_engine_is_named_through_the_launcher_and_a_defect_is_not_taken_for_it(scene):
    from SAMConvexLib import job

    def message(behavior):
        run = job.EngineJob([], command=[shutil.which("PythonSlicer"), FAKE_ENGINE, behavior])
        run.start()
        with pytest.raises(job.JobFailed) as raised:
            run.wait()
        return str(raised.value)

    assert "lack of memory" in message("killed") and "exit abnormally" not in message("killed")
    assert "ZeroDivisionError" in message("defect") and "memory" not in message("defect")


def test_a_killed_matching_process_is_named_through_the_launcher(load):
    from harness import wait_until

    load("SAMLandmark", enter=False)
    from SAMLandmarkLib.worker import LiveWorker

    sentences = []
    worker = LiveWorker(command=[shutil.which("PythonSlicer"), FAKE_ENGINE, "killed"])
    worker.onEnd = sentences.append
    worker.start()
    wait_until(lambda: worker.poll() or sentences, 60)
    assert "lack of memory" in sentences[0]


def test_a_cancelled_engine_may_tidy_up_though_its_launcher_has_ended(scene, tmp_path, monkeypatch):
    import time

    from SAMConvexLib import job

    monkeypatch.setattr(job, "GRACE_SECONDS", 30.0)
    tidied = tmp_path / "tidied"
    run = job.EngineJob([], command=[shutil.which("PythonSlicer"), FAKE_ENGINE, "tidy", str(tidied)])
    run.start()
    end = time.monotonic() + 60
    while run.progress.fraction < 0.2 and time.monotonic() < end:
        run.poll()
        time.sleep(0.01)
    run.cancel()
    with pytest.raises(job.JobCancelled):
        run.wait()
    assert tidied.exists()


@pytest.fixture
def other_samconvex(app, tmp_path, monkeypatch):
    """Another samconvex, installed by pip and lying in the working directory; it only says that it is the wrong one."""
    folders = Path(app.sitePackages, "samconvex"), tmp_path / "samconvex"
    for folder in folders:
        (folder / "landmarks").mkdir(parents=True)
        for name in ("__init__", "__main__", "memory", "landmarks/__init__", "landmarks/live"):
            (folder / f"{name}.py").write_text("raise SystemExit('the wrong samconvex')")
    monkeypatch.chdir(tmp_path)
    yield folders[0]
    shutil.rmtree(folders[0])


def test_the_bundled_engine_runs_whatever_pip_installed(load, other_samconvex):
    load("SAMLandmark", enter=False)
    from SAMConvexLib.process import engineCommand
    from SAMLandmarkLib.worker import workerCommand

    for command, given, expected in (
        (engineCommand(["--version"]), None, "samconvex "),
        (workerCommand(), "\n", ""),
    ):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, input=given)
        assert "wrong" not in ended.stdout + ended.stderr
        assert ended.stdout.startswith(expected) and ended.returncode == 0, ended.stderr


def test_inside_slicer_too_the_bundled_engine_is_used_and_another_left_alone(scene, other_samconvex, monkeypatch):
    from SAMConvexLib.process import ENGINE_FOLDER, engineModule

    monkeypatch.setattr(sys, "path", [str(other_samconvex.parent), *sys.path])
    for name in [name for name in sys.modules if name.split(".")[0] == "samconvex"]:
        monkeypatch.delitem(sys.modules, name)
    assert engineModule("samconvex.memory").__file__.startswith(ENGINE_FOLDER + os.sep)
    for name in [name for name in sys.modules if name.split(".")[0] == "samconvex"]:
        monkeypatch.delitem(sys.modules, name)
    (other_samconvex / "__init__.py").write_text("")
    import samconvex

    assert samconvex.__file__ == str(other_samconvex / "__init__.py")
    assert engineModule("samconvex.memory").__file__.startswith(ENGINE_FOLDER + os.sep)
    assert sys.modules["samconvex"] is samconvex and "samconvex.memory" not in sys.modules


@pytest.fixture(params=["Ünïcödé 肺 файлы", "x" * 120 + "/" + "y" * 120], ids=["letters", "250 characters"])
def temporary_path(request, scene, app, tmp_path):
    """Slicer's temporary folder at a difficult path."""
    folder = tmp_path / request.param
    folder.mkdir(parents=True)
    before = app.temporaryPath
    app.applicationLogic().SetTemporaryPath(str(folder))
    yield folder
    app.applicationLogic().SetTemporaryPath(before)


@pytest.mark.slow
def test_a_registration_runs_in_any_temporary_folder(temporary_path):
    from SAMConvexRegistrationLib.logic import SAMConvexRegistrationLogic

    fixed, moving = (build.volume(name, build.smooth_array(), build.oblique()) for name in ("Fixed", "Moving"))
    used = []
    result = SAMConvexRegistrationLogic().registerVolumes(
        fixed,
        moving,
        preset="fast-preview",
        progressCallback=lambda *progress: used.extend(temporary_path.iterdir()),
    )
    assert result.transformNode is not None
    # Files were written there, and none was left.
    assert used and list(temporary_path.iterdir()) == []


def test_a_temporary_folder_without_room_for_file_names_is_not_taken(scene, app, tmp_path, monkeypatch):
    from SAMConvexLib import process

    before = app.temporaryPath
    app.applicationLogic().SetTemporaryPath(str(tmp_path))
    try:
        folders = [process.temporaryFolder()]
        monkeypatch.setattr(process, "LONGEST_PARENT", len(str(tmp_path)) - 1)
        folders.append(process.temporaryFolder())
    finally:
        app.applicationLogic().SetTemporaryPath(before)
    assert [folder.parent == tmp_path for folder in folders] == [True, False]
    for folder in folders:
        folder.rmdir()


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.fixture
def working_directory(tmp_path, monkeypatch):
    """Slicer's working directory, with a template library of others and nothing that the user has chosen."""
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    slicer.app.userSettings().remove("SAMLandmark/LibraryDirectory")
    return folder


def save_template(folder):
    folder.mkdir(parents=True)
    (folder / "embedding.npz").write_bytes(b"")
    description = {"format": 1, "embedding_sha256": "", "points": [{"label": "a", "position": [0, 0, 0]}]}
    (folder / "template.json").write_text(json.dumps(description))


def test_no_chosen_library_is_not_the_working_directory(load, working_directory):
    save_template(working_directory / "foreign")
    widget = load("SAMLandmark")
    ui, parameters = widget.ui, widget.parameters()
    assert ui.libraryComboBox.count == 0
    parameters.templateVolume = build.volume("CT", build.smooth_array(), build.oblique())
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Points")
    points.AddControlPointWorld(build.center_of(parameters.templateVolume))
    parameters.templateMarkups = points
    ui.libraryGroupBox.collapsed = False
    ui.libraryNameEdit.text = "mine"
    ui.librarySaveButton.click()
    assert "library's folder" in ui.libraryDescriptionLabel.text and not widget.landmarkPanel.isRunning
    ui.libraryDirectoryButton.directory = str(working_directory.parent)
    assert ui.libraryComboBox.count == 0
    slicer.app.userSettings().remove("SAMLandmark/LibraryDirectory")


def test_one_unreadable_folder_of_the_library_is_named_and_the_others_are_listed(load, tmp_path, monkeypatch):
    load("SAMLandmark", enter=False)
    from SAMLandmarkLib import library

    for name in ("a", "locked", "z"):
        save_template(tmp_path / name)
    # Permissions do not stop the administrator, who may run the tests.
    stat = os.stat

    def refusing(path, *arguments, **options):
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refusing)
    entries, problems = library.listTemplates(str(tmp_path))
    assert [entry.name for entry in entries] == ["a", "z"]
    assert len(problems) == 1 and "locked" in problems[0] and "Permission denied" in problems[0]
    monkeypatch.setattr(Path, "iterdir", lambda self: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    entries, problems = library.listTemplates(str(tmp_path))
    assert entries == [] and str(tmp_path) in problems[0]


@pytest.fixture
def csv_batch(load, tmp_path):
    """The panel with a CSV of one pair chosen; the engine is a stand-in."""
    import SimpleITK as sitk

    widget = load("SAMConvexRegistration")
    quick = str(Path(__file__).with_name("quick_engine.py"))
    widget.logic.engineCommand = lambda arguments: [sys.executable, quick, "done", *map(str, arguments)]
    sitk.WriteImage(sitk.GetImageFromArray(build.box_array()), str(tmp_path / "a.nii.gz"))
    (tmp_path / "pairs.csv").write_text("fixed,moving\na.nii.gz,a.nii.gz\na.nii.gz,a.nii.gz\n")
    widget.ui.batchSourceComboBox.setCurrentIndex(1)
    widget.ui.batchCsvPathEdit.currentPath = str(tmp_path / "pairs.csv")
    return widget


def test_a_batch_needs_a_chosen_folder(csv_batch, working_directory):
    button = csv_batch.ui.batchApplyButton
    assert not button.enabled and "output folder" in button.toolTip
    csv_batch.ui.batchFolderButton.directory = str(working_directory / "out")
    assert button.enabled


def test_a_batch_into_a_folder_that_cannot_be_written_is_refused_before_the_work(csv_batch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    csv_batch.ui.batchFolderButton.directory = str(tmp_path / "file" / "out")
    csv_batch.ui.batchApplyButton.click()
    assert not csv_batch.batchPanel.isRunning
    assert str(tmp_path / "file" / "out") in csv_batch.ui.batchStatusLabel.text
    assert "choose another output folder" in csv_batch.ui.batchStatusLabel.text


def test_a_batch_whose_folder_goes_meanwhile_comes_to_its_end(csv_batch, tmp_path):
    from harness import wait_until

    out = tmp_path / "out"
    csv_batch.ui.batchFolderButton.directory = str(out)
    csv_batch.ui.batchApplyButton.click()
    shutil.rmtree(out)
    out.write_text("in the way")
    wait_until(lambda: not csv_batch.batchPanel.isRunning, 120)
    text = csv_batch.ui.batchStatusLabel.text
    assert text.startswith("0 of 2 pairs registered.") and str(out) in text
