"""The course as DICOM: a structured report of all visits (TID 1500) and the contours of one visit as segmentation.

Both refer to the slices they were measured in, so every visit that they tell of must be a DICOM series. A lesion has
one tracking identifier and UID through all visits, in the report and in the segmentations. Diameters are those that
were confirmed, else the suggested ones; each says which. What standard vocabularies do not name (states of a lesion,
categories of RECIST) is coded by "99SAMCONVEX". Needs highdicom and pydicom, an optional extra.
"""

from __future__ import annotations

import datetime
import os
import types
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, ResourceError
from ..io.dicom import is_dicom, series_slices
from ..io.dicom_stack import Slice
from ..io.files import replaced
from ..io.images import read_grid
from ..space.volume import resample
from ..version import __version__
from .assessment import VisitAssessment, assess_course, diameters_of
from .course import Course, CourseLesion, Reading, Visit
from .recording import reading_contour

if TYPE_CHECKING:
    from pydicom import Dataset

SCHEME = "99SAMCONVEX"
_MANUFACTURER, _MODEL = "SAMConvex", "samconvex"
# Of highdicom's copies of the source images; absent in some files, and may be empty.
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
    "Manufacturer",
)
# DICOM's own codes of the target lesions' response (part 16, CID 6145 and following).
_TARGET_CODES = {"CR": "112041", "PR": "112042", "PD": "112043", "SD": "112044"}


def write_sr(course: Course, path: str | os.PathLike, images: Mapping[str, str | os.PathLike] | None = None) -> None:
    """Write the course as one DICOM structured report (Comprehensive 3D SR, template TID 1500), whole or not at all.

    Per lesion and visit: tracking identifier and UID, site, long and short axis in mm with their end points, volume in
    ml, state, role, whether it was confirmed. Per visit: sum of diameters and response by RECIST 1.1 and iRECIST, as
    far as confirmed readings give them.

    Args:
        images: DICOM folder or multi-frame file per visit name; default those that the course names.

    Raises:
        InputError: a visit that is no DICOM series, images of several patients, nothing read yet, or highdicom is not
            installed. ResourceError: the disk refused.
    """
    if not any(lesion.readings for lesion in course.lesions):
        raise InputError("The course holds no reading yet; track or measure lesions before writing a report.")
    sources = check_sources(course.visits, course.patient_id, images)
    report = _report(course, sources)
    _write(report, path)


def write_seg(
    course: Course, visit: str, path: str | os.PathLike, images: Mapping[str, str | os.PathLike] | None = None
) -> None:
    """Write the contours of one visit as a DICOM segmentation on its own slices, one segment per lesion.

    Args:
        visit: its name. images: as in :func:`write_sr`.

    Raises:
        InputError: no such visit or contour, a contour that cannot be read, or as :func:`write_sr`.
    """
    hd = libraries()
    entry = course.visit(visit)
    drawn = [
        (lesion, lesion.readings[visit])
        for lesion in course.lesions
        if visit in lesion.readings and lesion.readings[visit].contour is not None
    ]
    if not drawn:
        raise InputError(f"There is no contour at {visit}; a segmentation needs at least one.")
    source = _Source(entry, images)
    masks = [_on_slices(reading, source) for _, reading in drawn]
    kept = [(lesion, mask) for (lesion, _), mask in zip(drawn, masks, strict=True) if mask.any()]
    if not kept:
        raise InputError(f"The contours at {visit} lie beside its image; check that they belong together.")
    described = [
        hd.seg.SegmentDescription(
            number,
            lesion.name[:64],
            _code("SCT", "MorphologicallyAbnormalStructure"),
            _code("SCT", "Lesion"),
            hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
            hd.AlgorithmIdentificationSequence(_MODEL, _code("DCM", "ArtificialIntelligence"), __version__),
            tracking_uid=tracking_uid(course, lesion),
            tracking_id=lesion.name[:64],
        )
        for number, (lesion, _) in enumerate(kept, start=1)
    ]
    made = hd.seg.Segmentation(
        source.datasets,
        np.stack([mask for _, mask in kept], -1),
        hd.seg.SegmentationTypeValues.BINARY,
        described,
        hd.UID(),
        1,
        hd.UID(),
        1,
        _MANUFACTURER,
        _MODEL,
        __version__,
        "1",
        content_label="LESIONS",
        series_description=f"Lesions at {visit}"[:64],
    )
    _write(made, path)


