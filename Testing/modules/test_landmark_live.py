"""Live matching: the point follows the mouse, the newest position wins, and a broken process is told."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import slicer
from modules import scene_builders as build
from modules.quick_matcher import SHIFT_LPS

ENGINE = Path(__file__).with_name("quick_matcher.py")
SHIFT_RAS = np.array([-SHIFT_LPS[0], -SHIFT_LPS[1], SHIFT_LPS[2]])
CENTER = (5.0, -10.0, 20.0)


@pytest.fixture
def live(load_scripted_module, repository):
    load_scripted_module(repository / "SAMLandmark" / "SAMLandmark.py", enter=False)
    from SAMLandmarkLib.live import LiveMatching
    from SAMLandmarkLib.worker import LiveWorker

    array = build.smooth_array()
    volumes = [
        build.volume(name, array, build.centered(build.oblique(degrees=degrees), array.shape))
        for name, degrees in (("A", 20.0), ("B", -15.0))
    ]
    live = LiveMatching(*volumes, worker=LiveWorker([sys.executable, str(ENGINE), "live"]))
    live.volumes = volumes
    yield live
    live.stop()


def poll_until(live, condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        live.poll()
        assert time.monotonic() < end, f"still {live.state}: {live.message}"
        time.sleep(0.005)


@pytest.fixture
def ready(live):
    from SAMLandmarkLib.live import LiveState

    live.start()
    assert live.state is LiveState.LOADING
    poll_until(live, lambda: live.state is LiveState.READY)
    return live


def test_the_point_follows_in_both_directions(ready):
    from SAMLandmarkLib import results
    from SAMLandmarkLib.live import LiveState

    first, second = ready.volumes
    ready.moveTo(first, CENTER)
    poll_until(ready, lambda: ready.state is LiveState.FOUND)
    np.testing.assert_allclose(results.positionOf(ready.marker, 0), np.add(CENTER, SHIFT_RAS), atol=1e-3)
    ready.moveTo(second, np.add(CENTER, SHIFT_RAS))
    poll_until(ready, lambda: len(ready.latencies) == 2)
    np.testing.assert_allclose(results.positionOf(ready.marker, 0), CENTER, atol=1e-3)


def test_only_the_newest_of_many_positions_is_asked(ready):
    from SAMLandmarkLib import results

    for step in range(50):
        ready.moveTo(ready.volumes[0], np.add(CENTER, [0, 0, step / 10]))
    poll_until(ready, lambda: not ready._worker.isBusy)
    assert len(ready.latencies) == 2
    np.testing.assert_allclose(results.positionOf(ready.marker, 0), np.add(CENTER, SHIFT_RAS) + [0, 0, 4.9], atol=1e-3)


def test_a_place_without_counterpart_is_said_and_hides_the_point(ready):
    from SAMLandmarkLib.live import LiveState

    ready.moveTo(ready.volumes[0], CENTER)
    poll_until(ready, lambda: ready.state is LiveState.FOUND)
    ready.moveTo(ready.volumes[0], (-42.0, -10.0, 20.0))
    poll_until(ready, lambda: ready.state is LiveState.ABSENT)
    assert "Not found" in ready.message and not ready.marker.GetDisplayNode().GetVisibility()
    ready.moveTo(ready.volumes[0], (500.0, 0.0, 0.0))
    assert ready.state is LiveState.OUTSIDE


def test_the_overlay_shows_where_it_is_similar_and_goes_again(ready):
    ready.setHeatWanted(True)
    ready.moveTo(ready.volumes[0], CENTER)
    poll_until(ready, lambda: ready.heatNode is not None)
    assert slicer.util.arrayFromVolume(ready.heatNode).max() == 95
    matrix = np.array([[v for v in row] for row in matrix_of(ready.heatNode)])
    np.testing.assert_allclose(matrix[:3, 3], (56.0, 48.0, -40.0))
    before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    ready.stop()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == before - 1


def test_the_overlay_is_red_where_it_is_most_similar_and_has_a_legend(ready):
    def nodes_of(name):
        return slicer.mrmlScene.GetNumberOfNodesByClass(name)

    before = [nodes_of(name) for name in ("vtkMRMLColorTableNode", "vtkMRMLColorLegendDisplayNode")]
    ready.setHeatWanted(True)
    ready.moveTo(ready.volumes[0], CENTER)
    poll_until(ready, lambda: ready.heatNode is not None)
    display = ready.heatNode.GetDisplayNode()
    table, (least, best) = display.GetColorNode(), (display.GetWindowLevelMin(), display.GetWindowLevelMax())
    assert best == 95 and least < 0.75 * best
    first, last = [0.0] * 4, [0.0] * 4
    table.GetColor(0, first)
    table.GetColor(table.GetNumberOfColors() - 1, last)
    assert first[2] > 2 * first[0] and last[0] > 2 * last[2], "cold is low, hot is high"
    legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(display)
    assert legend.GetVisibility() and "Similarity" in legend.GetTitleText()
    ready.setHeatWanted(False)
    assert not legend.GetVisibility()
    ready.stop()
    assert [nodes_of(name) for name in ("vtkMRMLColorTableNode", "vtkMRMLColorLegendDisplayNode")] == before


def test_as_much_is_colored_as_can_be_seen(live):
    from SAMLandmarkLib import similarity

    # One sharp peak in voxels of 4 mm: 70 % of the best would be a speck.
    axes = np.indices((40, 40, 40)) - 20
    scores = (20 + 75 * np.exp(-(axes**2).sum(0) / 4.0)).astype(np.uint8)
    scores[:5] = 0
    least, best = similarity.shownRange(scores, 64.0)
    assert best == scores.max() and (scores >= 0.7 * best).sum() * 64.0 < 1500
    assert (scores >= least).sum() * 64.0 >= similarity.LEAST_VOLUME and least > 0
    # A broad one is not widened, an empty one breaks nothing.
    assert similarity.shownRange(np.full((40, 40, 40), 80, np.uint8), 64.0) == (56, 80)
    assert similarity.shownRange(np.zeros((4, 4, 4), np.uint8), 64.0)[1] == 1


class SlowWorker:
    """Answers when the test says so."""

    onEnd, isBusy, isRunning = None, False, True

    def __init__(self):
        self.asked = []

    def start(self):
        pass

    stop = poll = start

    def request(self, callback, **values):
        self.asked.append((values, callback))


def test_what_takes_long_is_told_until_the_first_answer(live):
    from SAMLandmarkLib.live import LiveMatching, LiveState

    slow = LiveMatching(*live.volumes, worker=SlowWorker())
    slow.start()
    assert slow.progress is None and "Preparing" in slow.message
    poll_until(slow, lambda: len(slow._worker.asked) == 2)
    for (_values, callback), fraction in zip(slow._worker.asked, (0.5, 0.6), strict=True):
        callback({"stage": "embedding", "fraction": fraction})
        assert 0.0 < slow.progress < 1.0 and f"{round(100 * slow.progress)} %" in slow.message
        callback({"stage": "embedding", "fraction": 1.0})
    # Both are described, nothing can be asked yet: not a bar that stands at its end.
    assert slow.state is LiveState.LOADING and slow.progress is None and "Relating" in slow.message
    # So it is when the second was described in an earlier session, and reports nothing.
    slow._loading[live.volumes[1].GetID()] = None
    assert slow.progress is None and "Relating" in slow._loadingSentence(0.0)
    slow._started -= 7.0
    slow.poll()
    assert "(7 s)" in slow.message
    for _values, callback in list(slow._worker.asked):
        callback({"done": True})
    assert slow.state is LiveState.READY and slow.progress == 1.0
    slow.moveTo(live.volumes[0], CENTER)
    slow._inFlight = (*slow._inFlight[:2], slow._inFlight[2] - 2.0)
    slow.poll()
    assert slow.state is LiveState.SEARCHING and slow.progress is None and "'B' (2 s)" in slow.message
    slow._worker.asked[-1][1]({"done": True, "found": False, "score": 0.1, "state": "outside"})
    assert slow.state is LiveState.ABSENT and slow.progress == 1.0 and "Outside this scan" in slow.message
    slow.stop()


def matrix_of(node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return [[matrix.GetElement(row, column) for column in range(4)] for row in range(4)]


def test_a_process_that_breaks_is_told_and_everything_is_cleaned_up(ready):
    from SAMLandmarkLib.live import LiveState

    folder = ready._folder
    ready._worker.request(lambda answer: None, do="match", **{"from": "A"}, to="B", point=[0, 0, 1e6])
    poll_until(ready, lambda: ready.state is LiveState.FAILED)
    assert "the process broke" in ready.message and not folder.exists()
    assert not ready._worker.isRunning


def test_removing_or_changing_a_volume_ends_it(ready):
    from SAMLandmarkLib.live import LiveState

    build.linear_parent(ready.volumes[1], build.translation(5, 0, 0))
    assert ready.state is LiveState.FAILED and "changed" in ready.message
    ready.start()
    slicer.mrmlScene.RemoveNode(ready.volumes[0])
    assert ready.state is LiveState.FAILED and "removed" in ready.message


def test_closing_the_scene_ends_it_and_the_process(ready):
    from SAMLandmarkLib.live import LiveState

    process = ready._worker._process._process
    slicer.mrmlScene.Clear(0)
    assert ready.state is LiveState.OFF
    assert process.wait(10) != 0


def test_two_equal_volumes_are_refused(live):
    from SAMLandmarkLib.live import LiveMatching

    with pytest.raises(ValueError, match="different"):
        LiveMatching(live.volumes[0], live.volumes[0])


def test_the_opposite_place_follows_the_nearest_pairs(live):
    from SAMLandmarkLib.views import opposite

    source, target = np.array([[0.0, 0, 0], [100.0, 0, 0]]), np.array([[10.0, 0, 0], [100.0, 20, 0]])
    np.testing.assert_allclose(opposite(np.array([0.0, 0, 0]), source, target), [10, 0, 0], atol=0.05)
    np.testing.assert_allclose(opposite(np.array([100.0, 0, 0]), source, target), [100, 20, 0], atol=0.05)
    np.testing.assert_allclose(opposite(np.array([7.0, 8, 9]), source[:0], target[:0]), [7, 8, 9])
