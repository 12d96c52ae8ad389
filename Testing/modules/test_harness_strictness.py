"""The stand-in refuses what Slicer refuses: each test holds one manner that modules once got wrong unnoticed."""

from __future__ import annotations

import pytest
import slicer

pytestmark = pytest.mark.usefixtures("scene")


# --- Sample Data ----------------------------------------------------------------------------------------------------


@pytest.fixture
def sample_data(app, monkeypatch):
    import SampleData

    monkeypatch.setattr(SampleData.SampleDataLogic, "sources", [])
    monkeypatch.setattr(SampleData, "files", {})
    return SampleData


def test_sample_data_demand_addresses_and_lists_of_one_length(sample_data):
    register = sample_data.SampleDataLogic.registerCustomSampleDataSource
    with pytest.raises(TypeError):
        register(sampleName="Without addresses", customDownloader=lambda source: [])
    with pytest.raises(ValueError, match="same length"):
        register(sampleName="Uneven", uris=["a", "b"], fileNames=["a"], nodeNames=["A", "B"])
    assert sample_data.SampleDataLogic.sources == []
    register(sampleName="One", uris="http://a/a.nrrd", fileNames="a.nrrd", nodeNames="A")
    register(sampleName="None", uris=[], fileNames=[], nodeNames=[])
    assert [source.uris for source in sample_data.SampleDataLogic.sources] == [["http://a/a.nrrd"], []]


def test_only_the_button_calls_a_custom_downloader(sample_data):
    calls = []
    sample_data.SampleDataLogic.registerCustomSampleDataSource(
        sampleName="Own", uris=[], fileNames=[], nodeNames=[], customDownloader=calls.append
    )
    assert sample_data.downloadSamples("Own") == []
    with pytest.raises(IndexError):
        sample_data.downloadSample("Own")
    assert calls == []
    sample_data.SampleDataLogic().clickButton("Own")
    assert [source.sampleName for source in calls] == ["Own"]


# --- start of the application ---------------------------------------------------------------------------------------


def test_the_end_of_the_start_is_told_once_and_an_exception_stops_no_other_function(app, monkeypatch):
    import sys

    errors, calls = [], []
    monkeypatch.setattr(sys, "excepthook", lambda *error: errors.append(error[0]))
    app.connect("startupCompleted()", lambda: 1 / 0)
    app.connect("startupCompleted()", lambda: calls.append(1))
    app.completeStartup()
    app.completeStartup()
    assert (errors, calls) == ([ZeroDivisionError], [1])


def test_a_module_loaded_into_a_running_application_is_not_told_that_it_started(app, main_window):
    calls = []
    app.connect("startupCompleted()", lambda: calls.append(1))
    app.completeStartup()
    assert calls == []


# --- extensions -----------------------------------------------------------------------------------------------------


@pytest.fixture
def extensions(app, monkeypatch):
    manager = app.extensionsManagerModel()
    monkeypatch.setattr(manager, "available", {"Known"})
    yield manager
    manager.uninstallExtension("Known")
    manager.interactive = True
    app.restartRequested = False


def test_an_extension_is_installed_and_then_the_application_restarts_unless_told_not_to(app, extensions):
    app.setTestingEnabled(False)
    extensions.interactive = False
    assert extensions.installExtensionFromServer("Known", False) and not app.restartRequested
    assert extensions.isExtensionInstalled("Known")
    extensions.uninstallExtension("Known")
    assert extensions.installExtensionFromServer("Known") and app.restartRequested
    assert not extensions.installExtensionFromServer("Unknown")
    with pytest.raises(TypeError):
        extensions.installExtensionFromServer("Known", restart=False)


def test_the_extensions_manager_asks_twice_when_interactive(app, extensions, answers):
    from PySide6 import QtWidgets

    app.setTestingEnabled(False)
    for answer in (QtWidgets.QMessageBox.StandardButton.Yes, QtWidgets.QMessageBox.StandardButton.No):
        answers.expect("QMessageBox.question", answer)
    assert extensions.installExtensionFromServer("Known") and not app.restartRequested