def tracking_uid(course: Course, lesion: CourseLesion) -> str:
    """The same UID for a lesion of a course whenever and wherever it is written."""
    key = "\n".join((course.patient_id, course.patient, course.visits[0].sha256, course.visits[0].name, lesion.name))
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, key).int}"


def libraries() -> types.ModuleType:
    """highdicom.

    Raises:
        InputError: it or pydicom is not installed.
    """
    try:
        import highdicom
        import highdicom.seg
        import highdicom.sr
    except ImportError as error:
        raise InputError(
            "DICOM reports are written by highdicom, which is not here; install samconvex[dicom], or leave them out."
        ) from error
    return highdicom


class _Source:
    """The slices of one visit's image, in the order of its voxels."""

    def __init__(self, visit: Visit, images: Mapping[str, str | os.PathLike] | None) -> None:
        given = (images or {}).get(visit.name, visit.image)
        if given is None:
            raise InputError(f"It is not known where the image of {visit.name} is; name its DICOM series.")
        if not Path(given).exists():
            raise InputError(f"{given}, the image of {visit.name}, does not exist; name its DICOM series.")
        if not is_dicom(Path(given)):
            raise InputError(
                f"{given}, the image of {visit.name}, is no DICOM series; a DICOM report refers to the slices it was "
                "read from, so give the series itself."
            )
        self.path = str(given)
        self.slices: list[Slice] = series_slices(given)
        self.datasets = list(self._read())

    def _read(self) -> Iterator[Dataset]:
        """Headers of the files, each once, in the order of the slices."""
        import pydicom

        for file in dict.fromkeys(item.header.path for item in self.slices):
            data = pydicom.dcmread(file, stop_before_pixels=True)
            for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
                if not data.get(name):
                    raise InputError(f"{file} has no {name}, so nothing can refer to it; export the series again.")
            for name in _MAY_BE_EMPTY:
                if name not in data:
                    setattr(data, name, "")
            yield data

    @property
    def frame_of_reference(self) -> str:
        return str(self.datasets[0].FrameOfReferenceUID)

    def nearest(self, position: Sequence[float]) -> Dataset:
        """The file whose slice a point, LPS mm, lies in or next to."""
        normal = self.slices[0].normal
        heights = [float(item.position @ normal) for item in self.slices]
        row = int(np.abs(np.array(heights) - np.asarray(position) @ normal).argmin())
        path = self.slices[row].header.path
        return self.datasets[list(dict.fromkeys(item.header.path for item in self.slices)).index(path)]


def check_sources(
    visits: Sequence[Visit], patient_id: str, images: Mapping[str, str | os.PathLike] | None = None
) -> dict[str, _Source]:
    """The slices of every visit by its name; refuses what :func:`write_sr` would, before there is a course to write.

    Raises:
        InputError: highdicom is not installed, a visit that is no DICOM series, images of several patients.
    """
    libraries()
    sources = {visit.name: _Source(visit, images) for visit in visits}
    known: dict[str, str] = {patient_id: "the course"} if patient_id else {}
    for source in sources.values():
        patient = str(source.datasets[0].PatientID or "")
        if patient:
            known.setdefault(patient, source.path)
    if len(known) > 1:
        (one, where), (other, there) = list(known.items())[:2]
        raise InputError(f"{where} is of patient {one}, {there} of {other}; a report tells of one patient.")
    return sources


