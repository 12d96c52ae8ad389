"""Deformation and alignment are told apart; volume change has one meaning and one set of colors everywhere."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from modules import scene_builders as build


@pytest.fixture
def lib(scene):
    from SAMConvexLib import nodes
    from SAMConvexRegistrationLib import comparison, outputs, preview, previewpanel

    return SimpleNamespace(
        nodes=nodes,
        comparison=comparison,
        outputs=outputs,
        preview=preview,
        panel=previewpanel,
        Mode=preview.PreviewMode,
    )


APART = build.translation(390.0, -40.0, 60.0) @ build.rotation(12.0)


@pytest.fixture
def apart(lib):
    """(fixed, moving, transform, deformation, lattice): scans 390 mm apart, deformed by at most 12 mm."""
    array = build.smooth_array()
    geometry = build.centered(build.oblique(), array.shape)
    fixed = build.volume("Fixed", array, geometry)
    moving = build.volume("Moving", array, APART @ geometry)
    lattice = build.lattice(build.center_of(fixed), 5.0)
    deformation = build.smooth_displacement(lattice, (31, 31, 31), (9, -6, 7))
    index = np.moveaxis(np.indices((31, 31, 31))[::-1], 0, -1)
    points = index @ lattice[:3, :3].T + lattice[:3, 3]
    vectors = (points + deformation) @ APART[:3, :3].T + APART[:3, 3] - points
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Result")
    lib.nodes.fillGridTransform(transform, vectors.astype(np.float32), lattice)
    lib.nodes.setAlignment(transform, APART)
    return fixed, moving, transform, deformation, lattice


@pytest.mark.parametrize("percent", [0, 50, 100])
def test_half_is_half_of_the_deformation_and_the_alignment_stays(lib, apart, percent):
    fixed, moving, transform, deformation, lattice = apart
    preview = lib.preview.RegistrationPreview(fixed, moving, transform)
    preview.show(lib.Mode.CHECKERBOARD)
    preview.setDeformation(percent)
    shown = build.resample_by_mrml(preview.movingStandIn, fixed, 0.0)
    # Truth: the moving voxels, aligned, under a part of the deformation alone.
    aligned = build.volume("Aligned", slicer.util.arrayFromVolume(moving), lib.nodes.ijkToRas(fixed))
    part = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Part")
    lib.nodes.fillGridTransform(part, deformation * percent / 100, lattice)
    aligned.SetAndObserveTransformNodeID(part.GetID())
    expected = build.resample_by_mrml(aligned, fixed, 0.0)
    assert np.ptp(expected) > 900 and np.abs(shown - expected).max() < 1.0
    composed, inside = preview._warpedOnto(lib.comparison.coarseImage(fixed).image)
    assert inside.mean() > 0.7 and np.abs(composed - expected)[inside].max() < 1.0
    preview.revert()


def test_the_grid_is_drawn_without_the_alignment(lib, apart):
    fixed, moving, transform, deformation, _lattice = apart
    preview = lib.preview.RegistrationPreview(fixed, moving, transform)
    drawn = lib.nodes.gridOfTransform(preview.transformNode)[0]
    assert np.abs(drawn - deformation).max() < 1e-3
    preview.revert()


def test_the_linear_parts_of_the_engines_transform_are_the_alignment(lib):
    image = sitk.GetImageFromArray(np.full((8, 8, 8, 3), 3.0), isVector=True)
    field = sitk.DisplacementFieldTransform(image)
    chain = sitk.CompositeTransform(3)
    chain.AddTransform(lib.nodes.affineToSitk(build.translation(5, 6, 7)))
    chain.AddTransform(lib.nodes.affineToSitk(build.rotation(30)))
    chain.AddTransform(field)
    ends = [
        lib.nodes.ImageInFrame(sitk.Image([4, 4, 4], sitk.sitkUInt8), matrix)
        for matrix in (build.rotation(10, 1), build.translation(1, 2, 3))
    ]
    found = lib.nodes.alignmentFromSitk(chain, *ends)
    expected = build.translation(1, 2, 3) @ build.translation(5, 6, 7) @ build.rotation(30)
    assert np.allclose(found, expected @ np.linalg.inv(build.rotation(10, 1)))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "T")
    assert np.array_equal(lib.nodes.alignmentOf(node), np.eye(4))
    lib.nodes.setAlignment(node, found)
    assert np.allclose(lib.nodes.alignmentOf(node), found)


@pytest.fixture
def grown(lib):
    """(fixed, moving, transform, center): a ball of 12 mm in the moving image has 24 mm in the fixed one."""
    shape = (50, 50, 50)
    geometry = build.centered(np.diag([3.0, 3.0, 3.0, 1.0]), shape)
    fixed = build.volume("Fixed", np.full(shape, 100, np.int16), geometry)
    moving = build.volume("Moving", np.full(shape, 100, np.int16), geometry)
    slicer.util.arrayFromVolume(fixed)[[0, 1, 2, 3, 4, 5, -6, -5, -4, -3, -2, -1]] = -1000
    center = build.center_of(fixed) + np.array([12.0, -9.0, 6.0])
    lattice = build.lattice(build.center_of(fixed), 4.0, (33, 33, 33))
    index = np.moveaxis(np.indices((33, 33, 33))[::-1], 0, -1)
    offset = index @ lattice[:3, :3].T + lattice[:3, 3] - center
    radius = np.linalg.norm(offset, axis=-1, keepdims=True)
    # Half as far from the center inside 24 mm, nothing from 60 mm on.
    vectors = -0.5 * offset * np.clip((60 - radius) / 36, 0, 1)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "T")
    lib.nodes.fillGridTransform(transform, vectors.astype(np.float32), lattice)
    return fixed, moving, transform, center


def at(lib, volume, position):
    k, j, i = np.rint(np.linalg.inv(lib.nodes.ijkToRas(volume)) @ [*position, 1])[:3][::-1].astype(int)
    return slicer.util.arrayFromVolume(volume)[k, j, i]


def colored(volume, value):
    """RGB of a value as a slice view shows it."""
    display = volume.GetDisplayNode()
    lower, upper = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    color = [0.0] * 4
    display.GetColorNode().GetColor(int(np.clip(round(255 * (value - lower) / (upper - lower)), 0, 255)), color)
    return color[:3]


def test_tissue_that_grows_is_said_and_painted_as_growing(lib, grown):
    fixed, moving, transform, center = grown
    preview = lib.preview.RegistrationPreview(fixed, moving, transform)
    preview.show(lib.Mode.JACOBIAN)
    map_ = preview._jacobian
    assert at(lib, map_, center) == pytest.approx(8.0, rel=0.05)
    red, green, blue = colored(map_, at(lib, map_, center))
    assert red > 0.9 and blue < 0.2
    red, green, blue = colored(map_, 0.3)
    assert blue > 0.9 and red < 0.5
    position, determinant = preview.worstPlaces()[0]
    assert np.linalg.norm(position - center) < 24 and determinant == pytest.approx(1 / 8, rel=0.05)
    assert lib.panel.changeSentence(determinant) == "grown to 800 % of its volume"
    assert lib.panel.changeSentence(2.0) == "shrunk to 50 % of its volume"
    assert "folded" in lib.panel.changeSentence(-0.1)
    preview.revert()


def test_preview_saved_map_and_report_share_values_and_colors(lib, grown):
    from SAMConvexLib.process import engineModule

    fixed, moving, transform, _center = grown
    vectors, lattice = lib.nodes.gridOfTransform(transform)
    saved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Saved")
    change = lib.comparison.volumeChange(lib.nodes.jacobianDeterminant(vectors, lattice))
    lib.outputs.fillVolumeChange(saved, change, lattice)
    preview = lib.preview.RegistrationPreview(fixed, moving, transform)
    preview.show(lib.Mode.JACOBIAN)
    assert np.array_equal(slicer.util.arrayFromVolume(preview._jacobian), slicer.util.arrayFromVolume(saved))
    for value in (0.0, 0.4, 1.0, 1.7, 5.0):
        assert colored(preview._jacobian, value) == colored(saved, value)
    assert np.allclose(np.array(colored(saved, 0.0)) * 255, engineModule("samconvex.report.colors").FOLDED)
    for volume in (saved, preview._jacobian):
        legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(volume)
        assert legend.GetVisibility() and "shrunk" in legend.GetTitleText()
    preview.revert()
    # The colors of the saved map stay, those of the preview go.
    tables = [
        node for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode") if node.GetName() == "Volume change"
    ]
    assert tables == [saved.GetDisplayNode().GetColorNode()]
    assert len(slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")) == 1


def test_folds_have_no_volume(lib):
    change = lib.comparison.volumeChange(np.array([-1.0, 0.0, 0.5, 1.0, 4.0]))
    assert change.tolist() == [0.0, 0.0, 2.0, 1.0, 0.25]


def test_the_skin_is_no_worst_place(lib):
    """Beside the body's surface the field changes most; inside, less, and there is where one has to look."""
    shape = (40, 60, 60)
    geometry = build.centered(np.diag([3.0, 3.0, 3.0, 1.0]), shape)
    array = np.full(shape, -1000, np.int16)
    array[:, 8:-8, 8:-8] = 50
    fixed = build.volume("Fixed", array, geometry)
    lattice = build.lattice(build.center_of(fixed), 4.0, (41, 41, 31))
    index = np.moveaxis(np.indices((31, 41, 41))[::-1], 0, -1)
    points = index @ lattice[:3, :3].T + lattice[:3, 3]
    center = build.center_of(fixed)
    skin = center + np.array([64.0, 0.0, 0.0])
    inner = center + np.array([-20.0, 8.0, 0.0])
    vectors = np.zeros((31, 41, 41, 3))
    for place, strength in ((skin, 0.9), (inner, 0.5)):
        offset = points - place
        vectors -= strength * offset * np.exp(-(offset**2).sum(-1, keepdims=True) / 100.0)
    places = lib.comparison.worstPlaces(vectors.astype(np.float32), lattice, fixed)
    assert np.linalg.norm(places[0][0] - inner) < 8.0
    assert min(np.linalg.norm(position - skin) for position, _value in places) > 10.0


def test_the_marker_stands_at_the_place(lib, grown):
    fixed, moving, transform, center = grown
    preview = lib.preview.RegistrationPreview(fixed, moving, transform)
    preview.show(lib.Mode.BLEND)
    for position, text in ((center, "first"), (center + 5, "second")):
        preview.mark(position, text)
        markers = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
        assert len(markers) == 1 and markers[0].GetHideFromEditors() and not markers[0].GetSaveWithScene()
        labels, points = lib.nodes.worldPoints(markers[0])
        assert labels == [text] and np.allclose(points[0], position)
    preview.revert()
    assert not slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
