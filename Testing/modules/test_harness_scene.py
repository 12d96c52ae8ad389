"""Scene, logics, ``slicer.util`` and ``slicer.app`` behave as in Slicer."""

import os
import subprocess
import sys

import numpy as np
import pytest


def _volume(name="V", shape=(6, 8, 10)):
    import slicer

    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    node = slicer.util.addVolumeFromArray(values, name=name)
    node.SetSpacing(1.0, 2.0, 3.0)
    node.SetOrigin(10, -20, 30)
    return node


def _grid_transform():
    import slicer
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    image = vtk.vtkImageData()
    image.SetDimensions(5, 5, 5)
    image.SetSpacing(10, 10, 10)
    vectors = np.zeros((125, 3))
    vectors[:, 0] = 3.0
    image.GetPointData().SetScalars(numpy_to_vtk(vectors, deep=True))
    grid = slicer.vtkOrientedGridTransform()
    grid.SetDisplacementGridData(image)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Grid")
    node.SetAndObserveTransformFromParent(grid)
    return node


@pytest.mark.parametrize("ending", ["nrrd", "nii.gz", "mha"])
def test_volumes_are_saved_exported_and_loaded(scene, tmp_path, ending):
    import slicer

    node = _volume()
    saved, exported = str(tmp_path / f"saved.{ending}"), str(tmp_path / f"exported.{ending}")
    assert slicer.util.saveNode(node, saved)
    assert slicer.util.exportNode(node, exported)
    for path in (saved, exported):
        loaded = slicer.util.loadVolume(path)
        assert (slicer.util.arrayFromVolume(loaded) == slicer.util.arrayFromVolume(node)).all()
        assert np.allclose(loaded.GetOrigin(), node.GetOrigin())
    assert node.GetStorageNode().GetFileName() == saved


def test_labels_segmentations_points_tables_and_transforms_are_loaded(scene, tmp_path):
    import slicer

    volume = _volume()
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = segmentation.GetSegmentation().AddEmptySegment("liver", "liver")
    mask = (slicer.util.arrayFromVolume(volume) > 100).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, segment, volume)
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "P")
    points.AddControlPoint(1, 2, 3, "carina")
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "T")
    slicer.util.updateTableFromArray(table, np.arange(6.0).reshape(3, 2), ["a", "b"])
    for node, name in (
        (segmentation, "s.seg.nrrd"),
        (points, "p.mrk.json"),
        (table, "t.csv"),
        (_grid_transform(), "g.h5"),
    ):
        assert slicer.util.saveNode(node, str(tmp_path / name)), name
    slicer.mrmlScene.Clear(0)

    loaded = slicer.util.loadSegmentation(str(tmp_path / "s.seg.nrrd"))
    assert loaded.GetSegmentation().GetNthSegment(0).GetName() == "liver"
    loaded = slicer.util.loadMarkups(str(tmp_path / "p.mrk.json"))
    assert loaded.GetNthControlPointLabel(0) == "carina"
    assert slicer.util.loadTable(str(tmp_path / "t.csv")).GetNumberOfRows() == 3
    loaded = slicer.util.loadTransform(str(tmp_path / "g.h5"))
    assert loaded.GetTransformFromParent().TransformPoint(20, 20, 20) == pytest.approx((23, 20, 20))
    with pytest.raises(RuntimeError):
        slicer.util.loadVolume(str(tmp_path / "missing.nrrd"))


def test_export_in_world_coordinates_leaves_the_node_alone(scene, tmp_path):
    import slicer

    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "P")
    points.AddControlPoint(20, 20, 20)
    transform = _grid_transform()
    transform.Inverse()
    points.SetAndObserveTransformNodeID(transform.GetID())
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    assert slicer.util.exportNode(points, str(tmp_path / "p.mrk.json"), world=True)
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    assert points.GetNthControlPointPosition(0) == (20, 20, 20)
    loaded = slicer.util.loadMarkups(str(tmp_path / "p.mrk.json"))
    assert loaded.GetNthControlPointPosition(0) == pytest.approx((23, 20, 20), abs=0.02)


def test_scene_bundle_keeps_links_between_nodes(scene, tmp_path):
    import slicer

    volume, transform = _volume(), _grid_transform()
    volume.SetAndObserveTransformNodeID(transform.GetID())
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.util.loadScene(str(tmp_path / "scene.mrb"), {"clear": True})
    assert slicer.util.getNode("V").GetParentTransformNode().GetName() == "Grid"


def test_nodes_have_subject_hierarchy_items(scene):
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    nodes = [_volume(), _grid_transform(), slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")]
    items = [hierarchy.GetItemByDataNode(node) for node in nodes]
    assert all(items) and len(set(items)) == 3
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(items[0], folder)
    slicer.mrmlScene.RemoveNode(nodes[0])
    assert hierarchy.GetNumberOfItemChildren(folder) == 0


def test_hierarchy_survives_a_scene_bundle(scene, tmp_path):
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(_volume()), folder)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(slicer.util.getNode("V"))
    assert hierarchy.GetItemName(hierarchy.GetItemParent(item)) == "Study"


