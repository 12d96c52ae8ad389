"""``samconvex track`` begins and continues a course: dates, lesions outside, parts apart, time points read again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from engine.io.dicom_files import places, voxels, write_series
from engine.sam_fixtures import random_weights, textured_body
from samconvex.cli.main import main
from samconvex.io.dicom import VisitFacts, visit_facts
from samconvex.io.images import write_volume
from samconvex.lesions.course import Confirmation, read_course, write_course
from samconvex.lesions.files import read_lesions
from samconvex.lesions.recording import lesion_of, reading_contour
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume


def with_ball(volume: Volume, center: np.ndarray, radius: float) -> tuple[Volume, Volume]:
    """The volume with a bright ball in calmer tissue, and the ball's mask."""
    inside = volume.grid.voxel_centers(reference=center).norm(dim=-1) <= radius
    calm = torch.where(volume.tensor > -1000, volume.tensor.float() * 0.4, volume.tensor.float())
    values = torch.where(inside, 1400.0, calm).round().to(torch.int16)
    mask = Volume(inside.to(torch.uint8)[None, None], volume.grid, sitk.sitkUInt8)
    return volume.with_tensor(values), mask


def shifted(volume: Volume, shift: tuple[float, float, float]) -> Volume:
    grid = volume.grid
    origin = tuple((np.asarray(grid.origin) + shift).tolist())
    return volume.with_tensor(volume.tensor, Grid(grid.size, grid.spacing, origin, grid.direction))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("course")
    random_weights(folder / "w.pt")
    body = textured_body()
    center = body.grid.center + [10.0, -14.0, 20.0]
    baseline, mask = with_ball(body, center, 14.0)
    write_volume(baseline, folder / "v0.nii.gz")
    write_volume(mask, folder / "lesions.nii.gz")
    write_volume(shifted(with_ball(body, center, 19.0)[0], (30.0, 0.0, 9.0)), folder / "v1.nii.gz")
    write_volume(shifted(baseline, (-20.0, 8.0, 0.0)), folder / "v2.nii.gz")
    (folder / "points.csv").write_text(f"x,y,z,label\n{','.join(map(str, center))},here\n9999,0,0,far\n")
    return folder


