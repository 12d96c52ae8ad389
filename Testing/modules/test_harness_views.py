"""The window's views show what the scene says: images, blends, outlines, points, grids, surfaces."""

import numpy as np
import pytest


@pytest.fixture
def cube(scene):
    """A volume with a bright cube at R -20..0, A 0..20, S -10..10 in 64 mm of black; 2 mm voxels."""
    import slicer

    values = np.zeros((32, 32, 32), np.int16)
    values[11:21, 16:26, 6:16] = 1000
    node = slicer.util.addVolumeFromArray(values, name="Cube")
    node.SetSpacing(2, 2, 2)
    node.SetOrigin(-31, -31, -31)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevelMinMax(0, 1000)
    return node


@pytest.fixture
def shown(main_window, cube, app):
    import slicer

    slicer.util.setSliceViewerLayers(background=cube)
    slicer.util.resetSliceViews()
    app.processEvents()
    return main_window.views()


def _at(view, ras):
    from harness.pictures import to_view

    column, row = to_view(view, ras)
    return view.pixels()[int(round(row)), int(round(column))]


def test_slices_show_the_image_where_it_lies(shown):
    for name in ("Red", "Yellow", "Green"):
        view = shown[name]
        view.mrmlSliceNode().JumpSliceByOffsetting(-10, 10, 0)
        assert _at(view, (-10, 10, 0)).min() > 240, name
        assert _at(view, (25, -25, 0) if name == "Red" else (-10, -25, 25)).max() < 10, name


def test_patient_right_is_at_the_left(shown):
    from harness.pictures import to_view

    right, left = to_view(shown["Red"], (20, 0, 0)), to_view(shown["Red"], (-20, 0, 0))
    assert right[0] < left[0]
    front, back = to_view(shown["Red"], (0, 20, 0)), to_view(shown["Red"], (0, -20, 0))
    assert front[1] < back[1]


def test_foreground_blends(shown, cube):
    import slicer

    slicer.util.setSliceViewerLayers(foreground=cube, background=None, foregroundOpacity=1.0)
    assert _at(shown["Red"], (-10, 10, 0)).min() > 240
    slicer.util.setSliceViewerLayers(background=None, foreground=None)
    assert shown["Red"].pixels().max() == 0 or _at(shown["Red"], (-10, 10, 0)).max() < 10


def test_moving_the_slice_changes_the_picture(shown):
    view = shown["Red"]
    view.sliceLogic().SetSliceOffset(0)
    assert _at(view, (-10, 10, 0)).min() > 240
    view.sliceLogic().SetSliceOffset(25)
    assert _at(view, (-10, 10, 25)).max() < 10


def test_segment_outline_lies_on_the_organ(shown, cube):
    import slicer
    from harness.pictures import colored, to_view

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(cube)
    segment = node.GetSegmentation().AddEmptySegment("cube", "cube", (0.0, 1.0, 0.0))
    mask = (slicer.util.arrayFromVolume(cube) > 0).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, cube)
    node.GetDisplayNode().SetVisibility2DFill(False)
    view = shown["Red"]
    view.sliceLogic().SetSliceOffset(0)
    found = np.argwhere(colored(view.pixels(), (0, 255, 0), 90))
    assert len(found) > 50
    corners = np.array([to_view(view, (x, y, 0)) for x, y in ((-20, 0), (0, 20))])
    expected = np.sort(corners, 0)
    assert np.abs(found[:, ::-1].min(0) - expected[0]).max() < 8
    assert np.abs(found[:, ::-1].max(0) - expected[1]).max() < 8


