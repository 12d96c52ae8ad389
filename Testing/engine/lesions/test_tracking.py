"""Lesion tracking: found where it went, honest where it is gone or out of view, measured where a contour came in."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from engine.sam_fixtures import random_model, textured_body
from samconvex.cli.main import main
from samconvex.errors import Cancelled, InputError
from samconvex.io.images import read_labels, write_volume
from samconvex.lesions import tracking
from samconvex.lesions.contour import Levels, fit_contour, suggest_contour
from samconvex.lesions.files import read_lesions
from samconvex.lesions.findings import FOUND, NOT_IN_VIEW, UNCERTAIN
from samconvex.lesions.lesion import Lesion
from samconvex.lesions.tracking import track_lesions
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume

SHIFT = np.array([37.5, -12.25, 81.0])
CENTER = np.array([10.0, -14.0, 20.0])
RADIUS_MM = 14.0


def ball(grid: Grid, center: np.ndarray, radius: float, blur: float = 1.5) -> torch.Tensor:
    """(D, H, W) in [0, 1], a ball with a blurred border."""
    return torch.sigmoid((radius - grid.voxel_centers(reference=center).norm(dim=-1)) / blur)


def with_ball(volume: Volume, center: np.ndarray, radius: float, value: float = 1400.0) -> Volume:
    share = ball(volume.grid, center, radius)
    return volume.with_tensor((volume.tensor * (1 - share) + value * share).round().to(volume.tensor.dtype))


def moved(volume: Volume) -> Volume:
    grid = volume.grid
    origin = tuple((np.asarray(grid.origin) + SHIFT).tolist())
    return volume.with_tensor(volume.tensor, Grid(grid.size, grid.spacing, origin, grid.direction))


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def body():
    """A body with calmer tissue than the network needs, so that a lesion stands out."""
    volume = textured_body()
    inside = volume.tensor > -1000
    return volume.with_tensor(torch.where(inside, (volume.tensor.float() * 0.4).round().to(torch.int16), volume.tensor))


@pytest.fixture(scope="module")
def place(body):
    return body.grid.center + CENTER


@pytest.fixture(scope="module")
def baseline(body, place):
    return with_ball(body, place, RADIUS_MM)


@pytest.fixture(scope="module")
def segment(body, place):
    return Volume((ball(body.grid, place, RADIUS_MM) > 0.5).to(torch.uint8)[None, None], body.grid, sitk.sitkUInt8)


@pytest.fixture(scope="module")
def tracked(body, baseline, place, segment, model):
    """The same lesion given in three ways, in three shifted follow-ups: grown, removed, and cut away."""
    line = np.stack([place - [RADIUS_MM, 0, 0], place + [RADIUS_MM, 0, 0]])
    lesions = [
        Lesion.from_mask("segment", segment),
        Lesion("point", place),
        Lesion.from_diameters("line", line),
    ]
    later = moved(body)
    grown = with_ball(later, place + SHIFT, 1.3 * RADIUS_MM)
    half = later.grid.cropped((0, 0, 0), (48, 40, 22))
    cut = later.with_tensor(later.tensor[:, :, :22].contiguous(), half)
    return track_lesions(baseline, lesions, [grown, later, cut], weights=model)


def test_a_grown_lesion_is_found_where_it_went_however_it_was_given(tracked, place):
    for name in ("segment", "point", "line"):
        finding = tracked.of(name)[0]
        assert finding.state == FOUND and finding.score > 0.5 and finding.reason == ""
        assert np.linalg.norm(finding.position - place - SHIFT) < 4.0


def test_growth_is_measured_where_a_contour_or_a_diameter_came_in(tracked):
    for name in ("segment", "line"):
        before, after = tracked.baseline[name], tracked.of(name)[0].measurement
        assert before.longest_mm == pytest.approx(2 * RADIUS_MM, abs=3.0)
        assert after.longest_mm == pytest.approx(2.6 * RADIUS_MM, abs=4.0)
        assert after.volume_ml > 1.5 * before.volume_ml
    assert tracked.baseline["point"] is None and tracked.of("point")[0].measurement is None


def test_contours_lie_on_a_crop_of_the_follow_ups_lattice(tracked, body):
    finding = tracked.of("segment")[0]
    for contour in (finding.carried, finding.suggested):
        assert contour.grid.voxel_count < 30**3 * 27
        voxels = moved(body).grid.points_to_voxels(contour.grid.corners())
        np.testing.assert_allclose(voxels + 0.5, np.round(voxels + 0.5), atol=1e-6)
        assert set(contour.tensor.unique().tolist()) == {0, 1}
    assert tracked.of("point")[0].carried is None


def test_a_removed_lesion_is_uncertain_and_has_no_size(tracked):
    for name in ("segment", "point", "line"):
        finding = tracked.of(name)[1]
        assert finding.state == UNCERTAIN and finding.score < 0.5 and "stands out" in finding.reason
        assert finding.measurement is None and finding.suggested is None and np.isfinite(finding.position).all()


def test_a_lesion_beyond_the_image_is_not_in_the_field_of_view(tracked):
    for name in ("segment", "point", "line"):
        finding = tracked.of(name)[2]
        assert finding.state == NOT_IN_VIEW and np.isnan(finding.position).all() and finding.score == 0


def test_the_json_holds_lesions_by_time_points_without_anything_undefined(tracked):
    document = json.loads(json.dumps(tracked.to_dict(), allow_nan=False))
    assert [lesion["name"] for lesion in document["lesions"]] == ["segment", "point", "line"]
    points = document["lesions"][0]["timepoints"]
    assert [point["found"] for point in points] == [True, False, False]
    assert "position" in points[1] and "position" not in points[2]
    assert points[0]["measurement"]["longest_mm"] > 0 and "measurement" not in document["lesions"][1]


def test_a_minimum_score_decides_what_is_found_and_inputs_stay_as_they_were(baseline, segment, model):
    before = [volume.tensor.clone() for volume in (baseline, segment)]
    lesion = Lesion.from_mask("segment", segment)
    finding = track_lesions(baseline, [lesion], [moved(baseline)], minimum_score=1.0, weights=model).findings[0]
    assert finding.state == UNCERTAIN and finding.score > 0.5 and finding.measurement is None
    assert all(torch.equal(a, b.tensor) for a, b in zip(before, (baseline, segment), strict=True))


def test_unusable_lesions_are_refused(baseline, segment, place, model):
    with pytest.raises(InputError, match="no lesion"):
        track_lesions(baseline, [], [baseline], weights=model)
    with pytest.raises(InputError, match="Two lesions are called a"):
        track_lesions(baseline, [Lesion("a", place), Lesion("a", place)], [baseline], weights=model)
    with pytest.raises(InputError, match="a lies outside"):
        track_lesions(baseline, [Lesion("a", place + 900)], [baseline], weights=model)
    with pytest.raises(InputError, match="segment of a is empty"):
        Lesion.from_mask("a", segment.with_tensor(segment.tensor * 0))
    with pytest.raises(InputError, match="box of a has no extent"):
        Lesion.from_box("a", np.zeros((2, 3)))
    with pytest.raises(InputError, match="diameter of a has no length"):
        Lesion.from_diameters("a", np.zeros((1, 2, 3)))


def test_cancelling_stops_the_work(baseline, segment, model):
    def cancel(stage, fraction, message=""):
        if stage == "tracking":
            raise Cancelled()

    with pytest.raises(Cancelled):
        track_lesions(baseline, [Lesion.from_mask("a", segment)], [moved(baseline)], weights=model, progress=cancel)


@pytest.mark.parametrize(("radius", "shift", "value"), [(10.0, 0.0, 80.0), (6.5, 4.0, 80.0), (13.0, 3.0, -40.0)])
def test_the_contour_finds_shift_size_and_border_in_noise(radius, shift, value):
    grid = Grid((50, 50, 50), (1.0, 1.0, 1.0), (-7.0, 12.0, 30.0))
    center = grid.center + [shift, 0.0, -shift / 2]
    random = np.random.default_rng(0)
    truth = ball(grid, center, radius, 0.7)
    noise = torch.as_tensor(random.normal(scale=12.0, size=grid.shape), dtype=torch.float32)
    image = Volume((20 + (value - 20) * truth + noise)[None, None], grid)
    contour = Volume(ball(grid, grid.center, 10.0, 0.7)[None, None], grid)
    fit = fit_contour(image, contour, Levels(value, 20.0))
    assert fit.levels.contrast == pytest.approx(value - 20, rel=0.06)
    assert fit.scale == pytest.approx(radius / 10, rel=0.2)
    np.testing.assert_allclose(fit.shift, center - grid.center, atol=1.5)
    suggested = suggest_contour(image, fit)
    overlap = 2 * float((suggested & (truth > 0.5)).sum()) / float(suggested.sum() + (truth > 0.5).sum())
    assert overlap > 0.88


def test_bone_and_gas_beside_a_lesion_are_not_taken_for_it():
    for sign in (1, -1):
        levels = Levels(20.0 + 60 * sign, 20.0)
        values = 20.0 + sign * torch.tensor([0.0, 60.0, 120.0, 180.0, 900.0, -900.0])
        assert levels.likeness(values).tolist() == pytest.approx([0.0, 1.0, 1.0, 0.0, -0.5, -0.5], abs=1e-5)


def test_noise_alone_has_no_contour():
    grid = Grid((50, 50, 50), (1.0, 1.0, 1.0))
    noise = torch.as_tensor(np.random.default_rng(1).normal(scale=12.0, size=grid.shape), dtype=torch.float32)
    contour = Volume(ball(grid, grid.center, 8.0, 0.7)[None, None], grid)
    lesion = fit_contour(Volume((noise + 60 * contour.tensor[0, 0])[None, None], grid), contour)
    nothing = fit_contour(Volume(noise[None, None], grid), contour, lesion.levels)
    assert tracking.presence(lesion, lesion) > 0.9 and tracking.presence(lesion, nothing) < 0.1


def test_lesions_are_read_from_every_kind_of_file(tmp_path, segment):
    write_volume(segment, tmp_path / "one.nii.gz")
    several = segment.tensor.clone()
    several[0, 0, 2:4, 2:4, 2:5] = 1
    write_volume(segment.with_tensor(several), tmp_path / "parts.nrrd")
    several[0, 0, 2:4, 2:4, 2:5] = 7
    write_volume(segment.with_tensor(several), tmp_path / "labels.nii.gz")
    assert [len(read_lesions(tmp_path / name)) for name in ("one.nii.gz", "parts.nrrd", "labels.nii.gz")] == [1, 2, 2]
    assert [lesion.name for lesion in read_lesions(tmp_path / "labels.nii.gz")] == ["label 1", "label 7"]
    (tmp_path / "points.csv").write_text("x,y,z,label\n1,2,3,liver\n4,5,6,liver\n7,8,9,\n,,,lost\n")
    points = read_lesions(tmp_path / "points.csv")
    assert [lesion.name for lesion in points] == ["liver", "liver (2)", "lesion 3"]
    np.testing.assert_allclose(points[1].point, [4, 5, 6])


def markups(kind: str, points: list[list[float]], **more) -> dict:
    controls = [{"label": f"{kind}-{n}", "position": p} for n, p in enumerate(points, start=1)]
    return {"markups": [{"type": kind, "coordinateSystem": "RAS", "controlPoints": controls, **more}]}


def test_slicers_points_lines_and_rois_become_lesions(tmp_path):
    files = {
        "p.mrk.json": markups("Fiducial", [[1, 2, 3], [4, 5, 6]]),
        "l.mrk.json": markups("Line", [[0, 0, 0], [10, 0, 0]]),
        "r.mrk.json": markups("ROI", [[10, 20, 30]], size=[4, 6, 8], orientation=[0, 1, 0, 1, 0, 0, 0, 0, 1]),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    points, (line,), (roi,) = (read_lesions(tmp_path / name) for name in files)
    np.testing.assert_allclose([lesion.point for lesion in points], [[-1, -2, 3], [-4, -5, 6]])
    np.testing.assert_allclose(line.diameters, [[[0, 0, 0], [-10, 0, 0]]])
    np.testing.assert_allclose(line.point, [-5, 0, 0])
    assert line.name == "l"
    np.testing.assert_allclose(roi.box, [[-13, -22, 26], [-7, -18, 34]])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.nii.gz", None, "does not exist"),
        ("x.mrk.json", "{", "no Slicer markups file"),
        ("x.mrk.json", json.dumps({"markups": []}), "no lesion with a position"),
        ("x.mrk.json", json.dumps(markups("Curve", [[0, 0, 0]])), "holds a Curve"),
        ("x.mrk.json", json.dumps(markups("ROI", [[0, 0, 0]])), "no size"),
        ("x.nii.gz", "text", "could not be read"),
        ("x.csv", "a,b\n1,2\n", "header"),
        ("x.json", "[]", "holds no lesion"),
        ("x.json", json.dumps([{"name": "a"}]), "a has no place"),
        ("x.json", json.dumps([{"name": "a", "point": [1, 2]}]), "no list of lesions"),
    ],
)
def test_unusable_lesion_files_are_refused_in_one_sentence(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_lesions(tmp_path / name)


def test_a_list_holds_lesions_of_every_kind(tmp_path, segment):
    write_volume(segment, tmp_path / "mask.mha")
    (tmp_path / "x.json").write_text(
        json.dumps(
            [
                {"name": "point", "point": [1, 2, 3]},
                {"name": "box", "box": [[4, 4, 4], [0, 0, 0]]},
                {"name": "line", "line": [[0, 0, 0], [0, 6, 0]]},
                {"name": "segment", "mask": "mask.mha"},
                {"point": [0, 0, 0]},
            ]
        )
    )
    point, box, line, mask, unnamed = read_lesions(tmp_path / "x.json")
    assert point.name == "point" and point.point.tolist() == [1, 2, 3]
    assert box.box.tolist() == [[0, 0, 0], [4, 4, 4]] and line.point.tolist() == [0, 3, 0]
    assert int(mask.mask.tensor.sum()) == int((segment.tensor > 0).sum()) and unnamed.name == "lesion 5"


@pytest.fixture(scope="module")
def files(tmp_path_factory, baseline, segment, place):
    from samconvex.networks.sam_compact import CHECKPOINT_FORMAT

    folder = tmp_path_factory.mktemp("tracking")
    network = random_model().network
    content = {"format": CHECKPOINT_FORMAT, "version": 1, "config": network.config, "state_dict": network.state_dict()}
    torch.save(content, folder / "w.pt")
    write_volume(baseline, folder / "baseline.nii.gz")
    write_volume(moved(baseline), folder / "later.nii.gz")
    write_volume(segment, folder / "lesions.nii.gz")
    (folder / "far.csv").write_text("x,y,z,label\n9999,0,0,far\n")
    return folder


def run(files, *words, home):
    paths = [str(files / word) if (files / word).exists() else str(word) for word in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMCONVEX_HOME", str(home))
        return main(["track", *paths, "--weights", str(files / "w.pt"), "--progress", "none"])


def test_the_command_writes_json_table_and_contours(files, tmp_path, place, capsys):
    out = tmp_path / "out"
    words = ("baseline.nii.gz", "lesions.nii.gz", "later.nii.gz", "-o", out)
    assert run(files, *words, home=tmp_path) == 0
    assert sorted(path.name for path in out.iterdir()) == ["contours_1.nii.gz", "tracking.csv", "tracking.json"]
    assert "1 found" in capsys.readouterr().out
    document = json.loads((out / "tracking.json").read_text(encoding="utf-8"))
    point = document["lesions"][0]["timepoints"][0]
    assert point["found"] and np.linalg.norm(np.array(point["position"]) - place - SHIFT) < 4.0
    assert "not a diagnosis" in document["notice"]
    rows = list(csv.DictReader((out / "tracking.csv").open()))
    assert [(row["follow_up"], row["state"]) for row in rows] == [("0", "baseline"), ("1", "found")]
    assert float(rows[1]["longest_mm"]) == pytest.approx(float(rows[0]["longest_mm"]), rel=0.2)
    contours = sitk.ReadImage(str(out / "contours_1.nii.gz"))
    assert contours.GetSize() == sitk.ReadImage(str(files / "later.nii.gz")).GetSize()
    assert run(files, *words, home=tmp_path) == 2
    assert "--overwrite" in capsys.readouterr().err
    (out / "theirs.txt").write_text("theirs")
    assert run(files, *words, "--overwrite", home=tmp_path) == 0
    assert (out / "theirs.txt").exists()


def test_separate_parts_of_one_label_are_said_by_the_command(files, tmp_path, segment, capsys):
    inside = segment.tensor > 0
    # A label of two parts, and one of a single part.
    step = int(inside.any(2).any(2).sum()) + 2
    labels = inside.to(torch.uint8) + inside.roll(step, 4).to(torch.uint8) + 2 * inside.roll(-step, 4).to(torch.uint8)
    write_volume(segment.with_tensor(labels), tmp_path / "classes.nrrd")
    words = ("baseline.nii.gz", tmp_path / "classes.nrrd", "later.nii.gz", "-o", tmp_path / "out.json")
    assert run(files, *words, home=tmp_path) == 0
    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    said = [lesion.get("note", "") for lesion in document["lesions"]]
    assert "label 1 has 2 separate parts and is followed as one lesion" in said[0] and said[1:] == [""]
    assert said[0] in document["warnings"] and f"Warning: {said[0]}" in capsys.readouterr().err


def test_every_contour_can_have_a_file_of_its_own(files, tmp_path, place, capsys):
    words = ("baseline.nii.gz", "lesions.nii.gz", "later.nii.gz", "--each-contour", "-o")
    assert run(files, *words, tmp_path / "out", home=tmp_path) == 0
    point = json.loads((tmp_path / "out" / "tracking.json").read_text(encoding="utf-8"))["lesions"][0]["timepoints"][0]
    for kind in ("carried", "suggested"):
        contour = read_labels(tmp_path / "out" / point[kind])
        inside = contour.grid.voxels_to_points((contour.tensor[0, 0] > 0).nonzero().flip(1).numpy())
        assert np.linalg.norm(inside.mean(0) - place - SHIFT) < 4.0
    assert run(files, *words, tmp_path / "one.json", home=tmp_path) == 2
    assert "--each-contour" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("absent.nii.gz", "lesions.nii.gz", "later.nii.gz"), "absent.nii.gz does not exist"),
        (("baseline.nii.gz", "absent.csv", "later.nii.gz"), "absent.csv does not exist"),
        (("baseline.nii.gz", "far.csv", "later.nii.gz"), "far lies outside"),
        (("baseline.nii.gz", "lesions.nii.gz", "later.nii.gz", "--min-score", "7"), "no score"),
        (("baseline.nii.gz", "lesions.nii.gz"), "FOLLOWUP"),
    ],
)
def test_the_command_refuses_bad_input_in_one_sentence_and_writes_nothing(files, tmp_path, capsys, words, message):
    assert run(files, *words, "-o", tmp_path / "out", home=tmp_path / "home") == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
