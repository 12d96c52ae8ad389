"""``samconvex track`` with DICOM series: report, page and table; new lesions proposed, decided on, and kept."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from engine.sam_fixtures import random_weights, textured_body
from PIL import Image
from samconvex.cli.main import main
from samconvex.errors import InputError
from samconvex.io.images import read_volume, write_volume
from samconvex.lesions import candidates
from samconvex.lesions.course import NEW, NEW_LESION, Course, Visit, read_course
from samconvex.lesions.course_changes import new_course, replace_visit
from samconvex.lesions.proposals import accept_candidate, candidates_of, keep_candidates, reject_candidate
from samconvex.registration.register import RegistrationResult
from samconvex.space.grid import Grid
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume

pytest.importorskip("pydicom")
hd = pytest.importorskip("highdicom")

from engine.io import dicom_files  # noqa: E402

SHIFT = np.array([30.0, 0.0, 8.0])
TRACKED, FRESH = np.array([10.0, -14.0, 20.0]), np.array([-34.0, 6.0, -28.0])


def _body(balls: list[tuple[np.ndarray, float, float]]) -> Volume:
    """Calm tissue with balls at (center, radius, HU)."""
    body = textured_body()
    values = torch.where(body.tensor > -1000, body.tensor.float() * 0.15, body.tensor.float())
    for place, radius, level in balls:
        inside = body.grid.voxel_centers(reference=body.grid.center + place).norm(dim=-1) <= radius
        values = torch.where(inside, torch.tensor(level), values)
    return body.with_tensor(values.round().to(torch.int16))


def _series(volume: Volume, folder: Path, number: int, shift: np.ndarray) -> Path:
    def tweak(data, index: int) -> None:
        data.PixelSpacing, data.SliceThickness = [volume.grid.spacing[1], volume.grid.spacing[0]], 4.0
        data.StudyInstanceUID, data.FrameOfReferenceUID = f"1.2.3.{number}", f"1.2.9.{number}"
        data.PatientID, data.AcquisitionDate = "P1", f"2026010{number + 1}"

    origin = np.asarray(volume.grid.origin) + shift
    places = [tuple(origin + [0, 0, index * volume.grid.spacing[2]]) for index in range(volume.grid.size[2])]
    return dicom_files.write_series(
        folder, volume.tensor[0, 0].numpy(), places, series=f"1.2.3.{number}.1", tweak=tweak
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("extras")
    random_weights(folder / "w.pt")
    baseline = _body([(TRACKED, 14.0, 1400.0)])
    _series(baseline, folder / "v0", 0, np.zeros(3))
    _series(_body([(TRACKED, 19.0, 1400.0), (FRESH, 10.0, 180.0)]), folder / "v1", 1, SHIFT)
    grid = baseline.grid
    mask = (grid.voxel_centers(reference=grid.center + TRACKED).norm(dim=-1) <= 14.0).to(torch.uint8)[None, None]
    write_volume(Volume(mask, grid, sitk.sitkUInt8), folder / "lesions.nii.gz")
    write_volume(baseline, folder / "v0.nii.gz")
    return folder


@pytest.fixture
def registered(files: Path, monkeypatch: pytest.MonkeyPatch) -> list:
    """The registration that is known, in place of a long one; returns what is known of the follow-up's lesions."""
    known: list = []
    blobs_of = candidates.blobs_of

    def listened(places, given):
        known.extend(given)
        return blobs_of(places, given)

    def register(fixed: Volume, moving: Volume, **options) -> RegistrationResult:
        assert options["preset"] == "ct-follow-up" and options["weights"] == str(files / "w.pt")
        back = Transform((AffineTransform(np.eye(3), -SHIFT),))
        grid = fixed.grid.canonical(24.0)
        bound = Volume(torch.full((1, 1, *grid.shape), 2.0), grid)
        return RegistrationResult(back, back.inverse(), {}, None, bound)

    monkeypatch.setattr(candidates, "register", register)
    monkeypatch.setattr(candidates, "blobs_of", listened)
    return known