def _report(course: Course, sources: Mapping[str, _Source]) -> Any:
    hd = libraries()
    sr = hd.sr
    assessed = {entry.visit: entry for entry in assess_course(course).visits}
    groups = []
    for order, visit in enumerate(course.visits, start=1):
        when = _time_point(course, visit, order)
        for lesion in course.lesions:
            reading = lesion.readings.get(visit.name)
            if reading is not None:
                groups.append(_lesion_group(course, lesion, reading, sources[visit.name], when))
        if visit.name in assessed:
            groups.append(_visit_group(course, visit, assessed[visit.name], when))
    device = sr.ObserverContext(
        observer_type=_code("DCM", "Device"),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, _MODEL).int}",
            name=_MODEL,
            manufacturer_name=_MANUFACTURER,
            model_name=f"{_MODEL} {__version__}",
        ),
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=_code("SCT", "ImagingProcedure"),
        imaging_measurements=groups,
        title=_code("DCM", "ImagingMeasurementReport"),
    )
    return sr.Comprehensive3DSR(
        evidence=[data for visit in reversed(course.visits) for data in sources[visit.name].datasets],
        content=content,
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=_MANUFACTURER,
        series_description="Lesions through time: support for a reading",
        # A person has to read it.
        is_complete=False,
        is_final=False,
    )


def _time_point(course: Course, visit: Visit, order: int) -> Any:
    sr = libraries().sr
    offset = None
    if visit.date and course.visits[0].date:
        days = (datetime.date.fromisoformat(visit.date) - datetime.date.fromisoformat(course.visits[0].date)).days
        offset = sr.LongitudinalTemporalOffsetFromEvent(days, _code("UCUM", "Day"), _code("DCM", "Baseline"))
    return sr.TimePointContext(
        time_point=visit.name if visit.date is None else f"{visit.name}, {visit.date}",
        time_point_order=order,
        temporal_offset_from_event=offset,
    )


def _lesion_group(course: Course, lesion: CourseLesion, reading: Reading, source: _Source, when: Any) -> Any:
    """One lesion at one visit (TID 1501)."""
    sr = libraries().sr
    longest, short = diameters_of(reading)
    frame = source.frame_of_reference
    suggested = reading.confirmed is None
    measured = [
        _length("LongAxis", longest, reading.longest_line, frame, reading.longest_error_mm if suggested else None),
        _length("ShortAxis", short, reading.short_line, frame, reading.short_axis_error_mm if suggested else None),
    ]
    if reading.volume_ml is not None:
        measured.append(
            sr.Measurement(_code("SCT", "Volume"), _decimal(reading.volume_ml), _own("ml", "milliliter", "UCUM"))
        )
    confirmed = "suggested" if suggested else f"confirmed: {reading.confirmed.kind}"  # type: ignore[union-attr]
    told = [("state", "State of lesion", reading.state), ("confirmed", "Confirmation by a reader", confirmed)]
    told.append(("role", "Role in response criteria", lesion.role))
    images = None
    if reading.position is not None:
        near = source.nearest(reading.position)
        images = [sr.SourceImageForMeasurementGroup(near.SOPClassUID, near.SOPInstanceUID)]
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(tracking_uid(course, lesion), lesion.name),
        time_point_context=when,
        finding_type=_code("SCT", "Lesion"),
        finding_sites=_sites(lesion),
        measurements=[entry for entry in measured if entry is not None],
        qualitative_evaluations=[sr.QualitativeEvaluation(_own(k, title), _own(v, v)) for k, title, v in told],
        source_images=images,
    )


def _length(name: str, value: float | None, line: list[list[float]] | None, frame: str, error: float | None) -> Any:
    """A diameter in mm; its end points where the length is that of the line (a typed one is not)."""
    sr = libraries().sr
    if value is None:
        return None
    places = None
    if line is not None and abs(float(np.linalg.norm(np.subtract(line[0], line[1]))) - value) < 0.06:
        polyline = sr.GraphicTypeValues3D.POLYLINE
        places = [sr.CoordinatesForMeasurement3D(polyline, np.asarray(line, dtype=float), frame)]
    limits = None
    if error is not None:
        limits = sr.MeasurementProperties(
            upper_measurement_uncertainty=_decimal(error), lower_measurement_uncertainty=_decimal(error)
        )
    return sr.Measurement(
        _code("SCT", name),
        _decimal(value),
        _code("UCUM", "Millimeter"),
        properties=limits,
        referenced_coordinates=places,
    )