def test_points_and_deformation_grid_are_drawn(shown, cube):
    import slicer

    view = shown["Red"]
    view.sliceLogic().SetSliceOffset(0)
    before = view.pixels().copy()
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    points.CreateDefaultDisplayNodes()
    points.AddControlPoint(-25, -25, 0)
    with_point = view.pixels().copy()
    assert (with_point != before).any()
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    transform.CreateDefaultDisplayNodes()
    display = transform.GetDisplayNode()
    display.SetAndObserveGlyphPointsNode(None)
    display.SetRegionNode(cube) if hasattr(display, "SetRegionNode") else display.SetAndObserveRegionNode(cube)
    display.SetVisualizationMode(display.VIS_MODE_GRID)
    display.SetGridSpacingMm(10)
    display.SetVisibility(1)
    display.SetVisibility2D(1)
    assert (view.pixels() != with_point).any()


def test_surface_appears_in_3d(main_window, cube):
    import slicer

    view = main_window.views()["3D"]
    before = view.pixels().copy()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(cube)
    segment = node.GetSegmentation().AddEmptySegment("cube", "cube", (1.0, 0.0, 0.0))
    mask = (slicer.util.arrayFromVolume(cube) > 0).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, cube)
    node.CreateClosedSurfaceRepresentation()
    slicer.util.resetThreeDViews()
    picture = view.pixels().astype(int)
    assert (picture != before).any()
    red = (picture[..., 0] > picture[..., 1] + 60) & (picture[..., 0] > picture[..., 2] + 60)
    assert red.mean() > 0.02


def test_layouts_and_layers_by_script(main_window, cube, app):
    import slicer

    manager = slicer.app.layoutManager()
    assert list(manager.sliceViewNames()) == ["Red", "Yellow", "Green"]
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    app.processEvents()
    assert manager.sliceWidget("Red").visible and not manager.sliceWidget("Green").visible
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    app.processEvents()
    assert manager.sliceWidget("Green").visible
    assert manager.sliceWidget("Green").mrmlSliceNode().GetOrientation() == "Coronal"
    assert manager.mrmlSliceLogics().GetNumberOfItems() == 3


