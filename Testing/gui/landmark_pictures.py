"""Photographs of the landmark module: found points, live matching, a lesion's course. Called by pictures.py.

The pair is the demo's; the landmarks are the centers of organs in the atlas that comes with one of the two CTs, and the
follow-up of the lesion picture is the template itself, shifted. Everything is computed by the real engine.
"""

from __future__ import annotations

import numpy as np
from camera import REPOSITORY, coarser

# Label values of the atlas (TotalSegmentator's list) whose centers are good landmarks.
LANDMARKS = {"Trachea": 16, "Heart": 51, "Aorta": 52, "Liver": 5, "Spleen": 1, "Vertebra T6": 38, "Vertebra T10": 34}


def take_all(window, camera, offline, spacing):
    """Make the scene, go through the three tabs, take a picture of each."""
    import slicer
    from harness import load_module, wait_until
    from harness.pictures import settle
    from samconvex.cli.demo import obtain_pair

    load_module(REPOSITORY / "SAMLandmark" / "SAMLandmark.py")
    slicer.mrmlScene.Clear(0)
    slicer.util.selectModule("SAMLandmark")
    widget, ui = slicer.modules.SAMLandmarkWidget, slicer.modules.SAMLandmarkWidget.ui
    pair = coarser(obtain_pair(offline, print), spacing)
    template, query = volume_node(pair.moving, "Patient B"), volume_node(pair.fixed, "Patient A")
    points = landmark_node(pair, template)

    ui.templateVolumeSelector.setCurrentNode(template)
    ui.templateMarkupsSelector.setCurrentNode(points)
    widget.landmarkPanel.queries.setChecked(query)
    ui.applyButton.click()
    wait_until(lambda: not widget.landmarkPanel.isRunning, 1800)
    print(ui.statusLabel.text, flush=True)
    for name in ("templateButton", "queryButton"):
        getattr(ui, name).collapsed = True
    ui.sideBySideCheckBox.checked = True
    window.fit()
    ui.pointTable.selectRow(2)
    settle(0.5)
    camera.take("landmarks-found", ui.tableButton)
    ui.sideBySideCheckBox.checked = False

    ui.tabWidget.setCurrentIndex(1)
    ui.liveFirstSelector.setCurrentNode(template)
    ui.liveSecondSelector.setCurrentNode(query)
    ui.liveSideBySideCheckBox.checked = True
    ui.liveHeatCheckBox.checked = True
    ui.liveStartButton.click()
    live = widget.livePanel.live
    wait_until(lambda: live.state.value in ("ready", "failed"), 1800)
    place = [0.0, 0.0, 0.0]
    points.GetNthControlPointPositionWorld(2, place)
    for _count in range(20):
        live.moveTo(template, place)
        wait_until(lambda: not live._worker.isBusy, 120)
    settle(0.5)
    camera.take("landmarks-live", ui.liveStatusLabel)
    print(f"{live.message}; {ui.liveLatencyLabel.text}", flush=True)
    ui.liveStartButton.click()

    ui.tabWidget.setCurrentIndex(2)
    for node in slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode"):
        node.GetDisplayNode().SetVisibility(False)
    later = follow_up_node(pair.moving)
    ui.baselineSelector.setCurrentNode(template)
    widget.trackingPanel.lesions.setChecked(lesion_node(pair.moving, template))
    widget.trackingPanel.followUps.setChecked(later)
    ui.trackButton.click()
    wait_until(lambda: not widget.trackingPanel.isRunning, 1800)
    print(ui.trackStatusLabel.text, flush=True)
    ui.trackInputsButton.collapsed = True
    slicer.util.setSliceViewerLayers(background=later)
    window.fit()
    for row in range(ui.courseTable.rowCount):
        ui.courseTable.clearSelection()
        ui.courseTable.selectRow(row)
        ui.confirmButton.click()
    settle(0.5)
    camera.take("landmarks-lesions", ui.jsonButton)
    widget.cleanup()


def volume_node(volume, name):
    """A volume of the engine in the scene, with a window for soft tissue."""
    import SimpleITK as sitk
    import slicer
    from SAMConvexLib import nodes

    image = volume.to_sitk()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    nodes.fillVolume(node, sitk.GetArrayFromImage(image), nodes.imageToRas(image))
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(1400, -300)
    return node


def landmark_node(pair, template):
    """The centers of organs as control points; spread points where there is no atlas (the phantom)."""
    import slicer
    import vtk
    from SAMLandmarkLib import sampledata

    labels = pair.anatomy.tensor[0, 0].numpy()
    markups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Landmarks")
    for name, value in LANDMARKS.items():
        where = np.argwhere(labels == value)
        if len(where) < 50:
            continue
        center = pair.anatomy.grid.voxels_to_points(where.mean(0)[None, ::-1])[0]
        markups.AddControlPointWorld(vtk.vtkVector3d(-center[0], -center[1], center[2]))
        markups.SetNthControlPointLabel(markups.GetNumberOfControlPoints() - 1, name)
    if markups.GetNumberOfControlPoints() < 3:
        slicer.mrmlScene.RemoveNode(markups)
        markups = sampledata.addLandmarks(template)
    return markups


def lesion_place(volume):
    """LPS mm of the invented lesion."""
    return volume.grid.center + np.array([-75.0, 5.0, 20.0])


def follow_up_node(volume):
    """The baseline a little moved, with the lesion drawn smaller."""
    from SAMConvexLib import nodes

    moved = with_lesion(volume, 7.0)
    node = volume_node(moved, "Follow-up")
    matrix = np.eye(4)
    matrix[:3, 3] = (4.0, -3.0, 6.0)
    current = nodes.ijkToRas(node)
    node.SetIJKToRASMatrix(nodes.vtkFromMatrix(matrix @ current))
    node.SetAttribute("SAMLandmark.AcquisitionDate", "20240601")
    return node


def with_lesion(volume, radius):
    """The volume with a ball of soft tissue in it."""
    points = volume.grid.voxel_centers(reference=volume.grid.center).numpy()
    distance = np.linalg.norm(points - (lesion_place(volume) - volume.grid.center), axis=-1)
    tensor = volume.tensor.clone()
    tensor[0, 0][np.asarray(distance) < radius] = 45
    return volume.with_tensor(tensor)


def lesion_node(volume, template):
    """The lesion drawn into the baseline, and its segment."""
    import slicer
    from SAMConvexLib import nodes, segments

    drawn = with_lesion(volume, 11.0)
    slicer.util.updateVolumeFromArray(template, drawn.tensor[0, 0].numpy())
    mask = (drawn.tensor != volume.tensor)[0, 0].numpy()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Lesions")
    node.SetReferenceImageGeometryParameterFromVolumeNode(template)
    segment = slicer.vtkSegment()
    segment.SetName("Lung lesion")
    segment.SetColor(1.0, 0.3, 0.2)
    labels = segments.orientedLabels(mask.astype(np.int16), nodes.ijkToRas(template))
    segment.AddRepresentation(segments.BINARY, labels)
    node.GetSegmentation().AddSegment(segment)
    node.CreateDefaultDisplayNodes()
    return node