# --- processes ------------------------------------------------------------------------------------------------------


def python_slicer(code, **options):
    import shutil
    import subprocess

    command = [shutil.which("PythonSlicer"), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_the_interpreter_is_a_launcher_that_turns_a_crash_into_status_1(app):
    killed = python_slicer("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.returncode == 1 and "exit abnormally" in killed.stderr
    ended = python_slicer("import sys; print(sys.stdin.read()); sys.exit(4)", input="passed on")
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (4, "passed on", "")


def test_the_launcher_puts_what_pip_installed_before_the_callers_path(app, tmp_path):
    from pathlib import Path

    (tmp_path / "which_one.py").write_text("print('of the caller')")
    installed = Path(app.sitePackages, "which_one.py")
    environment = {"PYTHONPATH": str(tmp_path)}
    assert python_slicer("import which_one", env=environment).stdout.strip() == "of the caller"
    installed.write_text("print('of pip')")
    try:
        assert python_slicer("import which_one", env=environment).stdout.strip() == "of pip"
    finally:
        installed.unlink()


# --- widgets --------------------------------------------------------------------------------------------------------


def test_a_directory_button_starts_at_the_working_directory_and_is_no_button(tmp_path, monkeypatch):
    import ctk
    import qt

    monkeypatch.chdir(tmp_path)
    button, changed, selected = ctk.ctkDirectoryButton(), [], []
    button.connect("directoryChanged(QString)", changed.append)
    button.connect("directorySelected(QString)", selected.append)
    assert button.directory == "." and not isinstance(button, qt.QPushButton) and not hasattr(button, "click")
    button.directory = ""
    button.directory = str(tmp_path)
    assert (button.directory, changed, selected) == (".", [], [str(tmp_path)] * 2)
    button.directory = str(tmp_path / "other")
    assert button.directory == str(tmp_path / "other") == changed[-1] == selected[-1]


@pytest.mark.parametrize("name", ["enabeld", "_mine", "setText", "clicked"])
def test_an_attribute_that_the_cpp_class_does_not_have_cannot_be_set(name):
    import ctk
    import qt

    widgets = qt.QPushButton("a"), ctk.ctkSliderWidget(), qt.QTableWidgetItem("a"), slicer.qMRMLNodeComboBox()
    for widget in widgets:
        with pytest.raises(AttributeError, match=f"'{name}' does not exist on {type(widget).__name__}"):
            setattr(widget, name, 1)


def test_a_class_derived_in_python_has_attributes_of_its_own():
    import qt

    class Panel(qt.QWidget):
        def __init__(self, parent=None):
            super().__init__(parent)
            self.logic = "mine"

    panel = Panel()
    panel.enabled = False
    panel.other = 2
    assert (panel.logic, panel.other, panel.enabled) == ("mine", 2, False)


def test_a_dynamic_property_is_set_as_one():
    import qt

    widget = qt.QWidget()
    widget.setProperty("SlicerParameterName", "first")
    widget.SlicerParameterName = "second"
    assert widget.property("SlicerParameterName") == "second"


def test_keyword_arguments_are_refused_by_constructors_and_methods():
    import ctk
    import qt

    with pytest.raises(ValueError, match="keyword"):
        qt.QPushButton(text="a")
    with pytest.raises(ValueError, match="keyword"):
        qt.QSpinBox(maximum=5)
    table, label = qt.QTableWidget(2, 2), qt.QLabel("a")
    for call in (
        lambda: label.setText(text="b"),
        lambda: table.setRowCount(rows=3),
        lambda: ctk.ctkPathLineEdit().setEnabled(arg__1=False),
    ):
        with pytest.raises(ValueError, match="keyword"):
            call()
    assert (label.text, table.rowCount) == ("a", 2)


def test_methods_of_cpp_objects_can_be_connected():
    import qt

    box, other = qt.QSpinBox(), qt.QSpinBox()
    box.connect("valueChanged(int)", other.setValue)
    box.value = 7
    assert other.value == 7
    box.valueChanged.connect(other.setMaximum)
    box.value = 5
    assert (other.value, other.maximum) == (5, 5)
