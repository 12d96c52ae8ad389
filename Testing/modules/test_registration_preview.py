"""The preview shows what the transform does, and Revert leaves no trace."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from modules import scene_builders as build


@pytest.fixture
def lib(scene):
    from SAMConvexLib import nodes
    from SAMConvexRegistrationLib import attachment, comparison, preview

    return SimpleNamespace(
        attachment=attachment, comparison=comparison, nodes=nodes, preview=preview, Mode=preview.PreviewMode
    )


@pytest.fixture
def result(lib):
    """A registered pair: (fixed, moving, transform, segmentation), the moving nodes under an own parent."""
    array = build.smooth_array()
    fixed = build.volume("Fixed", array, build.centered(build.oblique(), array.shape))
    moving = build.volume("Moving", array, build.centered(build.oblique(degrees=-10), array.shape))
    mask = array > 500
    seg = build.segmentation("Seg", moving, [("a", "A", (1, 0, 0), mask)])
    parent = build.linear_parent(moving, build.translation(4, -3, 2), "Own parent")
    seg.SetAndObserveTransformNodeID(parent.GetID())
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Result")
    lattice = build.lattice(build.center_of(fixed), 5.0)
    lib.nodes.fillGridTransform(transform, build.smooth_displacement(lattice, (31, 31, 31), (9, -6, 7)), lattice)
    return fixed, moving, transform, seg


@pytest.fixture
def views(scene):
    """Slice nodes and composites with settings worth restoring."""
    made = []
    for name in ("Red", "Green"):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", name)
        node.SetLayoutName(name)
        node.SetXYZOrigin(3, 4, 0)
        node.SetFieldOfView(123, 234, 1)
        composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", name)
        composite.SetLayoutName(name)
        composite.SetForegroundOpacity(0.3)
        composite.SetLinkedControl(True)
        made.append((node, composite))
    return made


def everything(scene):
    """All node XML of the scene that a preview could disturb."""
    found = {}
    for n in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(n)
        attributes = {name: node.GetAttribute(name) for name in node.GetAttributeNames()}
        parent = node.GetTransformNodeID() if node.IsA("vtkMRMLTransformableNode") else None
        more = ()
        if node.IsA("vtkMRMLSliceCompositeNode"):
            more = (
                node.GetBackgroundVolumeID(),
                node.GetForegroundVolumeID(),
                node.GetLabelVolumeID(),
                node.GetForegroundOpacity(),
                node.GetCompositing(),
                node.GetLinkedControl(),
            )
        elif node.IsA("vtkMRMLSliceNode"):
            sliceToRas = [node.GetSliceToRAS().GetElement(r, c) for r in range(4) for c in range(4)]
            more = (*sliceToRas, *node.GetFieldOfView(), *node.GetXYZOrigin())
        elif node.IsA("vtkMRMLScalarVolumeDisplayNode"):
            more = (node.GetWindow(), node.GetLevel(), node.GetColorNodeID())
        elif node.IsA("vtkMRMLSegmentationDisplayNode"):
            more = (node.GetVisibility(), node.GetVisibility2DFill(), node.GetVisibility2DOutline())
        found[node.GetID()] = (node.GetName(), attributes, parent, more)
    return found


def test_revert_restores_everything_exactly(lib, result, views, scene):
    fixed, moving, transform, seg = result
    for _node, composite in views:
        composite.SetBackgroundVolumeID(moving.GetID())
    before = everything(scene)
    preview = lib.preview.RegistrationPreview(fixed, moving, transform, seg)
    for mode in lib.Mode:
        preview.show(mode)
        preview.setDeformation(40)
    preview.setGridVisible(True)
    preview.setBlend(0.9)
    preview.jumpTo(preview.worstPlaces()[0][0])
    assert everything(scene) != before
    preview.revert()
    assert everything(scene) == before


def test_the_users_nodes_keep_their_parents_during_the_preview(lib, result, views):
    fixed, moving, transform, seg = result
    parents = moving.GetTransformNodeID(), seg.GetTransformNodeID()
    preview = lib.preview.RegistrationPreview(fixed, moving, transform, seg)
    preview.show(lib.Mode.BLEND)
    assert (moving.GetTransformNodeID(), seg.GetTransformNodeID()) == parents
    assert preview.movingStandIn.GetImageData() is moving.GetImageData()
    preview.revert()


@pytest.mark.parametrize("percent", [0, 50, 100])
def test_the_slider_carries_the_moving_image_along_the_way(lib, result, views, percent):
    fixed, moving, transform, seg = result
    preview = lib.preview.RegistrationPreview(fixed, moving, transform, seg)
    preview.show(lib.Mode.BLEND)
    preview.setDeformation(percent)
    shown = build.resample_by_mrml(preview.movingStandIn, fixed, 0.0)
    vectors, lattice = lib.nodes.gridOfTransform(transform)
    scaled = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Scaled")
    lib.nodes.fillGridTransform(scaled, vectors * percent / 100, lattice)
    lib.attachment.attach(moving, scaled)
    expected = build.resample_by_mrml(moving, fixed, 0.0)
    assert np.abs(shown - expected).max() < 0.5
    if percent:
        lib.attachment.detach(moving)
        assert np.abs(shown - build.resample_by_mrml(moving, fixed, 0.0)).max() > 20
    preview.revert()


def composed(preview):
    return slicer.util.arrayFromVolume(preview._composed)


def test_the_difference_is_fixed_minus_registered(lib, result, views):
    fixed, moving, transform, seg = result
    preview = lib.preview.RegistrationPreview(fixed, moving, transform, seg)
    preview.show(lib.Mode.DIFFERENCE)
    warped = build.resample_by_mrml(preview.movingStandIn, fixed, np.nan)
    inside = np.isfinite(warped)
    expected = (slicer.util.arrayFromVolume(fixed) - warped)[inside]
    assert np.abs(composed(preview)[inside] - expected).max() < 1.0
    preview.revert()


def test_the_checkerboard_alternates_fixed_and_registered(lib, result, views):
    fixed, moving, transform, seg = result
    preview = lib.preview.RegistrationPreview(fixed, moving, transform, seg)
    preview.show(lib.Mode.CHECKERBOARD)
    warped = build.resample_by_mrml(preview.movingStandIn, fixed, 0.0)
    first = lib.comparison.windowed(slicer.util.arrayFromVolume(fixed), fixed).astype(int)
    second = lib.comparison.windowed(warped, moving).astype(int)
    got = composed(preview).astype(int)
    isFirst, isSecond = np.abs(got - first) <= 1, np.abs(got - second) <= 1
    assert (isFirst | isSecond).mean() > 0.999
    differs = np.abs(first - second) > 5
    assert 0.2 < isFirst[differs].mean() < 0.8
    preview.revert()


def test_layers_show_the_chosen_comparison(lib, result, views):
    fixed, moving, transform, seg = result
    preview = lib.preview.RegistrationPreview(fixed, moving, transform, seg)
    preview.show(lib.Mode.BLEND)
    preview.setBlend(0.25)
    for _node, composite in views:
        assert composite.GetBackgroundVolumeID() == fixed.GetID()
        assert composite.GetForegroundVolumeID() == preview.movingStandIn.GetID()
        assert composite.GetForegroundOpacity() == 0.25
    preview.show(lib.Mode.FLICKER)
    opacities = []
    for _count in range(4):
        opacities.append(views[0][1].GetForegroundOpacity())
        preview.flick()
    assert opacities == [1.0, 0.0, 1.0, 0.0]
    preview.show(lib.Mode.JACOBIAN)
    assert "change" in slicer.mrmlScene.GetNodeByID(views[0][1].GetForegroundVolumeID()).GetName()
    preview.revert()


def test_green_and_magenta_leave_the_users_volumes_alone(lib, result, views):
    fixed, moving, transform, seg = result
    colors = [node.GetDisplayNode().GetColorNodeID() for node in (fixed, moving)]
    preview = lib.preview.RegistrationPreview(fixed, moving, transform, seg)
    preview.show(lib.Mode.FUSION)
    for _node, composite in views:
        layers = [composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()]
        shown = [slicer.mrmlScene.GetNodeByID(layer) for layer in layers]
        assert [node.GetDisplayNode().GetColorNode().GetName() for node in shown] == ["Green", "Magenta"]
        assert composite.GetCompositing() == slicer.vtkMRMLSliceCompositeNode.Add
        assert shown[0].GetTransformNodeID() == fixed.GetTransformNodeID()
        assert shown[1] is preview.movingStandIn
    assert [node.GetDisplayNode().GetColorNodeID() for node in (fixed, moving)] == colors
    # The next mode is gray again.
    preview.show(lib.Mode.BLEND)
    assert preview.movingStandIn.GetDisplayNode().GetColorNodeID() == colors[1]
    assert views[0][1].GetCompositing() == slicer.vtkMRMLSliceCompositeNode.Alpha
    preview.revert()


def test_the_worst_place_is_where_the_field_compresses_most(lib, views):
    array = build.smooth_array() + 500
    fixed = build.volume("Fixed", array, build.centered(np.diag([2.0, 2.0, 2.0, 1.0]), array.shape))
    moving = build.volume("Moving", array, lib.nodes.ijkToRas(fixed))
    lattice = build.lattice(build.center_of(fixed), 4.0)
    index = np.moveaxis(np.indices((31, 31, 31))[::-1], 0, -1)
    points = index @ lattice[:3, :3].T + lattice[:3, 3]
    center = build.center_of(fixed) + np.array([16.0, -12.0, 8.0])
    offset = points - center
    # Pulls towards one point: strongest compression there.
    vectors = -0.8 * offset * np.exp(-(offset**2).sum(-1, keepdims=True) / 200.0)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "T")
    lib.nodes.fillGridTransform(transform, vectors.astype(np.float32), lattice)
    preview = lib.preview.RegistrationPreview(fixed, moving, transform)
    places = preview.worstPlaces()
    assert np.linalg.norm(places[0][0] - center) < 5.0 and places[0][1] < 0.2
    preview.jumpTo(places[0][0])
    for node, _composite in views:
        # The plane holds the point: its distance along the normal is 0.
        normal = np.array([node.GetSliceToRAS().GetElement(r, 2) for r in range(3)])
        origin = np.array([node.GetSliceToRAS().GetElement(r, 3) for r in range(3)])
        assert abs(np.dot(places[0][0] - origin, normal)) < 1e-6
    preview.revert()


def test_attaching_moves_the_users_nodes_and_detaching_restores_them(lib, result):
    fixed, moving, transform, seg = result
    parent = moving.GetTransformNodeID()
    vectors, lattice = lib.nodes.gridOfTransform(transform)
    world = lib.nodes.parentToWorld(moving)
    lib.attachment.attach(moving, transform)
    assert lib.attachment.isAttached(moving)
    toWorld = slicer.mrmlScene.GetNodeByID(moving.GetTransformNodeID())
    point = build.center_of(fixed)
    expected = lib.nodes.transformPoints(transform.GetTransformToParent(), [(world @ [*point, 1.0])[:3]])[0]
    import vtk

    general = vtk.vtkGeneralTransform()
    toWorld.GetTransformToWorld(general)
    assert np.abs(np.array(general.TransformPoint(point)) - expected).max() < 0.02
    # The parent that other nodes share has not moved.
    assert slicer.mrmlScene.GetNodeByID(parent).GetTransformNodeID() is None
    count = slicer.mrmlScene.GetNumberOfNodes()
    lib.attachment.detach(moving)
    assert moving.GetTransformNodeID() == parent and not lib.attachment.isAttached(moving)
    assert slicer.mrmlScene.GetNumberOfNodes() == count - 1


def test_stand_ins_are_not_saved_with_the_scene(lib, result, views, scene):
    before = {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}
    preview = lib.preview.RegistrationPreview(*result)
    for mode in lib.Mode:
        preview.show(mode)
    preview.setGridVisible(True)
    for n in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(n)
        assert node.GetID() in before or not node.GetSaveWithScene(), node.GetName()
    preview.revert()


def test_nodes_of_the_preview_are_hidden_before_anyone_sees_them(lib, result, views, scene):
    import vtk

    seen = {}

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def on_added(caller, event, node):
        if not node.IsA("vtkMRMLDisplayNode"):
            seen[node.GetName()] = node.GetHideFromEditors() and (
                node.IsA("vtkMRMLColorNode") or not node.GetSaveWithScene()
            )

    tag = scene.AddObserver(scene.NodeAddedEvent, on_added)
    preview = lib.preview.RegistrationPreview(*result)
    for mode in lib.Mode:
        preview.show(mode)
    preview.setGridVisible(True)
    scene.RemoveObserver(tag)
    preview.revert()
    # The colors of the grid are made by MRML itself.
    seen = {name: hidden for name, hidden in seen.items() if "Displacement" not in name and "Transform" not in name}
    assert "Moving (preview)" in seen and "Volume change" in seen and all(seen.values()), seen


@pytest.mark.parametrize("ending", ["mrml", "mrb"])
@pytest.mark.parametrize("mode", ["BLEND", "DIFFERENCE"])
def test_a_scene_saved_during_a_preview_comes_back_with_the_users_layers(
    load_scripted_module, repository, lib, result, scene, tmp_path, ending, mode
):
    load_scripted_module(repository / "SAMConvexRegistration" / "SAMConvexRegistration.py", enter=False)
    fixed, moving, _transform, _segmentation = result
    red, green = (slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceCompositeNode{name}") for name in ("Red", "Green"))
    red.SetBackgroundVolumeID(fixed.GetID())
    red.SetForegroundVolumeID(moving.GetID())
    red.SetForegroundOpacity(0.3)
    green.SetBackgroundVolumeID(moving.GetID())
    preview = lib.preview.RegistrationPreview(*result)
    preview.show(lib.Mode[mode])
    # Slicer invokes no event before or while it saves.
    assert slicer.util.saveScene(str(tmp_path / f"scene.{ending}"))
    assert red.GetForegroundVolumeID() != moving.GetID()
    preview.revert()
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / f"scene.{ending}"))
    named = [[node.GetName() if node else None for node in layers_of(view)] for view in (red, green)]
    assert named == [["Fixed", "Moving"], ["Moving", None]]
    assert red.GetForegroundOpacity() == 0.3
    assert not [node for node in slicer.util.getNodes("*preview*").values()]
    assert all(view.GetAttribute("SAMConvex.Layers") is None for view in (red, green))


def layers_of(view):
    identifiers = view.GetBackgroundVolumeID(), view.GetForegroundVolumeID()
    return [slicer.mrmlScene.GetNodeByID(identifier) if identifier else None for identifier in identifiers]


def test_a_scene_added_during_a_preview_leaves_the_preview_on(load_scripted_module, repository, lib, result, tmp_path):
    load_scripted_module(repository / "SAMConvexRegistration" / "SAMConvexRegistration.py", enter=False)
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeRed")
    red.SetBackgroundVolumeID(result[1].GetID())
    preview = lib.preview.RegistrationPreview(*result)
    preview.show(lib.Mode.BLEND)
    slicer.mrmlScene.InvokeEvent(slicer.vtkMRMLScene.EndImportEvent)
    assert red.GetForegroundVolumeID() == preview.movingStandIn.GetID()
    preview.revert()
    assert red.GetBackgroundVolumeID() == result[1].GetID()


def test_a_transform_without_a_grid_is_refused(lib, result):
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Plain")
    with pytest.raises(lib.nodes.NodeError, match="Plain"):
        lib.preview.RegistrationPreview(result[0], result[1], other)
