"""Tests in the stand-in application: real MRML, no display."""

import sys
from pathlib import Path

import pytest
from harness.fixtures import *  # noqa: F403

QUICK_ENGINE = Path(__file__).parents[1] / "modules" / "quick_engine.py"


@pytest.fixture
def build(app):
    """Makers of nodes."""
    from modules import scene_builders

    return scene_builders


@pytest.fixture
def widget(load_scripted_module, repository):
    """The registration panel with a quick engine that does what ``widget.behavior`` says."""
    widget = load_scripted_module(repository / "SAMConvexRegistration" / "SAMConvexRegistration.py")
    widget.behavior = "done"
    widget.logic.engineCommand = lambda arguments: [
        sys.executable,
        str(QUICK_ENGINE),
        widget.behavior,
        *[str(argument) for argument in arguments],
    ]
    return widget
