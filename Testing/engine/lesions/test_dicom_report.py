"""The course as DICOM SR and SEG: highdicom reads back the numbers, identifiers and slices that were written."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from samconvex.errors import InputError
from samconvex.io.dicom import visit_facts
from samconvex.io.images import read_grid, read_labels, write_volume
from samconvex.lesions.course import Confirmation, Course, CourseLesion, Reading, Visit
from samconvex.lesions.dicom_report import SCHEME, tracking_uid, write_seg, write_sr
from samconvex.lesions.files import read_lesions
from samconvex.space.volume import Volume, resample

pydicom = pytest.importorskip("pydicom")
hd = pytest.importorskip("highdicom")

from engine.io import dicom_files as files  # noqa: E402

DATES = ("20260105", "20260320", "20260610")


def _series(folder: Path, number: int, patient: str = "P1") -> Path:
    """A visit's series in a study and frame of reference of its own."""

    def tweak(data: pydicom.Dataset, index: int) -> None:
        data.StudyInstanceUID, data.FrameOfReferenceUID = f"1.2.3.{number}", f"1.2.9.{number}"
        data.PatientID, data.StudyDate, data.AcquisitionDate = patient, DATES[number], DATES[number]
        data.SeriesDescription = f"venous {number}"

    return files.write_series(
        folder, files.voxels(seed=number), files.places(), series=f"1.2.3.{number}.1", tweak=tweak
    )


def _line(center: np.ndarray, length: float, axis: int) -> list[list[float]]:
    step = np.zeros(3)
    step[axis] = length / 2
    return np.stack([center - step, center + step]).tolist()


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """Three visits; a liver lesion, a node that was suggested only, and a lung lesion that has disappeared."""
    visits = [
        Visit(f"visit {n}", f"2026-{d[4:6]}-{d[6:]}", str(_series(tmp_path / f"ct{n}", n)), sha256=f"{n}" * 64)
        for n, d in enumerate(DATES)
    ]
    place = np.array([12.0, 1.0, -5.0])
    liver = CourseLesion("L1", "target", "liver")
    node = CourseLesion("N1", "non-target", "", node=True)
    lung = CourseLesion("lung lesion in the left upper lobe", "target", "left lung")
    for row, visit in enumerate(visits):
        longest = 20.0 - 3.123456 * row
        line = _line(place, longest, 0)
        confirmed = Confirmation("measured", longest, 11.5, "Dr. A", "2026-06-11T10:00:00")
        state = "baseline" if row == 0 else "shrunk"
        liver.readings[visit.name] = Reading(
            state, position=place.tolist(), longest_mm=longest, short_axis_mm=11.5, volume_ml=2.345678 - row,
            longest_line=line, short_line=_line(place, 11.5, 1), confirmed=confirmed,
        )  # fmt: skip
        node.readings[visit.name] = Reading(
            "baseline" if row == 0 else "not found", position=None, longest_mm=15.0, short_axis_mm=11.25,
            longest_error_mm=1.5,
        )  # fmt: skip
        gone = row > 0
        size = Confirmation("disappeared", 0.0, 0.0) if gone else Confirmation("measured", 14.0, 9.0)
        lung.readings[visit.name] = Reading("gone" if gone else "baseline", position=[6.0, -3.0, 1.0], confirmed=size)
    return Course("Doe", "P1", visits, [liver, node, lung])


def _values(group: object) -> dict[str, float]:
    return {entry.name.meaning: float(entry.value) for entry in group.get_measurements()}  # type: ignore[attr-defined]


def _told(group: object) -> dict[str, str]:
    return {e.name.meaning: e.value.meaning for e in group.get_qualitative_evaluations()}  # type: ignore[attr-defined]


