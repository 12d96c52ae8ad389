"""What an audit against Slicer's sources found: start-up, installation, packaging, folders, saving."""

from __future__ import annotations

import logging

import pytest
import slicer
from modules import scene_builders as build

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
    assert observers_of_import() == before + 1 and "no samples today" in caplog.text

    from SAMConvexLib.startup import whenStarted

    calls = []
    whenStarted(lambda: 1 / 0, lambda: calls.append(1))
    slicer.app.completeStartup()
    assert calls == [1]


def observers_of_import():
    return str(slicer.mrmlScene).count(f"Event: {slicer.vtkMRMLScene.EndImportEvent}")