def test_module_logics_are_real(scene):
    import slicer

    volume = _volume()
    labels = slicer.modules.volumes.logic().CreateAndAddLabelVolume(volume, "L")
    assert labels.GetImageData().GetDimensions() == volume.GetImageData().GetDimensions()
    assert slicer.util.getModuleLogic("Segmentations") is slicer.modules.segmentations.logic()
    assert slicer.app.applicationLogic().GetModuleLogic("Markups") is slicer.modules.markups.logic()


def test_files_and_settings_of_the_user_are_out_of_reach(app):
    import qt
    import slicer

    temporary = slicer.app.temporaryPath
    assert os.path.isdir(temporary) and slicer.util.tempDirectory().startswith(temporary)
    assert qt.QSettings().fileName().startswith(os.path.dirname(temporary))
    qt.QSettings().setValue("SAMConvex/Test", 3)
    assert slicer.util.settingsValue("SAMConvex/Test", 0, converter=int) == 3
    qt.QSettings().remove("SAMConvex/Test")


def test_version_and_names_are_those_of_slicer(app):
    import slicer

    assert (slicer.app.majorVersion, slicer.app.minorVersion) == (5, 13)
    assert slicer.app.applicationName == "Slicer"
    assert slicer.app.testingEnabled()
    assert slicer.app.extensionsManagerModel().isExtensionInstalled("PyTorch") is False


def test_message_boxes_are_answered(scene, answers):
    import qt
    import slicer
    from harness.dialogs import UnexpectedDialog

    slicer.util.infoDisplay("skipped while testing")
    assert answers.opened == []
    slicer.app.setTestingEnabled(False)
    answers.expect("QMessageBox.exec_", qt.QMessageBox.Yes)
    answers.expect("QMessageBox.exec_", qt.QMessageBox.No)
    assert slicer.util.confirmYesNoDisplay("Continue?")
    assert not slicer.util.confirmYesNoDisplay("Continue?")
    assert answers.opened[0] == ("ctkMessageBox.exec_", "Continue?")
    with pytest.raises(UnexpectedDialog):
        slicer.util.confirmYesNoDisplay("Unexpected?")


def test_processes_run_beside_the_event_loop(app):
    import qt
    import slicer
    from harness import wait_until

    lines, status = [], []
    process = subprocess.Popen(
        [sys.executable, "-c", "print('one'); print('two')"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    slicer.util._startAsyncProcessHandling(process, lines.append, status.append)
    wait_until(lambda: status)
    assert (lines, status) == (["one", "two"], [0])

    output = []
    process = qt.QProcess()
    process.setProcessChannelMode(qt.QProcess.MergedChannels)
    process.connect("readyReadStandardOutput()", lambda: output.append(bytes(process.readAllStandardOutput().data())))
    process.connect("finished(int,QProcess::ExitStatus)", lambda code, how: status.append(code))
    process.start("PythonSlicer", ["-c", "print('three'); raise SystemExit(4)"])
    wait_until(lambda: len(status) == 2)
    assert b"".join(output).split() == [b"three"] and status[1] == 4


def test_packages_are_checked_and_never_installed(scene, tmp_path):
    import slicer
    import slicer.packaging as packaging

    (tmp_path / "requirements.txt").write_text("numpy>=1.20  # always here\nno-such-package>=1\n")
    requirements = packaging.load_requirements(tmp_path / "requirements.txt")
    assert packaging.pip_check(requirements[:1]) and not packaging.pip_check(requirements)
    packaging.pip_ensure(requirements)
    assert packaging.installed == []
    slicer.app.setTestingEnabled(False)
    packaging.pip_ensure(requirements, requester="Test")
    assert packaging.installed.pop()[1] == {"requester": "Test"}


def test_exceptions_in_slots_and_observers_are_seen(app):
    import qt
    import slicer
    import vtk
    from harness.slot_errors import slot_errors

    def fail(*arguments):
        raise ValueError("nobody catches this")

    button = qt.QPushButton("Press")
    button.connect("clicked()", fail)
    node = slicer.vtkMRMLTextNode()
    node.AddObserver(vtk.vtkCommand.ModifiedEvent, fail)
    with slot_errors() as errors:
        button.click()
        assert len(errors) == 1
        node.Modified()
    assert len(errors) == 2 and all("nobody catches this" in error for error in errors)


def test_stalls_of_the_event_loop_are_measured(app):
    import time

    import qt
    from harness import wait_until
    from harness.latency import StallWatch

    with StallWatch() as watch:
        done = []
        qt.QTimer.singleShot(1, lambda: time.sleep(0.3))
        qt.QTimer.singleShot(2, lambda: done.append(True))
        wait_until(lambda: done)
    assert 0.29 < watch.worst < 3


def test_missing_libraries_are_named_with_the_command(monkeypatch):
    from harness import environment

    monkeypatch.setattr(environment, "REQUIRED_LIBRARIES", ("libDoesNotExist.so.1",))
    reason = environment.unavailable_reason()
    assert "libDoesNotExist.so.1" in reason and "Testing/system_packages.sh" in reason


def test_only_one_application_starts(app):
    from harness import start

    assert start() is app