def _run(files: Path, home: Path, monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setenv("SAMCONVEX_HOME", str(home))
    return main(["track", *map(str, words), "--weights", str(files / "w.pt"), "--progress", "none"])


def test_everything_appears_with_the_results(files, registered, tmp_path, monkeypatch, capsys) -> None:
    out = tmp_path / "out"
    inputs = (files / "v0", files / "lesions.nii.gz", files / "v1", "-o", out)
    options = ("--new-lesions", "--dicom-sr", out / "report.dcm", "--csv-separator", ";", "--patient", "Doe")
    assert _run(files, tmp_path, monkeypatch, *inputs, *options) == 0
    names = {"tracking.json", "tracking.csv", "course.json", "course.csv", "report.png", "report.pdf", "report.dcm"}
    assert names <= {path.name for path in out.iterdir()}
    course = read_course(out / "course.json")
    (lesion,) = course.lesions
    report = hd.sr.srread(out / "report.dcm")
    groups = report.content.get_image_measurement_groups()
    assert report.PatientID == "P1" and [group.tracking_identifier for group in groups] == [lesion.name] * 2
    for visit, group in zip(course.visits, groups, strict=True):
        long_axis = next(entry for entry in group.get_measurements() if entry.name.meaning == "Long axis")
        assert float(long_axis.value) == pytest.approx(lesion.readings[visit.name].longest_mm, abs=1e-3)
    with Image.open(out / "report.png") as page:
        assert page.size == (1654, 2339)
    with open(out / "course.csv", encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter=";"))
    assert [row["date"] for row in rows] == ["2026-01-01", "2026-01-02"] and "," in rows[1]["longest_mm"]
    # The ball that only the follow-up has; the lesion that has grown is known.
    ((place, radius),) = registered
    assert np.linalg.norm(place - textured_body().grid.center - TRACKED - SHIFT) < 4.0 and 19.0 < radius < 26.0
    (found,) = json.loads((out / "tracking.json").read_text(encoding="utf-8"))["new_lesion_candidates"]
    center = textured_body().grid.center + FRESH + SHIFT
    assert found["follow_up"] == 0 and np.linalg.norm(np.subtract(found["position"], center)) < 4.0
    (kept,) = candidates_of(course.visits[1])
    assert kept["position"] == found["position"] and kept["decision"] == "open"
    assert "1 candidate of new lesions" in capsys.readouterr().out


def test_what_cannot_be_reported_is_refused_before_the_work(files, tmp_path, monkeypatch, capsys) -> None:
    out, report = tmp_path / "out", tmp_path / "report.dcm"
    monkeypatch.setattr("samconvex.cli.track._tracked", lambda *arguments: pytest.fail("the work has begun"))
    inputs = (files / "v0.nii.gz", files / "lesions.nii.gz", files / "v1", "-o", out)
    assert _run(files, tmp_path, monkeypatch, *inputs, "--dicom-sr", report) == 2
    assert "v0.nii.gz, the image of baseline, is no DICOM series" in capsys.readouterr().err
    report.write_text("mine")
    assert _run(files, tmp_path, monkeypatch, *inputs, "--dicom-sr", report) == 2
    assert "report.dcm exists" in capsys.readouterr().err and report.read_text() == "mine"
    bright = read_volume(files / "v0.nii.gz")
    write_volume(bright.with_tensor(bright.tensor.float() * 0.1 + 500), tmp_path / "mr.nii.gz")
    inputs = (tmp_path / "mr.nii.gz", files / "lesions.nii.gz", files / "v1", "-o", out)
    assert _run(files, tmp_path, monkeypatch, *inputs, "--new-lesions") == 2
    assert "mr.nii.gz" in capsys.readouterr().err and not out.exists()


def _candidate(place: np.ndarray) -> candidates.Candidate:
    grid = Grid((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    line = np.stack([place, place + [9.0, 0, 0]])
    size = candidates.Measurement(9.0, 6.0, 0.3, line, line)
    return candidates.Candidate(place, 0.8, 60.0, "lung", size, Volume(torch.ones(1, 1, 2, 2, 2), grid), "Why.", ())


@pytest.fixture
def course() -> Course:
    course = new_course("Doe", "P1", Visit("baseline", sha256="a"))
    course.visits.append(Visit("later", sha256="b"))
    keep_candidates(course.visits[1], [_candidate(np.full(3, 10.0)), _candidate(np.full(3, 50.0))])
    return course


def test_an_accepted_candidate_is_a_new_lesion_of_the_course(course: Course) -> None:
    lesion = accept_candidate(course, "later", 1)
    assert course.lesions == [lesion] and (lesion.name, lesion.role) == ("new 1", NEW_LESION)
    reading = lesion.readings["later"]
    assert (reading.state, reading.position, reading.longest_mm, reading.confirmed) == (NEW, [50.0] * 3, 9.0, None)
    assert np.shape(reading.longest_line) == (2, 3) and reading.reason == "Why."
    assert accept_candidate(course, "later", 0, "L7").name == "L7"
    with pytest.raises(InputError, match="there is no number 3"):
        accept_candidate(course, "later", 2)
    keep_candidates(course.visits[0], [_candidate(np.zeros(3))])
    with pytest.raises(InputError, match="at which no lesion is new"):
        accept_candidate(course, "baseline", 0)


def test_decisions_outlive_another_run_of_the_visit(course: Course) -> None:
    reject_candidate(course, "later", 0)
    course.visits[1].extra["response"] = {"new_lesion": True}
    again = Visit("later", sha256="b")
    # A little beside, in another order, and one more.
    places = [np.full(3, 50.0), np.full(3, 11.0), np.full(3, 90.0)]
    keep_candidates(again, [_candidate(place) for place in places], course.visits[1])
    replace_visit(course, "later", again, {})
    assert [one["decision"] for one in candidates_of(course.visits[1])] == ["open", "rejected", "open"]
    assert course.visits[1].extra["response"] == {"new_lesion": True}
