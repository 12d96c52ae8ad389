"""Fixtures for tests in the stand-in application; ``from harness.fixtures import *`` in a conftest.py.

``app`` starts the application once per process, with its window, or skips, naming the command that installs what is
missing. ``scene`` is its scene, empty before and after the test; an exception in a slot or observer, which Qt and VTK
only print, fails the test.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .environment import prepare, unavailable_reason

__all__ = ["answers", "app", "load_scripted_module", "main_window", "own_singletons", "scene", "slicer_5_10", "views"]

prepare()


@pytest.fixture(scope="session")
def app():
    """The running application."""
    reason = unavailable_reason()
    if reason:
        pytest.skip(reason)
    from .startup import start, stop

    application = start()

    from .window import MainWindow

    # As in Slicer, before any module or test adds nodes: otherwise the first test that asks for the window decides
    # which view nodes it gets, and which tests run without one.
    MainWindow.instance()
    yield application
    stop()


@pytest.fixture(scope="session")
def own_singletons(app):
    """IDs of the singleton nodes of the application and its window."""
    from .scene import singletons

    return singletons(app.mrmlScene)


@pytest.fixture
def scene(app, own_singletons):
    """The application's empty scene."""
    import slicer

    from .scene import clear
    from .slot_errors import slot_errors

    with slot_errors() as errors:
        clear(slicer.mrmlScene, own_singletons)
        app.setTestingEnabled(True)
        app.restartRequested = False
        # What an earlier test chose, such as a folder, is no choice of this one's user.
        app.userSettings().clear()
        try:
            yield slicer.mrmlScene
            app.processEvents()
        finally:
            clear(slicer.mrmlScene, own_singletons)
            app.processEvents()
    if errors:
        pytest.fail("an exception was raised in a slot or observer:\n" + "\n".join(errors), pytrace=False)


@pytest.fixture
def slicer_5_10(app, monkeypatch):
    """The parameter node wrapper of Slicer 5.10: disconnecting it from the controls leaves its observer on the node."""
    from slicer.parameterNodeWrapper import wrapper

    monkeypatch.setattr(wrapper, "disconnectLeavesObserver", True)


@pytest.fixture
def answers(app):
    """Answers to the modal dialogs that the test will open; ``answers.opened`` lists those that did."""
    from .dialogs import answers

    answers.clear()
    yield answers
    unused = answers.unused()
    answers.clear()
    assert not unused, f"dialogs that never opened: {unused}"


@pytest.fixture
def load_scripted_module(scene, app):
    """A function that loads a module file and returns its entered Python widget; unloaded again after the test."""
    import slicer

    from .modules import load_module

    loaded = []

    def load(path, enter=True):
        module = load_module(Path(path))
        loaded.append(module.objectName)
        representation = module.widgetRepresentation()
        if representation is None:
            return None
        if enter:
            representation.enter()
        return representation.self()

    yield load
    for name in loaded:
        if slicer.app.moduleManager().isLoaded(name):
            slicer.app.moduleManager().unload(name)
    app.processEvents()


@pytest.fixture
def main_window(scene, app):
    """The application window: module panel at the left, four views at the right."""
    from .window import MainWindow

    window = MainWindow.instance()
    window.reset()
    window.show()
    app.processEvents()
    yield window
    window.showModule("")
    window.hide()


@pytest.fixture
def views(main_window):
    """Rendered views by name: ``views["Red"]``, ``views["3D"]``."""
    return main_window.views()
