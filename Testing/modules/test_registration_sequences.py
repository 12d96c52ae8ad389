"""Every volume of a sequence is registered to one fixed volume; the results are sequences that play together."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
from modules import scene_builders as build

QUICK_ENGINE = Path(__file__).with_name("quick_engine.py")


@pytest.fixture
def logic(scene):
    from SAMConvexRegistrationLib.logic import SAMConvexRegistrationLogic

    logic = SAMConvexRegistrationLogic()
    logic.behavior = "good"
    logic.engineCommand = lambda arguments: [sys.executable, str(QUICK_ENGINE), logic.behavior, *map(str, arguments)]
    return logic


def sequence_of(array, values):
    """A sequence of volumes, each a little brighter than the one before."""
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Breath")
    sequence.SetIndexName("phase")
    sequence.SetIndexUnit("%")
    for number, value in enumerate(values):
        volume = build.volume("frame", array + number, build.oblique())
        sequence.SetDataNodeAtValue(volume, value)
        slicer.mrmlScene.RemoveNode(volume)
    return sequence


def run(logic, fixed, sequence):
    from SAMConvexRegistrationLib import batch, settings

    return batch.BatchRun(logic.sceneBatchItems(fixed, [sequence], settings.RegistrationSettings())).wait()


def test_results_are_sequences_with_the_same_index(logic):
    array = build.smooth_array((20, 22, 24))
    fixed, sequence = build.volume("Fixed", array, build.oblique()), sequence_of(array, ("0", "50"))
    items = run(logic, fixed, sequence)
    assert [(item.name, item.state.value) for item in items] == [("Breath, 0", "done"), ("Breath, 50", "done")]
    found = {node.GetName(): node for node in slicer.util.getNodesByClass("vtkMRMLSequenceNode")}
    volumes, transforms = found["Breath registered volumes"], found["Breath transforms"]
    for made in (volumes, transforms):
        assert [made.GetNthIndexValue(n) for n in range(made.GetNumberOfDataNodes())] == ["0", "50"]
        assert (made.GetIndexName(), made.GetIndexUnit()) == ("phase", "%")
    means = [slicer.util.arrayFromVolume(volumes.GetNthDataNode(n)).mean() for n in range(2)]
    assert means[1] - means[0] == pytest.approx(1.0, abs=0.3)
    assert all(not transforms.GetNthDataNode(n).IsLinear() for n in range(2))
    assert transforms.GetNthDataNode(1).GetAttribute("SAMConvex.Report")
    (browser,) = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")
    assert all(browser.IsSynchronizedSequenceNode(each.GetID(), True) for each in (volumes, transforms))
    # Nothing temporary stays, and the frames are as they were.
    left = {name for name in slicer.util.getNodes("*", useLists=True) if name.startswith("Breath, ")}
    assert not left and np.array_equal(slicer.util.arrayFromVolume(sequence.GetNthDataNode(1)), array + 1)


def test_a_failure_leaves_nothing_temporary(logic):
    array = build.smooth_array((20, 22, 24))
    fixed, sequence = build.volume("Fixed", array, build.oblique()), sequence_of(array, ("0", "50"))
    logic.behavior = "input"
    items = run(logic, fixed, sequence)
    assert [item.state.value for item in items] == ["failed", "failed"] and "'Breath, 0' is constant" in items[
        0
    ].message
    assert not [name for name in slicer.util.getNodes("*", useLists=True) if name.startswith("Breath, ")]


def test_only_sequences_of_volumes_are_listed(scene):
    from SAMConvexRegistrationLib import sequences

    array = build.smooth_array((20, 22, 24))
    sequence = sequence_of(array, ("0",))
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Points")
    points.SetDataNodeAtValue(build.markups("p", [(0, 0, 0)]), "0")
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Empty")
    assert [sequences.holdsVolumes(node) for node in (sequence, points, empty)] == [True, False, False]
    sequence.SetAttribute("SAMConvex.Output", "volume")
    assert not sequences.holdsVolumes(sequence)
