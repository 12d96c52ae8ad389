"""The whole way through the real engine: the panel, its process, points, lesions and X-ray images."""

from __future__ import annotations

import numpy as np
import pytest
from harness import wait_until


@pytest.fixture
def widget(load_scripted_module, repository, monkeypatch, tmp_path):
    monkeypatch.setenv("SAMCONVEX_HOME", str(tmp_path / "home"))
    return load_scripted_module(repository / "SAMLandmark" / "SAMLandmark.py")


@pytest.mark.slow
def test_points_are_found_live_and_kept_as_a_template(widget, tmp_path):
    from SAMLandmarkLib import library, results
    from SAMLandmarkLib.live import LiveState

    import SAMLandmark

    make = SAMLandmark.SAMLandmarkTest()
    template, query, points = make.makeBody("Template", 0.0), make.makeBody("Query", 12.0), make.makePoints()
    ui = widget.ui
    ui.templateVolumeSelector.setCurrentNode(template)
    ui.templateMarkupsSelector.setCurrentNode(points)
    ui.minimumScoreSpinBox.value = 0.2
    (tmp_path / "library").mkdir()
    ui.libraryDirectoryButton.directory = str(tmp_path / "library")
    ui.libraryGroupBox.collapsed = False
    ui.libraryNameEdit.text = "Body"
    ui.librarySaveButton.click()
    wait_until(lambda: not widget.landmarkPanel.isRunning, 300)
    said = ui.statusLabel.text + ui.libraryDescriptionLabel.text
    assert [entry.name for entry in library.listTemplates(tmp_path / "library")[0]] == ["Body"], said
    # From now on the template is only its folder: no image.
    ui.libraryLoadButton.click()
    assert widget.parameters().templateVolume is None
    widget.landmarkPanel.queries.setChecked(query)
    ui.applyButton.click()
    wait_until(lambda: not widget.landmarkPanel.isRunning, 300)
    assert ui.statusLabel.text.startswith("Finished"), ui.statusLabel.text
    node = widget.landmarkPanel.result()
    truth = [np.array(point.position) + [0, 0, 12.0] for point in results.templatePoints(points)]
    places = [results.positionOf(node, n) for n in range(3)]
    errors = [np.linalg.norm(p - t) for p, t in zip(places, truth, strict=True) if p is not None]
    assert len(errors) >= 2 and np.median(errors) < 8.0

    ui.liveFirstSelector.setCurrentNode(template)
    ui.liveSecondSelector.setCurrentNode(query)
    ui.liveMinimumScoreSpinBox.value = 0.2
    ui.liveStartButton.click()
    live = widget.livePanel.live
    wait_until(lambda: live.state in (LiveState.READY, LiveState.FAILED), 300)
    assert live.state is LiveState.READY, live.message
    live.moveTo(template, truth[0] - [0, 0, 12.0])
    wait_until(lambda: live.latencies or live.state is LiveState.ABSENT, 60)
    assert live.state is LiveState.FOUND and live.lastAnswer["score"] > 0.5
    ui.liveStartButton.click()


@pytest.mark.slow
def test_single_slices_are_matched_by_the_network_of_x_ray_images(widget, build):
    from samconvex.synthetic.phantom import make_phantom
    from samconvex.synthetic.radiograph import Projection, radiograph

    phantom = make_phantom(0, 8.0, couch=False)
    points = np.stack([phantom.landmarks[name] for name in sorted(phantom.landmarks)])
    mirror = np.diag([-1.0, -1.0, 1.0, 1.0])
    images, places = [], []
    for name, turn in (("Template", 0.0), ("Query", 8.0)):
        projection = Projection.at_angles(phantom.ct.grid.center, turn, source_mm=1500.0)
        image = radiograph(phantom.ct, projection, projection.grid(phantom.ct.grid.corners(), 2.0), step_mm=8.0)
        toRas = np.diag([*image.grid.spacing, 1.0])
        toRas[:3, 3] = image.grid.origin
        images.append(build.volume(name, image.tensor[0, 0].numpy(), mirror @ toRas))
        places.append(projection.project(points) * (-1, -1, 1))
    markups = build.markups("Points", [tuple(place) for place in places[0]])
    found = widget.logic.matchLandmarks(images[0], markups, images[1])
    from SAMLandmarkLib import results

    answers = [results.positionOf(found, number) for number in range(len(points))]
    errors = [np.linalg.norm(a - t) for a, t in zip(answers, places[1], strict=True) if a is not None]
    assert len(errors) > 0.8 * len(points) and np.median(errors) < 8.0


@pytest.mark.slow
def test_a_segment_is_tracked_into_a_shifted_body(widget, build):
    import slicer
    from SAMLandmarkLib.course import FOUND, courseOf

    import SAMLandmark

    make = SAMLandmark.SAMLandmarkTest()
    baseline, later = make.makeBody("Baseline", 0.0), make.makeBody("Later", 12.0)
    # The organ of 90 HU that the body has there.
    axes = np.meshgrid(*[3.0 * (np.arange(64) - 31.5)] * 3, indexing="ij")
    mask = ((axes[2] - 10) / 14) ** 2 + ((axes[1] - 25) / 10) ** 2 + ((axes[0] - 30) / 12) ** 2 < 1
    segments = build.segmentation("Lesions", baseline, [("s", "Liver lesion", (1, 0, 0), mask)])
    table = widget.logic.trackLesions(baseline, segments, later)
    (lesion,) = courseOf(table)["lesions"]
    before, after = lesion["findings"]
    assert after["state"] == FOUND, after
    assert np.linalg.norm(np.subtract(after["place"], before["place"]) - [0.0, 0.0, 12.0]) < 4.0
    assert after["longest_mm"] == pytest.approx(before["longest_mm"], abs=5.0)
    contours = slicer.util.getNode("Lesion contours in Later").GetSegmentation()
    assert contours.GetNumberOfSegments() == 2
