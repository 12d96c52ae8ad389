"""Nodes keep their place in the patient on the way to the engine and back."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
from modules import scene_builders as build


@pytest.fixture
def nodes(scene):
    from SAMConvexLib import nodes

    return nodes


GEOMETRIES = {
    "axis aligned": np.diag([2.0, 2.5, 3.0, 1.0]),
    "oblique": build.oblique(),
    "left-handed": build.oblique(flip=True),
    "flipped scanner axes": np.diag([-1.5, -1.5, 3.0, 1.0]),
    "far from the origin": build.translation(2000, -1500, 900) @ build.oblique(),
}


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_voxel_lies_at_the_same_place_for_the_engine(nodes, geometry):
    node = build.volume("v", build.box_array(), geometry)
    exported = nodes.imageFromVolume(node)
    assert np.allclose(exported.worldFromFrame, np.eye(4))
    for voxel in ((0, 0, 0), (5, 7, 11), (31, 27, 23)):
        lps = np.array(exported.image.TransformIndexToPhysicalPoint(voxel))
        ras = (geometry @ [*voxel, 1.0])[:3]
        assert np.abs(lps * [-1, -1, 1] - ras).max() < 1e-9
    assert np.allclose(nodes.imageToRas(exported.image), geometry, atol=1e-9)
    assert np.array_equal(sitk.GetArrayFromImage(exported.image), build.box_array())


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_the_file_the_engine_reads_has_the_same_geometry(nodes, geometry, tmp_path):
    from SAMConvexLib.files import writeImage

    node = build.volume("v", build.box_array(), geometry)
    writeImage(nodes.imageFromVolume(node).image, str(tmp_path / "v.mha"))
    assert np.allclose(nodes.imageToRas(sitk.ReadImage(str(tmp_path / "v.mha"))), geometry, atol=1e-6)


def test_linear_parents_are_part_of_what_is_registered(nodes):
    node = build.volume("v", build.box_array(), build.oblique())
    inner = build.linear_parent(node, build.translation(10, -5, 7) @ build.rotation(30, 1), "Inner")
    build.linear_parent(inner, build.rotation(-15), "Outer")
    exported = nodes.imageFromVolume(node)
    world = build.rotation(-15) @ build.translation(10, -5, 7) @ build.rotation(30, 1) @ build.oblique()
    assert np.allclose(nodes.imageToRas(exported.image), world, atol=1e-9)


def test_a_shearing_parent_is_composed_instead_of_lost(nodes):
    node = build.volume("v", build.box_array(), build.oblique())
    shear = np.eye(4)
    shear[0, 1] = 0.3
    build.linear_parent(node, shear)
    exported = nodes.imageFromVolume(node)
    assert np.allclose(exported.worldFromFrame @ nodes.imageToRas(exported.image), shear @ build.oblique(), atol=1e-9)


def test_a_non_linear_parent_is_refused_in_one_sentence_that_names_both(nodes):
    node = build.volume("Chest", build.box_array(), build.oblique())
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Gantry tilt")
    lattice = build.lattice((0, 0, 0))
    nodes.fillGridTransform(warp, build.smooth_displacement(lattice, (31, 31, 31)), lattice)
    node.SetAndObserveTransformNodeID(warp.GetID())
    with pytest.raises(nodes.NodeError, match="Chest.*Gantry tilt"):
        nodes.imageFromVolume(node)


@pytest.mark.parametrize("broken", ["empty", "slice", "vector"])
def test_unusable_volumes_are_named(nodes, broken):
    if broken == "vector":
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Odd one")
        slicer.util.updateVolumeFromArray(node, np.zeros((9, 9, 9, 3), np.uint8))
    else:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Odd one")
        if broken == "slice":
            slicer.util.updateVolumeFromArray(node, np.zeros((1, 9, 9), np.uint8))
    with pytest.raises(nodes.NodeError, match="Odd one"):
        nodes.imageFromVolume(node)


def lps_field(nodes, lattice, vectors):
    image = sitk.GetImageFromArray(vectors.astype(np.float64) * [-1, -1, 1], isVector=True)
    return nodes.setImageGeometry(image, lattice)


def composite(nodes, lattice, vectors, affine_ras):
    """As the engine writes it: the field acts first, the affine second."""
    transform = sitk.CompositeTransform(3)
    transform.AddTransform(nodes.affineToSitk(affine_ras))
    transform.AddTransform(sitk.DisplacementFieldTransform(lps_field(nodes, lattice, vectors)))
    return transform


@pytest.mark.parametrize(
    "direction", [np.eye(4), build.rotation(25) @ build.rotation(10, 1)], ids=["aligned", "oblique"]
)
def test_a_grid_transform_maps_points_as_the_itk_transform_does(nodes, direction):
    fixed = build.volume("f", build.box_array(), build.oblique())
    moving = build.volume("m", build.box_array(), build.translation(5, 5, 5) @ build.oblique(flip=True))
    lattice = build.translation(*build.center_of(fixed)) @ direction @ build.lattice((0, 0, 0))
    affine = build.translation(8, -3, 2) @ build.rotation(6) @ np.diag([1.05, 0.97, 1.0, 1.0])
    transform = composite(nodes, lattice, build.smooth_displacement(lattice, (31, 31, 31)), affine)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "T")
    nodes.fillGridTransform(
        node, *nodes.gridFromSitk(transform, nodes.imageFromVolume(fixed), nodes.imageFromVolume(moving))
    )
    points = np.random.default_rng(0).uniform(-25, 25, (200, 3)) + build.center_of(fixed)
    expected = np.array([transform.TransformPoint(p) for p in points * [-1, -1, 1]]) * [-1, -1, 1]
    got = nodes.transformPoints(node.GetTransformFromParent(), points)
    assert np.abs(got - expected).max() < 1e-3
    back = nodes.transformPoints(node.GetTransformToParent(), got)
    assert np.abs(back - points).max() < 0.02


def test_world_transforms_account_for_shearing_parents_on_both_sides(nodes):
    shear = np.eye(4)
    shear[0, 1] = 0.2
    fixed = build.volume("f", build.box_array(), build.oblique())
    moving = build.volume("m", build.box_array(), build.oblique())
    build.linear_parent(fixed, shear)
    build.linear_parent(moving, build.translation(4, 0, 0) @ shear)
    frames = nodes.imageFromVolume(fixed), nodes.imageFromVolume(moving)
    # The same voxels: identity between the frames, the parents' difference in the world.
    vectors, lattice = nodes.gridFromSitk(nodes.affineToSitk(np.eye(4)), *frames)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "T")
    nodes.fillGridTransform(node, vectors, lattice)
    points = build.center_of(fixed) + np.random.default_rng(1).uniform(-15, 15, (50, 3))
    assert np.abs(nodes.transformPoints(node.GetTransformFromParent(), points) - points - [4, 0, 0]).max() < 1e-3


@pytest.mark.parametrize("kind", ["linear", "grid"])
def test_an_initial_transform_means_the_same_to_engine_and_scene(nodes, kind):
    fixed = build.volume("f", build.box_array(), build.oblique())
    moving = build.volume("m", build.box_array(), build.oblique())
    shear = np.eye(4)
    shear[1, 0] = 0.15
    build.linear_parent(moving, shear)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Initial")
    if kind == "linear":
        node.SetMatrixTransformToParent(build.vtk_matrix(build.translation(5, 6, 7) @ build.rotation(12, 1)))
    else:
        lattice = build.lattice(build.center_of(fixed), 7.0)
        nodes.fillGridTransform(node, build.smooth_displacement(lattice, (31, 31, 31)), lattice)
    frames = nodes.imageFromVolume(fixed), nodes.imageFromVolume(moving)
    transform = nodes.transformNodeToSitk(node, *frames)
    points = build.center_of(fixed) + np.random.default_rng(2).uniform(-15, 15, (60, 3))
    inFixed = nodes.lpsInFrame(points, frames[0].worldFromFrame)
    got = np.array([transform.TransformPoint(p) for p in inFixed])
    moved = nodes.transformPoints(node.GetTransformFromParent(), points)
    assert np.abs(got - nodes.lpsInFrame(moved, frames[1].worldFromFrame)).max() < (1e-6 if kind == "linear" else 0.05)


def test_the_volume_change_map_is_right_on_oblique_and_flipped_lattices(nodes):
    affine = np.diag([1.1, 0.9, 1.2])
    for lattice in (build.lattice((0, 0, 0)), build.oblique(), build.oblique(flip=True)):
        index = np.moveaxis(np.indices((9, 10, 11))[::-1], 0, -1)
        points = index @ lattice[:3, :3].T + lattice[:3, 3]
        determinant = nodes.jacobianDeterminant(points @ (affine - np.eye(3)).T, lattice)
        assert np.abs(determinant - np.linalg.det(affine)).max() < 1e-3


def test_a_loaded_grid_interpolates_linearly_again(nodes, tmp_path):
    lattice = build.lattice((0, 0, 0))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "T")
    nodes.fillGridTransform(node, build.smooth_displacement(lattice, (31, 31, 31)), lattice)
    node.GetTransformFromParentAs("vtkOrientedGridTransform").SetInterpolationModeToCubic()
    nodes.restoreInterpolation(slicer.mrmlScene)
    assert node.GetTransformFromParentAs("vtkOrientedGridTransform").GetInterpolationMode() == 1