def test_a_report_reads_back_with_the_same_numbers(course: Course, tmp_path: Path) -> None:
    write_sr(course, tmp_path / "report.dcm")
    report = hd.sr.srread(tmp_path / "report.dcm")
    assert isinstance(report, hd.sr.Comprehensive3DSR)
    assert report.PatientID == "P1" and report.StudyInstanceUID == "1.2.3.2"
    content = report.content
    for lesion in course.lesions:
        groups = content.get_image_measurement_groups(tracking_uid=tracking_uid(course, lesion))
        assert len(groups) == 3
        for visit, group in zip(course.visits, groups, strict=True):
            reading = lesion.readings[visit.name]
            assert group.tracking_identifier == lesion.name
            known = reading.confirmed or reading
            values = _values(group)
            assert values["Long axis"] == pytest.approx(known.longest_mm, abs=1e-4)
            assert values["Short axis"] == pytest.approx(known.short_axis_mm, abs=1e-4)
            assert values.get("Volume") == pytest.approx(reading.volume_ml, abs=1e-4)
            told = _told(group)
            assert told["State of lesion"] == reading.state
            assert told["Confirmation by a reader"].startswith("suggested" if lesion.node else "confirmed")
    liver, node, lung = (
        content.get_image_measurement_groups(tracking_uid=tracking_uid(course, lesion))[0] for lesion in course.lesions
    )
    sites = [group.finding_sites[0] for group in (liver, node, lung)]
    assert [site.value.value for site in sites] == ["10200004", "59441001", "39607008"]
    assert "Left" in str(sites[2].ContentSequence[0].ConceptCodeSequence[0].CodeMeaning)


def test_a_report_refers_to_the_slices_and_draws_the_diameters(course: Course, tmp_path: Path) -> None:
    write_sr(course, tmp_path / "report.dcm")
    report = pydicom.dcmread(tmp_path / "report.dcm")
    groups = hd.sr.srread(tmp_path / "report.dcm").content.get_image_measurement_groups(
        tracking_uid=tracking_uid(course, course.lesions[0])
    )
    for number, (visit, group) in enumerate(zip(course.visits, groups, strict=True)):
        reading = course.lesions[0].readings[visit.name]
        # Slices are 3 mm apart from -20 on; the lesion at -5 lies in the sixth.
        slices = [pydicom.dcmread(path).SOPInstanceUID for path in sorted(Path(visit.image or "").iterdir())]
        assert group.source_images[0].referenced_sop_instance_uid == slices[5]
        long_axis = next(entry for entry in group.get_measurements() if entry.name.meaning == "Long axis")
        drawn = next(item for item in long_axis[0].ContentSequence if item.ValueType == "SCOORD3D")
        np.testing.assert_allclose(np.reshape(drawn.GraphicData, (2, 3)), reading.longest_line, atol=1e-4)
        assert drawn.ReferencedFrameOfReferenceUID == f"1.2.9.{number}"
    named = {item.StudyInstanceUID for item in report.CurrentRequestedProcedureEvidenceSequence}
    named |= {item.StudyInstanceUID for item in report.PertinentOtherEvidenceSequence}
    assert named == {"1.2.3.0", "1.2.3.1", "1.2.3.2"}


def test_a_report_tells_sum_and_response_of_every_visit(course: Course, tmp_path: Path) -> None:
    write_sr(course, tmp_path / "report.dcm")
    groups = [
        group
        for group in hd.sr.srread(tmp_path / "report.dcm").content.get_image_measurement_groups()
        if group.tracking_identifier == "response"
    ]
    sums = [_values(group)["Sum of diameters of target lesions"] for group in groups]
    assert sums == pytest.approx([34.0, 20.0 - 3.123456, 20.0 - 2 * 3.123456], abs=1e-3)
    # 34 to 16.9 and 13.8 mm; the node was never confirmed, so the non-targets are not evaluable.
    assert [_told(group)["Current Response"] for group in groups] == ["baseline", "PR", "PR"]
    target = [
        entry.value
        for entry in groups[1].get_qualitative_evaluations()
        if entry.name.meaning == "Response of target lesions"
    ]
    assert (target[0].value, target[0].scheme_designator) == ("112042", "DCM")
    assert groups[1].get_qualitative_evaluations()[0].value.scheme_designator == SCHEME


def test_images_that_are_no_dicom_are_refused_before_anything_is_written(course: Course, tmp_path: Path) -> None:
    other = tmp_path / "image.nii.gz"
    sitk.WriteImage(sitk.Image(9, 9, 9, sitk.sitkInt16), str(other))
    target = tmp_path / "report.dcm"
    with pytest.raises(
        InputError, match=r"image\.nii\.gz, the image of visit 1, is no DICOM series; .* give the series"
    ):
        write_sr(course, target, {"visit 1": other})
    stranger = _series(tmp_path / "other", 2, patient="P2")
    with pytest.raises(InputError, match="a report tells of one patient"):
        write_sr(course, target, {"visit 2": stranger})
    with pytest.raises(InputError, match="no reading yet"):
        write_sr(Course("Doe", "P1", course.visits), target)
    with pytest.raises(InputError, match="There is no contour at visit 0"):
        write_seg(course, "visit 0", target)
    assert not target.exists() and not list(tmp_path.glob(".report*"))