def _visit_group(course: Course, visit: Visit, assessed: VisitAssessment, when: Any) -> Any:
    """Sum of diameters and response of one visit."""
    sr = libraries().sr
    recist = assessed.recist
    key = f"{course.patient_id}\n{course.visits[0].sha256}\nresponse"
    told = [sr.QualitativeEvaluation(_code("DCM", "CurrentResponse"), _own(recist.category, recist.category))]
    if recist.target in _TARGET_CODES:
        target = _own(_TARGET_CODES[recist.target], f"Target lesion: {recist.target}", "DCM")
        told.append(sr.QualitativeEvaluation(_own("target", "Response of target lesions"), target))
    immune = assessed.immune.category
    told.append(sr.QualitativeEvaluation(_own("irecist", "Response by iRECIST"), _own(immune, immune)))
    sums = []
    if recist.sum_mm is not None:
        name = _own("sum", "Sum of diameters of target lesions")
        sums.append(sr.Measurement(name, _decimal(recist.sum_mm), _code("UCUM", "Millimeter")))
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, key).int}", "response"),
        time_point_context=when,
        method=_own("126081", "RECIST 1.1", "DCM"),
        measurements=sums,
        qualitative_evaluations=told,
    )


def _sites(lesion: CourseLesion) -> list[Any]:
    """The organ by its SNOMED code where pydicom's dictionary has it, else in the course's own words."""
    sr = libraries().sr
    words = lesion.organ.strip().split()
    side = next((word.capitalize() for word in words if word.lower() in ("left", "right")), None)
    rest = [word for word in words if word.lower() not in ("left", "right")]
    name = "".join(word[:1].upper() + word[1:] for word in rest)
    if not name:
        return [sr.FindingSite(_code("SCT", "LymphNode"))] if lesion.node else []
    site = _known("SCT", name) or (_known("SCT", name[:-1]) if name.endswith("s") else None)
    if site is None:
        return [sr.FindingSite(_own(lesion.organ, lesion.organ))]
    return [sr.FindingSite(site, laterality=_code("SCT", side) if side else None)]


def _known(scheme: str, keyword: str) -> Any:
    from pydicom.sr.codedict import codes

    try:
        return getattr(getattr(codes, scheme), keyword)
    except AttributeError:
        return None


def _code(scheme: str, keyword: str) -> Any:
    found = _known(scheme, keyword)
    if found is None:
        raise LookupError(f"pydicom knows no {scheme} {keyword}")
    return found


def _own(value: str, meaning: str, scheme: str = SCHEME) -> Any:
    """A code of at most 16 letters, as DICOM allows, with its meaning."""
    return libraries().sr.CodedConcept(value=value[:16].strip(), scheme_designator=scheme, meaning=meaning[:64])


def _decimal(value: float) -> float:
    """A number that DICOM's 16 letters of a decimal hold."""
    return round(float(value), 4)


def _on_slices(reading: Reading, source: _Source) -> np.ndarray:
    """(frames, rows, columns) uint8 of a contour on the source's slices, in the order of its datasets."""
    labels = reading_contour(reading)
    assert labels is not None
    grid = read_grid(source.path)
    mask = resample(labels.with_tensor(labels.as_float()), grid, fill=0.0).tensor[0, 0].numpy() > 0.5
    frames = np.zeros((len(source.slices), *mask.shape[1:]), np.uint8)
    multi = source.slices[0].header.frames > 1
    for row, item in enumerate(source.slices):
        frames[item.frame if multi else row] = mask[row]
    return frames


def _write(made: Any, path: str | os.PathLike) -> None:
    try:
        with replaced(path) as temporary:
            made.save_as(str(temporary))
    except OSError as error:
        raise ResourceError(
            f"{path} could not be written ({error.strerror or error}); choose another place."
        ) from error