def test_wheel_scrolls_and_click_places_a_point(shown, app):
    import slicer
    from PySide6 import QtCore, QtGui
    from PySide6.QtTest import QTest

    view = shown["Red"]
    view.sliceLogic().SetSliceOffset(1.0)
    center = QtCore.QPoint(view.size.width() // 2, view.size.height() // 2)
    wheel = QtGui.QWheelEvent(
        QtCore.QPointF(center),
        view.mapToGlobal(QtCore.QPointF(center)),
        QtCore.QPoint(),
        QtCore.QPoint(0, 120),
        QtCore.Qt.MouseButton.NoButton,
        QtCore.Qt.KeyboardModifier.NoModifier,
        QtCore.Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    app.sendEvent(view, wheel)
    assert abs(view.sliceLogic().GetSliceOffset() - 1.0) == pytest.approx(2.0)

    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    points.CreateDefaultDisplayNodes()
    slicer.modules.markups.logic().SetActiveList(points)
    slicer.modules.markups.logic().StartPlaceMode(False)
    view.sliceLogic().SetSliceOffset(1.0)
    app.processEvents()
    view.pixels()
    QTest.mouseMove(view, center - QtCore.QPoint(5, 5))
    QTest.mouseMove(view, center)
    QTest.mouseClick(view, QtCore.Qt.MouseButton.LeftButton, pos=center)
    assert points.GetNumberOfDefinedControlPoints() == 1
    position = np.array(points.GetNthControlPointPositionWorld(0))
    expected = np.array(view.convertXYZToRAS(view.convertDeviceToXYZ((center.x(), center.y()))))
    assert np.abs(position - expected).max() < 0.5
    slicer.app.applicationLogic().GetInteractionNode().SwitchToViewTransformMode()


def test_mouse_shows_position_and_value(shown, main_window, app):
    from harness.pictures import to_view
    from PySide6 import QtCore
    from PySide6.QtTest import QTest

    view = shown["Red"]
    view.sliceLogic().SetSliceOffset(0)
    column, row = to_view(view, (-10, 10, 0))
    QTest.mouseMove(view, QtCore.QPoint(round(column), round(row)))
    app.processEvents()
    assert "Cube: 1000" in main_window._probe.text


def test_window_is_photographed(main_window, tmp_path):
    from harness.pictures import photograph
    from PySide6 import QtGui

    photograph(main_window, tmp_path / "window.png")
    image = QtGui.QImage(str(tmp_path / "window.png"))
    assert (image.width(), image.height()) == main_window.SIZE


def test_module_is_entered_and_left_in_the_panel(main_window, load_scripted_module):
    from pathlib import Path

    import slicer

    widget = load_scripted_module(Path(__file__).parent / "data/HarnessExample/HarnessExample.py", enter=False)
    assert not widget.parent.isEntered
    slicer.util.selectModule("HarnessExample")
    assert widget.parent.isEntered and widget.ui.applyButton.visible
    assert slicer.util.selectedModule() == "HarnessExample"
    slicer.util.selectModule("")
    assert not widget.parent.isEntered


def test_saved_scene_gives_the_same_pixels(shown, tmp_path, app):
    import slicer

    slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().JumpSliceByOffsetting(-10, 10, 4)
    before = {name: shown[name].pixels().copy() for name in ("Red", "Yellow", "Green")}
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    app.processEvents()
    assert (shown["Red"].pixels() != before["Red"]).any()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    app.processEvents()
    for name, picture in before.items():
        assert (shown[name].pixels() == picture).all(), name


def chart_of(values, color=(1.0, 0.0, 0.0)):
    """A chart of one line over 0, 1, 2, ...; returns (chart, series, table)."""
    import slicer

    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    slicer.util.updateTableFromArray(table, np.column_stack([np.arange(len(values)), values]).astype(float), ["x", "y"])
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "Line")
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName("x")
    series.SetYColumnName("y")
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    series.SetColor(*color)
    series.SetLineWidth(4)
    chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode")
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetLegendVisibility(False)
    return chart, series, table


def reds(view):
    """(rows, columns) of the red pixels of a view."""
    picture = view.pixels().astype(int)
    return np.nonzero((picture[..., 0] > 180) & (picture[..., 1:].max(-1) < 90))


def test_a_chart_is_drawn_and_follows_its_numbers_color_and_axes(main_window, views):
    import slicer

    view = views["Plot"]
    assert not view.isVisible() and len(reds(view)[0]) == 0
    chart, series, table = chart_of([0.0, 5.0, 10.0])
    slicer.modules.plots.logic().ShowChartInLayout(chart)
    manager = slicer.app.layoutManager()
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView and not view.isHidden()
    assert manager.plotViewCount == 1 and manager.plotWidget(0).mrmlPlotViewNode().GetPlotChartNode() is chart
    rows, columns = reds(view)
    assert len(rows) > 100 and np.corrcoef(rows, columns)[0, 1] < -0.9, "the line rises to the right"
    slicer.util.updateTableFromArray(table, np.array([[0, 10.0], [1, 5.0], [2, 0.0]]), ["x", "y"])
    assert np.corrcoef(*reds(view))[0, 1] > 0.9
    series.SetColor(0.0, 0.0, 1.0)
    assert len(reds(view)[0]) == 0
    series.SetColor(1.0, 0.0, 0.0)
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(100.0, 200.0)
    assert len(reds(view)[0]) == 0, "outside the axes"
    chart.SetYAxisRangeAuto(True)
    chart.RemoveAllPlotSeriesNodeIDs()
    assert len(reds(view)[0]) == 0


def test_a_series_without_its_columns_and_a_removed_chart_leave_the_plot_empty(main_window, views):
    import slicer

    view, (chart, series, _table) = views["Plot"], chart_of([0.0, 5.0, 10.0])
    slicer.modules.plots.logic().ShowChartInLayout(chart)
    assert len(reds(view)[0]) > 100
    series.SetYColumnName("nothing")
    assert len(reds(view)[0]) == 0
    series.SetYColumnName("y")
    assert len(reds(view)[0]) > 100
    slicer.mrmlScene.RemoveNode(chart)
    assert len(reds(view)[0]) == 0