def test_without_highdicom_one_sentence_says_what_to_install(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match=r"install samconvex\[dicom\]"):
        write_sr(course, tmp_path / "report.dcm")


def test_contours_become_segments_on_the_visit_s_own_slices(course: Course, tmp_path: Path) -> None:
    """Two lesions in one label map; they come back as lesions with their names, places and tracking UIDs."""
    grid = read_grid(course.visits[1].image or "")
    labels = torch.zeros(1, 1, *grid.shape, dtype=torch.uint8)
    labels[0, 0, 2:5, 3:7, 1:4] = 1
    labels[0, 0, 8, 5:9, 5:8] = 3
    write_volume(Volume(labels, grid, sitk.sitkUInt8), tmp_path / "contours.nii.gz")
    for row in (0, 2):
        reading = course.lesions[row].readings["visit 1"]
        reading.contour, reading.contour_label = str(tmp_path / "contours.nii.gz"), row + 1
    write_seg(course, "visit 1", tmp_path / "seg.dcm")
    made = hd.seg.segread(tmp_path / "seg.dcm")
    assert {made.get_segment_description(n).tracking_uid for n in (1, 2)} == {
        tracking_uid(course, course.lesions[row]) for row in (0, 2)
    }
    source = {pydicom.dcmread(path).SOPInstanceUID for path in Path(course.visits[1].image or "").iterdir()}
    assert {uid for _, _, uid in made.get_source_image_uids()} <= source
    lesions = read_lesions(tmp_path / "seg.dcm")
    assert [lesion.name for lesion in lesions] == ["L1", "lung lesion in the left upper lobe"]
    for lesion, value in zip(lesions, (1, 3), strict=True):
        inside = (labels[0, 0] == value).nonzero().flip(1).numpy()
        np.testing.assert_allclose(lesion.point, grid.voxels_to_points(inside).mean(0), atol=1e-3)
        assert lesion.mask is not None and int((lesion.mask.tensor > 0).sum()) == len(inside)


def test_a_multi_frame_file_is_a_source_too(course: Course, tmp_path: Path) -> None:
    path = files.write_enhanced(tmp_path / "many.dcm", files.voxels(), files.places())
    grid = read_grid(path)
    labels = torch.zeros(1, 1, *grid.shape, dtype=torch.uint8)
    labels[0, 0, 2:5, 3:7, 1:4] = 1
    write_volume(Volume(labels, grid, sitk.sitkUInt8), tmp_path / "contours.nii.gz")
    lesion = CourseLesion("L1", readings={"first": Reading("baseline", contour=str(tmp_path / "contours.nii.gz"))})
    single = Course("X", "X", [Visit("first", image=str(path))], [lesion])
    write_sr(single, tmp_path / "report.dcm")
    assert hd.sr.srread(tmp_path / "report.dcm").content.get_image_measurement_groups()
    write_seg(single, "first", tmp_path / "seg.dcm")
    np.testing.assert_array_equal(resample(read_labels(tmp_path / "seg.dcm"), grid, mode="nearest").tensor, labels)


def test_headers_that_nothing_can_refer_to_are_named(course: Course, tmp_path: Path) -> None:
    for path in Path(course.visits[2].image or "").iterdir():
        data = files.read(path)
        # The file's own header still says what it is, so it can be read as an image.
        del data.SOPClassUID
        data.save_as(path)
    with pytest.raises(
        InputError, match=r"report of Doe could not be made from the headers of .*ct2.*export the series"
    ):
        write_sr(course, tmp_path / "report.dcm")
    assert not (tmp_path / "report.dcm").exists()


def test_facts_of_a_visit_come_from_its_headers(course: Course, tmp_path: Path) -> None:
    facts = visit_facts(course.visits[1].image or "")
    assert (facts.date, facts.patient_id, facts.modality) == ("2026-03-20", "P1", "CT")
    assert (facts.series, facts.slice_thickness_mm) == ("venous 1", files.STEP)
    enhanced = visit_facts(files.write_enhanced(tmp_path / "many.dcm", files.voxels(), files.places()))
    assert (enhanced.date, enhanced.slice_thickness_mm, enhanced.patient_id) == (None, files.STEP, "X")
    sitk.WriteImage(sitk.Image(9, 9, 9, sitk.sitkInt16), str(tmp_path / "image.nii.gz"))
    assert visit_facts(tmp_path / "image.nii.gz") == type(facts)()
    with pytest.raises(InputError, match="does not exist"):
        visit_facts(tmp_path / "nowhere")
