"""Results land where the engine computed them: transform, volumes, segmentations, markups, table."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from modules import scene_builders as build

SHIFT = build.translation(9, -6, 4)
VALID = (np.indices((40, 44, 48)).sum(0) > 40).astype(np.uint8)
REPORT = {
    "version": "0.1.0",
    "preset": "ct-inter-patient",
    "inputs": {"fixed": {"path": "/tmp/x/fixed.mha"}, "moving": {"path": "/tmp/x/moving.mha"}},
    "seconds": {"total": 12.3, "stages": {"affine": 2.0}},
    "peak_memory_mib": 850.0,
    "folding_percent": 0.0,
    "inverse_consistency_mm": {"mean": 0.01, "p95": 0.02, "max": 0.1},
    "expected_error_mm": {
        "median": 2.0,
        "p90": 4.5,
        "max": 11.0,
        "family": "between patients",
        "own_calibration": True,
        "labels": {"1": 3.25},
    },
    "dice": {"initial": {"1": 0.3}, "final": {"1": 0.9}, "initial_mean": 0.3, "final_mean": 0.9},
    "surface_mm": {"initial": {"1": {"mean": 3.0, "hd95": 9.0}}, "final": {"1": {"mean": 1.25, "hd95": 2.5}}},
    "tre_mm": {"initial": {"mean": 12.0, "p95": 20.0}, "final": {"mean": 1.5, "p95": 2.5}, "n": 8},
}


@pytest.fixture
def lib(scene):
    """The parts of the module that need no window."""
    from types import SimpleNamespace

    from SAMConvexLib import nodes, segments
    from SAMConvexRegistrationLib import attachment, outputs, quality, request

    return SimpleNamespace(
        attachment=attachment, nodes=nodes, outputs=outputs, quality=quality, request=request, segments=segments
    )


def displacement(node_lib, fixed, direction=None, scale=1.0):
    """(transform as the engine writes it, lattice, vectors): a smooth field, then an affine."""
    direction = np.eye(4) if direction is None else direction
    lattice = build.translation(*build.center_of(fixed)) @ direction @ build.lattice((0, 0, 0), 5.0)
    vectors = build.smooth_displacement(lattice, (31, 31, 31)) * scale
    image = sitk.GetImageFromArray(vectors.astype(np.float64) * [-1, -1, 1], isVector=True)
    node_lib.setImageGeometry(image, lattice)
    transform = sitk.CompositeTransform(3)
    transform.AddTransform(node_lib.affineToSitk(SHIFT @ build.rotation(5)))
    transform.AddTransform(sitk.DisplacementFieldTransform(image))
    return transform


def pair(parents=False):
    array = build.smooth_array()
    fixed = build.volume("Fixed", array, build.centered(build.oblique(), array.shape))
    geometry = build.centered(build.oblique((2.2, 2.2, 2.8), -10, flip=True), array.shape)
    moving = build.volume("Moving", array + 3, SHIFT @ geometry)
    if parents:
        build.linear_parent(fixed, build.translation(-7, 3, 2) @ build.rotation(10, 0), "Fixed parent")
        build.linear_parent(moving, build.translation(4, 4, -3) @ build.rotation(-8, 1), "Moving parent")
    return fixed, moving


def expected_error(image):
    """2 mm, and 9 mm at one place, on a coarser grid."""
    error = sitk.Image([9, 9, 9], sitk.sitkFloat32) + 2.0
    error.SetSpacing([4.0 * step for step in image.GetSpacing()])
    error.SetOrigin(image.GetOrigin())
    error.SetDirection(image.GetDirection())
    error[6, 5, 4] = 9.0
    return error


def filled(lib, request, transform, **wanted):
    """Import made-up engine results."""
    run = lib.request.prepare(request)
    create = wanted.get("create", ["transform", "volume"])
    warped = sitk.Resample(run.moving.image, run.fixed.image, transform, sitk.sitkLinear, 3.0)
    run.target.mkdir()
    sitk.WriteTransform(transform, str(run.target / "transform.h5"))
    valid = sitk.GetImageFromArray(VALID)
    valid.CopyInformation(run.fixed.image)
    sitk.WriteImage(valid, str(run.target / "valid.nii.gz"))
    sitk.WriteImage(warped, str(run.target / "warped.nii.gz"))
    sitk.WriteImage(expected_error(run.fixed.image), str(run.target / "error.nii.gz"))
    (run.target / "report.json").write_text(json.dumps(REPORT))
    files = lib.outputs.readFiles(run, create)
    outputs = lib.outputs.OutputNodes()
    lib.outputs.create(request, outputs, create)
    return lib.outputs.fill(request, run, files, outputs)


@pytest.mark.parametrize("parents", [False, True], ids=["no parents", "linear parents"])
def test_the_scene_shows_what_the_engine_computed(lib, parents):
    fixed, moving = pair(parents)
    request = lib.request.RegistrationRequest(fixed, moving)
    result = filled(lib, request, displacement(lib.nodes, fixed))
    engine = slicer.util.arrayFromVolume(result.outputs.volume)
    copy = build.volume("Copy", slicer.util.arrayFromVolume(moving), lib.nodes.ijkToRas(moving))
    copy.SetAndObserveTransformNodeID(moving.GetTransformNodeID())
    lib.attachment.attach(copy, result.transformNode)
    scene = build.resample_by_mrml(copy, fixed, 3.0)
    # ITK and VTK end an image half a voxel apart.
    inside = (engine > 3.5) & (scene > 3.5)
    assert inside.sum() > 5000
    assert np.abs(engine - scene)[inside].max() < 0.5  # of 1500


def test_the_registered_volume_lies_on_the_fixed_grid_and_under_its_parent(lib):
    fixed, moving = pair(parents=True)
    result = filled(lib, lib.request.RegistrationRequest(fixed, moving), displacement(lib.nodes, fixed))
    volume = result.outputs.volume
    assert np.allclose(lib.nodes.ijkToRas(volume), lib.nodes.ijkToRas(fixed))
    assert volume.GetTransformNodeID() == fixed.GetTransformNodeID()
    assert volume.GetDisplayNode().GetWindow() == moving.GetDisplayNode().GetWindow()


def test_inputs_are_not_touched(lib):
    fixed, moving = pair(parents=True)
    seg = build.segmentation("Seg", moving, [("a", "A", (1, 0, 0), build.box_array((40, 44, 48)) > -1000)])
    points = build.markups("P", [build.center_of(moving)])
    inputs = (fixed, moving, seg, points)

    def state(node):
        content = slicer.util.arrayFromVolume(node).copy() if node.IsA("vtkMRMLVolumeNode") else None
        return (
            node.GetName(),
            node.GetTransformNodeID(),
            str(lib.nodes.ijkToRas(node)) if content is not None else "",
            content,
        )

    segment = seg.GetSegmentation().GetSegment("a")
    labels, points_before = segment.GetRepresentation(lib.segments.BINARY), lib.nodes.worldPoints(points)[1]
    modified, states = labels.GetMTime(), [state(node) for node in inputs]
    request = lib.request.RegistrationRequest(fixed, moving, movingSegmentation=seg, movingMarkups=points)
    create = ["transform", "volume", "segmentation", "markups", "jacobian", "table"]
    filled(lib, request, displacement(lib.nodes, fixed), create=create)
    for before, after in zip(states, [state(node) for node in inputs], strict=True):
        assert before[:3] == after[:3]
        assert before[3] is None or np.array_equal(before[3], after[3])
    assert segment.GetRepresentation(lib.segments.BINARY) is labels and labels.GetMTime() == modified
    assert np.array_equal(lib.nodes.worldPoints(points)[1], points_before)


def test_nothing_temporary_is_left_in_the_scene(lib):
    fixed, moving = pair()
    seg = build.segmentation("Seg", moving, [("a", "A", (1, 0, 0), build.box_array((40, 44, 48)) > -1000)])
    request = lib.request.RegistrationRequest(fixed, moving, movingSegmentation=seg)

    def inventory():
        scene = slicer.mrmlScene
        return {
            scene.GetNthNode(n).GetID(): scene.GetNthNode(n).GetClassName() for n in range(scene.GetNumberOfNodes())
        }

    before = inventory()
    filled(lib, request, displacement(lib.nodes, fixed), create=["transform", "volume", "segmentation"])
    added = sorted(name for key, name in inventory().items() if key not in before)
    assert added == [
        "vtkMRMLScalarVolumeDisplayNode",
        "vtkMRMLScalarVolumeNode",
        "vtkMRMLSegmentationDisplayNode",
        "vtkMRMLSegmentationNode",
        "vtkMRMLTransformNode",
    ]


def overlapping_segments(reference):
    shape = slicer.util.arrayFromVolume(reference).shape
    first, second = np.zeros(shape, bool), np.zeros(shape, bool)
    first[10:28, 12:30, 12:30] = True
    second[18:34, 20:36, 20:40] = True
    return [("one", "Liver", (0.8, 0.3, 0.2), first), ("two", "Tumor", (0.1, 0.9, 0.4), second)]


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_a_segmentation_is_warped_as_the_engine_warps_labels(lib, degrees):
    array = build.smooth_array()
    geometry = build.centered(build.oblique(degrees=degrees), array.shape)
    fixed, moving = build.volume("Fixed", array, geometry), build.volume("Moving", array, SHIFT @ geometry)
    transform = displacement(lib.nodes, fixed)
    pieces = overlapping_segments(moving)
    seg = build.segmentation("Seg", moving, pieces)
    request = lib.request.RegistrationRequest(fixed, moving, movingSegmentation=seg)
    run = lib.request.prepare(request)
    result = filled(lib, request, transform, create=["segmentation"])
    for segment_id, _name, _color, mask in pieces:
        label = sitk.GetImageFromArray(mask.astype(np.uint8))
        label.CopyInformation(run.moving.image)
        truth = sitk.Resample(label, run.fixed.image, transform, sitk.sitkLabelLinear, 0)
        truth = sitk.GetArrayFromImage(truth) > 0
        got = slicer.util.arrayFromSegmentBinaryLabelmap(result.outputs.segmentation, segment_id, fixed) > 0
        dice = 2 * (truth & got).sum() / (truth.sum() + got.sum())
        assert truth.sum() > 3000
        assert dice > 0.999, f"{segment_id}: {dice}"


def test_names_colors_terminology_and_overlaps_of_segments_are_kept(lib):
    fixed, moving = pair()
    seg = build.segmentation("Seg", moving, overlapping_segments(moving))
    seg.GetSegmentation().GetSegment("two").SetTag("TerminologyEntry", "Segmentation category~A^B^C~D^E^F")
    request = lib.request.RegistrationRequest(fixed, moving, movingSegmentation=seg)
    result = filled(lib, request, displacement(lib.nodes, fixed), create=["segmentation"]).outputs.segmentation
    segmentation = result.GetSegmentation()
    assert lib.segments.segmentIds(result) == ["one", "two"]
    assert segmentation.GetSegment("two").GetName() == "Tumor"
    assert np.allclose(segmentation.GetSegment("two").GetColor(), (0.1, 0.9, 0.4))
    tag = vtk.mutable("")
    assert segmentation.GetSegment("two").GetTag("TerminologyEntry", tag)
    assert str(tag) == "Segmentation category~A^B^C~D^E^F"
    masks = [slicer.util.arrayFromSegmentBinaryLabelmap(result, s, fixed) > 0 for s in ("one", "two")]
    assert (masks[0] & masks[1]).sum() > 300
    assert result.GetNodeReferenceID("referenceImageGeometryRef") == fixed.GetID()


def test_an_empty_segment_stays_in_the_list(lib):
    fixed, moving = pair()
    seg = build.segmentation("Seg", moving, overlapping_segments(moving))
    seg.GetSegmentation().AddEmptySegment("three", "Nothing")
    request = lib.request.RegistrationRequest(fixed, moving, movingSegmentation=seg)
    result = filled(lib, request, displacement(lib.nodes, fixed), create=["segmentation"]).outputs.segmentation
    assert lib.segments.segmentIds(result) == ["one", "two", "three"]


def test_points_go_where_their_surroundings_go(lib):
    fixed, moving = pair(parents=True)
    truth = build.center_of(fixed) + np.random.default_rng(3).uniform(-20, 20, (12, 3))
    transform = displacement(lib.nodes, fixed)
    inMoving = np.array([transform.TransformPoint(p) for p in truth * [-1, -1, 1]]) * [-1, -1, 1]
    points = build.markups("P", inMoving, [f"p{n}" for n in range(12)])
    points.SetNthControlPointDescription(3, "bifurcation")
    points.UnsetNthControlPointPosition(5)
    request = lib.request.RegistrationRequest(fixed, moving, movingMarkups=points)
    result = filled(lib, request, transform, create=["markups"]).outputs.markups
    labels, got = lib.nodes.worldPoints(result)
    assert labels == [f"p{n}" for n in range(12) if n != 5]
    assert np.abs(got - np.delete(truth, 5, 0)).max() < 0.05
    assert result.GetNumberOfControlPoints() == 12
    assert result.GetNthControlPointDescription(3) == "bifurcation"


def test_results_remember_where_they_come_from(lib):
    fixed, moving = pair()
    result = filled(lib, lib.request.RegistrationRequest(fixed, moving), displacement(lib.nodes, fixed))
    transform = result.transformNode
    assert transform.GetNodeReference("spatialRegistrationFixed") is fixed
    assert transform.GetNodeReference("spatialRegistrationMoving") is moving
    report = lib.quality.reportOf(transform)
    assert report["inputs"]["moving"]["path"] == "Moving"
    assert transform.GetAttribute("SAMConvex.Preset") == "ct-inter-patient"


def test_the_quality_table_names_structures_and_has_before_and_after(lib):
    fixed, moving = pair()
    seg = build.segmentation("M", moving, overlapping_segments(moving))
    other = build.segmentation("F", fixed, overlapping_segments(fixed)[:1])
    request = lib.request.RegistrationRequest(fixed, moving, movingSegmentation=seg, fixedSegmentation=other)
    table = filled(lib, request, displacement(lib.nodes, fixed), create=["table"]).outputs.table
    rows = [[table.GetTable().GetValue(r, c).ToString() for c in range(4)] for r in range(table.GetNumberOfRows())]
    assert ["Dice, Liver", "0.300", "0.900", ""] in rows
    assert ["Landmark error, mean", "12.00", "1.50", "mm"] in rows
    assert ["Computing time", "", "12.30", "s"] in rows
    assert ["Expected error, nine tenths of the body", "", "4.50", "mm"] in rows
    assert ["Expected error (90 %), Liver", "", "3.25", "mm"] in rows
    assert ["Distance of surfaces, mean, Liver", "3.00", "1.25", "mm"] in rows
    assert ["Distance of surfaces, 95th percentile (HD95), Liver", "9.00", "2.50", "mm"] in rows


def test_every_landmark_has_its_error_under_its_own_name(lib):
    fixed, moving = pair()
    points = [(0, 0, 0), (1, 0, 0), (2, 0, 0)]
    named = [build.markups(name, points, labels) for name, labels in (("F", "xyz"), ("M", "zyx"))]
    request = lib.request.RegistrationRequest(fixed, moving, fixedMarkups=named[0], movingMarkups=named[1])
    run = lib.request.prepare(request)
    report = {"tre_mm": {"each_initial": [3.0, 4.0, 5.0], "each": [1.0, 2.0, 1.5]}}
    rows = lib.quality.tableTexts(lib.quality.namedReport(report, run, request))
    assert rows == [
        ("Landmark error, x", "3.00", "1.00", "mm"),
        ("Landmark error, y", "4.00", "2.00", "mm"),
        ("Landmark error, z", "5.00", "1.50", "mm"),
    ]
    # A report that was made elsewhere has numbers.
    assert [row[0] for row in lib.quality.tableTexts(report)][-1] == "Landmark error, 3"
    unnamed = build.markups("U", points, ["", "", ""])
    assert lib.request.pairedNames(unnamed, named[1]) == ["1", "2", "3"]


@pytest.mark.parametrize("ending", [".mrb", ".mrml"])
def test_a_saved_and_reloaded_scene_gives_the_same_pixels(lib, ending, tmp_path):
    fixed, moving = pair()
    result = filled(lib, lib.request.RegistrationRequest(fixed, moving), displacement(lib.nodes, fixed))
    lib.attachment.attach(moving, result.transformNode)
    before = build.resample_by_mrml(moving, fixed, 3.0)
    path = tmp_path / ("scene" + ending)
    if ending == ".mrml":
        # A scene file refers to its nodes' files.
        for node in (fixed, moving, result.outputs.volume):
            assert slicer.util.saveNode(node, str(tmp_path / f"{node.GetID()}.nrrd"))
        assert slicer.util.saveNode(result.transformNode, str(tmp_path / "transform.h5"))
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(path))
    lib.nodes.restoreInterpolation(slicer.mrmlScene)
    fixed, moving = slicer.util.getNode("Fixed"), slicer.util.getNode("Moving")
    assert moving.GetParentTransformNode() is not None
    after = build.resample_by_mrml(moving, fixed, 3.0)
    assert np.abs(after - before).max() < 1e-2
    transform = moving.GetParentTransformNode()
    assert transform.GetNodeReference("spatialRegistrationFixed") is fixed
    assert lib.quality.reportOf(transform)["dice"]["final_mean"] == 0.9


def test_an_output_that_is_an_input_is_refused(lib):
    fixed, moving = pair()
    request = lib.request.RegistrationRequest(fixed, moving)
    with pytest.raises(lib.nodes.NodeError, match="Moving"):
        lib.outputs.checkTargets(request, lib.outputs.OutputNodes(volume=moving))


def test_masks_and_labels_reach_the_engine_on_the_volumes_grid(lib):
    fixed, moving = pair(parents=True)
    pieces = overlapping_segments(fixed)
    parent = fixed.GetTransformNodeID()
    fixed.SetAndObserveTransformNodeID(None)
    seg = build.segmentation("F", fixed, pieces)
    for node in (fixed, seg):
        node.SetAndObserveTransformNodeID(parent)
    request = lib.request.RegistrationRequest(fixed, moving, fixedMask=seg)
    run = lib.request.prepare(request)
    run.write()
    mask = sitk.ReadImage(str(run.folder / "fixed-mask.mha"))
    assert np.array_equal(sitk.GetArrayFromImage(mask) > 0, pieces[0][3] | pieces[1][3])
    assert np.allclose(mask.GetOrigin(), run.fixed.image.GetOrigin())
    assert "--fixed-mask" in run.arguments


@pytest.mark.parametrize("under_a_parent", [False, True])
def test_a_turned_box_reaches_the_engine_as_a_mask(lib, under_a_parent):
    fixed, moving = pair(parents=True)
    box = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
    box.SetSize([40.0, 24.0, 30.0])
    center = np.array([3.0, -8.0, 18.0])
    turned = build.translation(*center) @ build.rotation(30) @ build.rotation(20, 0)
    box.SetAndObserveObjectToNodeMatrix(build.vtk_matrix(turned))
    stretched = np.diag([1.3, 0.8, 1.0, 1.0])
    if under_a_parent:
        build.linear_parent(box, stretched)
        turned = stretched @ turned
    run = lib.request.prepare(lib.request.RegistrationRequest(fixed, moving, fixedMask=box))
    run.write()
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(run.folder / "fixed-mask.mha")))
    index = np.indices(mask.shape).reshape(3, -1)[::-1]
    toWorld = lib.nodes.parentToWorld(fixed) @ lib.nodes.ijkToRas(fixed)
    inBox = np.linalg.inv(turned) @ toWorld @ np.vstack([index, np.ones(index.shape[1])])
    expected = (np.abs(inBox[:3]) <= np.array([[20.0], [12.0], [15.0]])).all(0).reshape(mask.shape)
    # Voxel centers on the very faces of the box may fall to either side.
    assert (expected != (mask > 0)).sum() <= 2 and 500 < expected.sum() < expected.size / 2
    box.SetCenterWorld(1000.0, 0.0, 0.0)
    with pytest.raises(lib.nodes.NodeError, match="'Box' does not cover any voxel of 'Fixed'"):
        lib.request.prepare(lib.request.RegistrationRequest(fixed, moving, fixedMask=box))


def test_protected_segments_reach_the_engine_as_separate_labels(lib):
    fixed, moving = pair()
    touching = [(segment_id, name, color, mask) for segment_id, name, color, mask in overlapping_segments(fixed)]
    seg = build.segmentation("Bones", fixed, touching)
    run = lib.request.prepare(lib.request.RegistrationRequest(fixed, moving, protectMask=seg))
    run.write()
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(run.folder / "protect.mha")))
    assert np.array_equal(labels == 2, touching[1][3])
    assert np.array_equal(labels == 1, touching[0][3] & ~touching[1][3])
    assert run.arguments[run.arguments.index("--protect") + 1] == run.folder / "protect.mha"
    assert run.protectedNames == {1: "Liver", 2: "Tumor"}
    empty = build.segmentation("Empty", fixed, [("a", "A", (1, 0, 0), np.zeros((40, 44, 48), bool))])
    with pytest.raises(lib.nodes.NodeError, match="'Empty' to protect"):
        lib.request.prepare(lib.request.RegistrationRequest(fixed, moving, protectMask=empty))


def test_warnings_name_nodes_instead_of_temporary_files(lib):
    fixed, moving = pair()
    request = lib.request.RegistrationRequest(fixed, moving)
    run = lib.request.prepare(request)
    path = next(path for path, name in run.names.items() if name == "Moving")
    sentence = "The settings need about 3.0 GiB: the tier 'half' was taken."
    report = lib.quality.namedReport({"warnings": [f"{path} shows only 12 %.", sentence]}, run, request)
    assert report["warnings"] == ["'Moving' shows only 12 %.", sentence]
    from types import SimpleNamespace

    from SAMConvexLib import job, status

    done = SimpleNamespace(state=job.JobState.DONE, seconds=5.0, result=SimpleNamespace(report=report))
    assert status.sentence(done) == f"Finished in 5 s. {' '.join(report['warnings'])}"


def test_the_overlap_mask_lies_on_the_fixed_grid(lib):
    fixed, moving = pair(parents=True)
    request = lib.request.RegistrationRequest(fixed, moving)
    result = filled(lib, request, displacement(lib.nodes, fixed), create=["validity"]).outputs.validity
    assert result.IsA("vtkMRMLLabelMapVolumeNode")
    assert np.array_equal(slicer.util.arrayFromVolume(result), VALID)
    assert np.allclose(lib.nodes.ijkToRas(result), lib.nodes.ijkToRas(fixed))
    assert result.GetTransformNodeID() == fixed.GetTransformNodeID()


def test_the_expected_error_lies_in_the_fixed_space_in_the_colors_of_the_picture(lib):
    from SAMConvexRegistrationLib import comparison

    fixed, moving = pair(parents=True)
    request = lib.request.RegistrationRequest(fixed, moving)
    volume = filled(lib, request, displacement(lib.nodes, fixed), create=["error"]).outputs.error
    world = lib.nodes.parentToWorld(volume) @ lib.nodes.ijkToRas(volume)
    fixedWorld = lib.nodes.parentToWorld(fixed) @ lib.nodes.ijkToRas(fixed)
    assert np.allclose(world @ [6, 5, 4, 1], fixedWorld @ [24, 20, 16, 1], atol=1e-3)
    colors = volume.GetDisplayNode().GetColorNode()
    color = [0.0] * 4
    colors.GetColor(0, color)
    assert color[1] > color[0]
    colors.GetColor(255, color)
    assert color[0] > color[1] and comparison.errorColors() is colors
    position, millimeters = comparison.leastCertainPlaces(volume, fixed)[0]
    assert np.allclose(position, (fixedWorld @ [24, 20, 16, 1])[:3], atol=1e-3) and millimeters == 9.0


def test_points_are_paired_by_label_and_otherwise_by_order(lib):
    first = build.markups("A", [(0, 0, 0), (1, 0, 0), (2, 0, 0)], ["x", "y", "z"])
    second = build.markups("B", [(20, 0, 0), (10, 0, 0)], ["y", "x"])
    fixed, moving = lib.request.pairedPoints(first, second)
    assert fixed.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert moving.tolist() == [[10, 0, 0], [20, 0, 0]]
    third = build.markups("C", [(5, 0, 0), (6, 0, 0), (7, 0, 0)], ["a", "b", "c"])
    fixed, moving = lib.request.pairedPoints(first, third)
    assert moving[:, 0].tolist() == [5, 6, 7]
