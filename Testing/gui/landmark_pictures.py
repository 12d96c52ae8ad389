"""Photographs of the landmark module: found points, live matching, a lesion's course. Called by pictures.py.

The pair is the demo's; the landmarks are the centers of organs in the atlas that comes with one of the two CTs, and the
follow-up of the lesion picture is the template itself, shifted. Everything is computed by the real engine.
"""

from __future__ import annotations

import numpy as np
from camera import REPOSITORY, coarser

# Label values of the atlas (TotalSegmentator's list) whose centers are good landmarks.
LANDMARKS = {"Trachea": 16, "Heart": 51, "Aorta": 52, "Liver": 5, "Spleen": 1, "Vertebra T6": 38, "Vertebra T10": 34}


# Invented lesions: name, place from the middle of the image (LPS mm), radius in mm at each of the three visits.
LESIONS = (("Lung lesion", (-75.0, 5.0, 20.0), (11.0, 7.0, 5.0)), ("Left nodule", (80.0, 10.0, 0.0), (7.0, 6.0, 9.5)))
VISITS = (("Baseline", "20260112"), ("March", "20260316"), ("June", "20260608"))


def take_all(window, camera, offline, spacing, lesions_only=False):
    """Make the scene, go through the three tabs, take a picture of each."""
    import slicer
    from harness import load_module
    from samconvex.cli.demo import obtain_pair

    load_module(REPOSITORY / "SAMLandmark" / "SAMLandmark.py")
    slicer.mrmlScene.Clear(0)
    slicer.util.selectModule("SAMLandmark")
    widget = slicer.modules.SAMLandmarkWidget
    pair = coarser(obtain_pair(offline, print), spacing)
    if not lesions_only:
        template, query, points = landmarks(window, camera, widget, pair)
        live(camera, widget, template, query, points)
    lesions(window, camera, widget, pair.moving)
    widget.cleanup()


def landmarks(window, camera, widget, pair):
    """The Landmarks tab with found points; returns the template, the target scan and the points."""
    from harness import wait_until
    from harness.pictures import settle

    ui = widget.ui
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
    return template, query, points


def live(camera, widget, template, query, points):
    """Live matching with its overlay."""
    import slicer
    from harness import wait_until
    from harness.pictures import settle

    ui = widget.ui
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
    # Where the mouse would be: its view shows that slice.
    slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().JumpSliceByOffsetting(*place)
    for _count in range(20):
        live.moveTo(template, place)
        wait_until(lambda: not live._worker.isBusy, 120)
    settle(0.5)
    camera.take("landmarks-live", ui.liveStatusLabel)
    print(f"{live.message}; {ui.liveLatencyLabel.text}", flush=True)
    ui.liveStartButton.click()


def lesions(window, camera, widget, volume):
    """The Lesions tab: a course of three visits, side by side, and its plot."""
    import slicer
    from harness import wait_until
    from harness.pictures import settle

    ui = widget.ui
    ui.tabWidget.setCurrentIndex(2)
    for node in slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode"):
        node.GetDisplayNode().SetVisibility(False)
    visits = [visit_node(volume, number) for number in range(len(VISITS))]
    ui.baselineSelector.setCurrentNode(visits[0])
    widget.trackingPanel.lesions.setChecked(lesion_node(volume, visits[0]))
    for later in visits[1:]:
        widget.trackingPanel.followUps.setChecked(later)
    ui.trackButton.click()
    wait_until(lambda: not widget.trackingPanel.isRunning, 1800)
    print(ui.trackStatusLabel.text, flush=True)
    ui.trackInputsButton.collapsed = True
    for row in range(ui.courseTable.rowCount):
        ui.courseTable.clearSelection()
        ui.courseTable.selectRow(row)
        ui.confirmButton.click()
    window.fit()
    ui.courseTable.clearSelection()
    ui.courseTable.selectRow(1)
    closer(2)
    settle(0.5)
    camera.take("landmarks-lesions", ui.noticeLabel)
    ui.lesionSideBySideCheckBox.checked = True
    window.fit()
    ui.courseTable.clearSelection()
    ui.courseTable.selectRow(2)
    closer(2)
    settle(0.5)
    camera.take("landmarks-lesions-beside", ui.courseTable)
    ui.lesionSideBySideCheckBox.checked = False
    ui.plotKindComboBox.setCurrentIndex(1)
    ui.plotButton.click()
    settle(0.5)
    camera.take("landmarks-lesions-plot", ui.noticeLabel)


def closer(factor):
    """Zoom into all slice views around their middle."""
    import slicer

    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        width, height, depth = node.GetFieldOfView()
        node.SetFieldOfView(width / factor, height / factor, depth)


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


def visit_node(volume, number):
    """A visit's image: the volume with the lesions as they are then, the later ones a little moved."""
    from SAMConvexLib import nodes

    name, day = VISITS[number]
    drawn = volume
    for _name, place, radii in LESIONS:
        drawn = with_ball(drawn, place, radii[number])
    node = volume_node(drawn, name)
    matrix = np.eye(4)
    matrix[:3, 3] = number * np.array((4.0, -3.0, 6.0))
    node.SetIJKToRASMatrix(nodes.vtkFromMatrix(matrix @ nodes.ijkToRas(node)))
    node.SetAttribute("SAMLandmark.AcquisitionDate", day)
    return node


def with_ball(volume, place, radius):
    """The volume with a ball of soft tissue in it."""
    points = volume.grid.voxel_centers(reference=volume.grid.center).numpy()
    tensor = volume.tensor.clone()
    tensor[0, 0][np.asarray(np.linalg.norm(points - np.asarray(place), axis=-1) < radius)] = 45
    return volume.with_tensor(tensor)


def lesion_node(volume, baseline):
    """The lesions of the baseline as segments."""
    import slicer
    from SAMConvexLib import nodes, segments

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Lesions")
    node.SetReferenceImageGeometryParameterFromVolumeNode(baseline)
    for name, place, radii in LESIONS:
        mask = (with_ball(volume, place, radii[0]).tensor != volume.tensor)[0, 0].numpy()
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.SetColor(1.0, 0.3, 0.2)
        labels = segments.orientedLabels(mask.astype(np.int16), nodes.ijkToRas(baseline))
        segment.AddRepresentation(segments.BINARY, labels)
        node.GetSegmentation().AddSegment(segment)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetVisibility2DFill(False)
    return node