def run(files: Path, home: Path, *words: str | Path) -> int:
    paths = [str(files / word) if (files / word).exists() else str(word) for word in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMCONVEX_HOME", str(home))
        return main(["track", *paths, "--weights", str(files / "w.pt"), "--progress", "none"])


def test_a_course_is_begun_continued_and_read_again(files, tmp_path, capsys) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    words = ("v0.nii.gz", "lesions.nii.gz", "v1.nii.gz", "-o", first, "--patient", "Doe")
    assert run(files, tmp_path, *words, "--dates", "2026-01-01", "2026-03-01") == 0
    course = read_course(first / "course.json")
    assert course.patient == "Doe" and [v.date for v in course.visits] == ["2026-01-01", "2026-03-01"]
    assert course.visits[1].image == str(files / "v1.nii.gz") and course.visits[1].spacing_mm == [4.0, 4.0, 4.0]
    readings = course.lesions[0].readings
    assert [reading.state for reading in readings.values()] == ["baseline", "grown"]
    assert readings["follow-up 1"].error90_mm > 0 and readings["follow-up 1"].longest_error_mm > 0
    # What was drawn comes back from the course alone.
    again = lesion_of(course.lesions[0], course.visits[0])
    assert int((again.mask.tensor > 0).sum()) == int((sitk.GetArrayFromImage(drawn(files)) > 0).sum())
    assert reading_contour(readings["follow-up 1"]).tensor.sum() > again.mask.tensor.sum()

    readings["follow-up 1"].confirmed = Confirmation("measured", 36.0, 30.0, "Dr. A")
    write_course(course, first / "course.json")
    before = (first / "course.json").read_bytes()
    words = ("--course", first / "course.json", "v2.nii.gz", "-o", second, "--dates", "20260501")
    assert run(files, tmp_path, *words) == 0
    assert (first / "course.json").read_bytes() == before
    longer = read_course(second / "course.json")
    assert [v.name for v in longer.visits] == ["baseline", "follow-up 1", "follow-up 2"]
    assert longer.lesions[0].readings["follow-up 2"].state == "unchanged"
    del longer.lesions[0].readings["follow-up 2"]
    assert longer.lesions[0].readings == readings

    # The same image again replaces that time point alone, and keeps what was confirmed.
    assert run(files, tmp_path, "--course", second / "course.json", "v1.nii.gz", "-o", third) == 0
    assert [v.name for v in read_course(third / "course.json").visits] == ["baseline", "follow-up 1", "follow-up 2"]
    assert read_course(third / "course.json").lesions[0].readings["follow-up 1"].confirmed.longest_mm == 36.0


def drawn(files: Path) -> sitk.Image:
    return sitk.ReadImage(str(files / "lesions.nii.gz"))


def test_the_organ_of_a_lesion_is_proposed_where_it_is_marked(files, tmp_path, monkeypatch) -> None:
    from samconvex.lesions import sites

    asked = []

    def propose(position, volume, embedding=None, radius_mm=0.0):
        asked.append((volume.name, embedding is not None, round(radius_mm)))
        return sites.Site("liver", "")

    monkeypatch.setattr(sites, "propose_organ", propose)
    words = ("v0.nii.gz", "lesions.nii.gz", "v1.nii.gz", "-o", tmp_path / "out")
    assert run(files, tmp_path, *words) == 0
    # Once, in the image that the lesion was drawn in, beyond its radius.
    assert [(embedded, radius) for _, embedded, radius in asked] == [(True, 14)]
    assert read_course(tmp_path / "out" / "course.json").lesions[0].organ == "liver"
    document = json.loads((tmp_path / "out" / "tracking.json").read_text(encoding="utf-8"))
    assert document["lesions"][0]["organ"] == "liver"


def test_a_lesion_outside_its_image_does_not_cost_the_others(files, tmp_path, capsys) -> None:
    assert run(files, tmp_path, "v0.nii.gz", "points.csv", "v1.nii.gz", "v2.nii.gz", "-o", tmp_path / "out.json") == 0
    here, far = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["lesions"]
    assert [point["found"] for point in here["timepoints"]] == [True, True]
    assert "loop_mm" not in here["timepoints"][0] and here["timepoints"][1]["loop_mm"] < 8.0
    assert {(point["state"], "position" in point) for point in far["timepoints"]} == {("outside", False)}
    assert "far lies outside" in far["timepoints"][0]["reason"] and "far lies outside" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dates", "2026-01-01", "2026-02-01", "2026-03-01"), "--dates holds 3 days for 1 follow-ups; give 1, or 2"),
        (("--dates", "soon"), "'soon', which is no day"),
        (("--dates", "2026-03-01", "2026-01-01"), "before the baseline"),
        (("--course", "points.csv"), "could not be read as JSON"),
        (("--dicom-sr", "sr.dcm"), "DICOM"),
        (("--course", "bare.json"), "the image of a .* is not there"),
        (("--course", "bare.json", "--split-parts"), "--split-parts is for LESIONS"),
    ],
)
def test_what_cannot_become_a_course_is_refused_before_the_work(files, tmp_path, capsys, words, message) -> None:
    bare = {"visits": [{"name": "a", "image": "no.nii"}], "lesions": [{"name": "l", "readings": {"a": POINT}}]}
    (files / "bare.json").write_text(json.dumps({"format": "samconvex course", "version": 1, **bare}))
    images = ("v1.nii.gz",) if "--course" in words else ("v0.nii.gz", "lesions.nii.gz", "v1.nii.gz")
    assert run(files, tmp_path / "home", *images, "-o", tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and re.search(message, error), error
    assert not (tmp_path / "out").exists()


POINT = {"state": "baseline", "position": [0, 0, 0]}


def test_parts_of_a_label_can_be_lesions_of_their_own(tmp_path) -> None:
    labels = torch.zeros(1, 1, 12, 12, 12, dtype=torch.uint8)
    labels[0, 0, 1:3, 1:3, 1:3] = labels[0, 0, 6:10, 6:10, 6:10] = 1
    labels[0, 0, 1:4, 9:11, 1:3] = 2
    write_volume(Volume(labels, Grid((12, 12, 12), (1.0, 1.0, 1.0)), sitk.sitkUInt8), tmp_path / "l.nrrd")
    apart = read_lesions(tmp_path / "l.nrrd", split_parts=True)
    assert [lesion.name for lesion in apart] == ["label 1.1", "label 1.2", "label 2"]
    assert [int((lesion.mask.tensor > 0).sum()) for lesion in apart] == [64, 8, 12]
    assert [lesion.note for lesion in apart] == [""] * 3
    assert [lesion.name for lesion in read_lesions(tmp_path / "l.nrrd")] == ["label 1", "label 2"]


def test_a_series_tells_whose_it_is_and_when_it_was_taken(tmp_path) -> None:
    def tweak(data, index) -> None:
        data.PatientID, data.AcquisitionDate, data.StudyDate, data.SliceThickness = "P7", "20260301", "20260228", "2.5"

    write_series(tmp_path / "dicom", voxels(), places(), tweak=tweak)
    facts = visit_facts(tmp_path / "dicom")
    assert (facts.patient_id, facts.date, facts.slice_thickness_mm) == ("P7", "2026-03-01", 2.5)
    (tmp_path / "x.csv").write_text("x")
    assert visit_facts(tmp_path / "x.csv") == VisitFacts()


@pytest.mark.parametrize("place", ["out/course.json", "out/contours_1.nii.gz", "out/sub/sr.dcm", "out"])
def test_a_report_takes_no_other_results_place(files, tmp_path, capsys, place) -> None:
    words = ("v0.nii.gz", "lesions.nii.gz", "v1.nii.gz", "-o", tmp_path / "out", "--dicom-sr", tmp_path / place)
    assert run(files, tmp_path / "home", *words) == 2
    assert re.search("give another file for --dicom-sr|give a file in .* itself or outside", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def as_series(volume: Volume, folder: Path, uid: str, date: str) -> None:
    def tweak(data, index) -> None:
        data.PixelSpacing, data.SliceThickness, data.AcquisitionDate = [4.0, 4.0], 4.0, date
        data.PatientID, data.StudyDate, data.StudyTime = "P7", date, "100000"

    depth = volume.grid.size[2]
    positions = [tuple(volume.grid.voxels_to_points(np.array([[0.0, 0.0, z]]))[0]) for z in range(depth)]
    write_series(folder, volume.tensor[0, 0].numpy(), positions, series=uid, tweak=tweak)


def test_dates_patient_and_report_come_from_dicom(files, tmp_path) -> None:
    from samconvex.io.images import read_volume

    for number, date in ((0, "20260101"), (2, "20260501")):
        as_series(read_volume(files / f"v{number}.nii.gz"), tmp_path / f"d{number}", f"1.2.3.{number + 1}", date)
    words = (tmp_path / "d0", "lesions.nii.gz", tmp_path / "d2", "-o", tmp_path / "out")
    assert run(files, tmp_path, *words, "--dicom-sr", tmp_path / "new" / "sr.dcm") == 0
    course = read_course(tmp_path / "out" / "course.json")
    assert course.patient_id == "P7" and [v.date for v in course.visits] == ["2026-01-01", "2026-05-01"]
    report = pydicom.dcmread(tmp_path / "new" / "sr.dcm")
    assert report.PatientID == "P7" and course.lesions[0].name in str(report)
    assert run(files, tmp_path, *words[:-1], tmp_path / "again", "--dicom-sr", tmp_path / "new" / "sr.dcm") == 2
    assert not (tmp_path / "again").exists()


def test_contours_that_the_course_points_to_are_not_replaced(files, tmp_path, capsys) -> None:
    """A copy of the course elsewhere, and its old folder as output: the visit before would get another's contour."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "contours_1.nii.gz").write_bytes((files / "lesions.nii.gz").read_bytes())
    before = (folder / "contours_1.nii.gz").read_bytes()
    place = (files / "points.csv").read_text().splitlines()[1].split(",")[:3]
    marked = {"state": "baseline", "position": [float(value) for value in place]}
    earlier = {"state": "unchanged", "contour": "out/contours_1.nii.gz"}
    course = {
        "visits": [{"name": "a", "image": str(files / "v0.nii.gz")}, {"name": "b"}],
        "lesions": [{"name": "l", "readings": {"a": marked, "b": earlier}}],
    }
    (tmp_path / "copy.json").write_text(json.dumps({"format": "samconvex course", "version": 1, **course}))
    words = ("--course", tmp_path / "copy.json", "v1.nii.gz", "-o", folder, "--overwrite")
    assert run(files, tmp_path / "home", *words) == 2
    assert "contours_1.nii.gz is an input and would be overwritten" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["contours_1.nii.gz"]
    assert (folder / "contours_1.nii.gz").read_bytes() == before
