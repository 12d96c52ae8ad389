"""The engine's findings into nodes: the course with its table, points and contours in every follow-up."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from SAMConvexLib import nodes, segments
from SAMConvexLib.scene import placeBeside
from slicer.i18n import tr as _

from . import course as courses
from .course import CONTOURS, MARKED, POINTS, VOLUME, stateLabel
from .patients import acquisitionDate, patientIdOf, patientOf

# What the engine calls a lesion that is there.
PRESENT = ("unchanged", "grown", "shrunk", "merged", "split", "new")


@dataclass
class TrackingOutput:
    """What a run gives: the table node, and per follow-up of the run the lesions' points and (or None) contours.

    ``notes`` are sentences on what was taken back or could not be checked.
    """

    table: object
    markups: list
    contours: list
    notes: list


def fill(request, run, content, table):
    """Put the engine's findings into nodes; returns TrackingOutput. Input nodes are not touched.

    A course that the table keeps goes on: follow-ups are added to it or replace the same time point, and what was
    confirmed of the others stays.

    Raises:
        nodes.NodeError: the engine refuses a follow-up, another patient's for one; nothing is changed then.
    """
    found, images = content
    course = courses.courseOf(table)
    if course is None:
        course = _begun(request)
    first = course.visits[0]
    _addLesions(course, first, found)
    notes, visits = [], []
    for number, entry in enumerate(request.followUps):
        readings = {lesion["name"]: _reading(lesion["timepoints"][number]) for lesion in found["lesions"]}
        said, visit = _addVisit(table, course, entry, readings)
        notes += said
        visits.append(visit)
        _keepCandidates(visit, found, number)
    courses.decisions().open_new_lesions(course)
    scene = slicer.mrmlScene
    scene.StartState(slicer.vtkMRMLScene.BatchProcessState)
    try:
        if table is None:
            table = courses.newTable(course.patient or request.baselineVolume.GetName())
        courses.writeCourse(table, course)
        courses.setNode(table, first, VOLUME, request.baselineVolume)
        if request.lesionNodes and courses.nodeOf(table, first, MARKED) is None:
            courses.setNode(table, first, MARKED, request.lesionNodes[0])
        placeBeside(table, request.baselineVolume)
        output = TrackingOutput(table, [], [], notes)
        for number, (entry, visit) in enumerate(zip(request.followUps, visits, strict=True)):
            for kind in (POINTS, CONTOURS):
                if courses.nodeOf(table, visit, kind) is not None:
                    scene.RemoveNode(courses.nodeOf(table, visit, kind))
            if entry.volume.GetScene() is not None:
                courses.setNode(table, visit, VOLUME, entry.volume)
            output.markups.append(_points(request, course, visit, number, run))
            output.contours.append(_contours(request, run, found, images, number))
            courses.setNode(table, visit, POINTS, output.markups[-1])
            courses.setNode(table, visit, CONTOURS, output.contours[-1])
        return output
    finally:
        scene.EndState(slicer.vtkMRMLScene.BatchProcessState)


def _begun(request):
    """A course of the baseline alone."""
    volume = request.baselineVolume
    course = courses.model().Course(patientOf(volume)[1], patientIdOf(volume))
    visit = courses.numbered(course, _visit(volume, volume.GetName(), acquisitionDate(volume)))
    courses.refusing(lambda: courses.changes().add_visit(course, visit, patient_id=patientIdOf(volume)))
    return course


def _visit(volume, name, date):
    """A time point with what its image says of itself."""
    matrix = nodes.ijkToRas(volume)[:3, :3]
    spacing = np.linalg.norm(matrix, axis=0)
    along = int(np.argmax(np.abs(matrix[2] / spacing)))
    iso = courses.refusing(lambda: courses.changes().iso_date(date, name)) if date else None
    return courses.model().Visit(
        name,
        iso,
        modality=volume.GetAttribute("DICOM.Modality") or "",
        slice_thickness_mm=round(float(spacing[along]), 4),
        spacing_mm=[round(float(value), 4) for value in spacing],
    )


def _addLesions(course, first, found):
    """The run's lesions that the course does not know yet, with their baseline."""
    model = courses.model()
    known = {lesion.name for lesion in course.lesions}
    for lesion in found["lesions"]:
        if lesion["name"] in known:
            continue
        reading = model.Reading(model.BASELINE, position=lesion["point"], reason=lesion.get("note", ""))
        _setSizes(reading, lesion.get("measurement"))
        organ = lesion.get("organ", "")
        course.lesions.append(model.CourseLesion(lesion["name"], organ=organ, readings={first.name: reading}))


def _addVisit(table, course, entry, readings):
    """Add a follow-up to the course, or read the same one again; ([sentences], the visit)."""
    changes = courses.changes()
    known = courses.visitOf(table, course, entry.volume) if table is not None else None
    patient = patientIdOf(entry.volume)
    if known is None:
        names = {visit.name for visit in course.visits}
        name, number = entry.name, 1
        while name in names:
            number += 1
            name = _("{name} ({number})").format(name=entry.name, number=number)
        visit = courses.numbered(course, _visit(entry.volume, name, entry.date))
        said = courses.refusing(
            lambda: changes.add_visit(course, visit, readings, patient_id=patient, source=entry.name)
        )
        return said, visit
    visit = _visit(entry.volume, known.name, known.date or entry.date)
    visit.extra, visit.notes, visit.image = known.extra, known.notes, known.image
    _keepConfirmedLines(course, known, readings)
    said = courses.refusing(
        lambda: changes.replace_visit(course, known.name, visit, readings, patient_id=patient, source=entry.name)
    )
    return said, visit


@dataclass
class _Candidate:
    """A candidate of a new lesion as the engine wrote it."""

    record: dict

    def to_dict(self):
        return self.record


def _keepCandidates(visit, found, number):
    """The candidates of a follow-up, those open that nobody has decided on; none were sought: as they were."""
    if "new_lesion_candidates" in found:
        every = [_Candidate(dict(entry)) for entry in found["new_lesion_candidates"] if entry["follow_up"] == number]
        courses.proposals().keep_candidates(visit, every)


def _keepConfirmedLines(course, visit, readings):
    """What was measured by hand stays drawn where it was measured."""
    for name, reading in readings.items():
        before = course.lesion(name).readings.get(visit.name)
        if before is not None and before.confirmed is not None and before.confirmed.kind == "measured":
            reading.longest_line, reading.short_line = before.longest_line, before.short_line
            reading.extra = before.extra


def _reading(entry):
    """The engine's finding of one lesion in one follow-up, as a reading of the course."""
    model = courses.model()
    state = entry["state"]
    reading = model.Reading(
        state,
        state,
        entry.get("position"),
        entry.get("score"),
        entry.get("cycle_mm"),
        entry.get("loop_mm"),
        entry.get("error90_mm"),
        merged_with=entry.get("merged_with", []),
        reason=entry.get("reason", ""),
    )
    _setSizes(reading, entry.get("measurement"))
    reading.split_into = [
        model.Fragment(
            part["position"],
            part["longest_mm"],
            part["short_axis_mm"],
            part["volume_ml"],
            part.get("longest_points"),
            part.get("short_axis_points"),
        )
        for part in entry.get("fragments", [])
    ]
    return reading


def _setSizes(reading, measurement):
    for key in ("longest_mm", "short_axis_mm", "volume_ml"):
        setattr(reading, key, (measurement or {}).get(key))
    for key in ("longest_error_mm", "short_axis_error_mm", "volume_error_ml"):
        setattr(reading, key, (measurement or {}).get(key))
    reading.longest_line = (measurement or {}).get("longest_points")
    reading.short_line = (measurement or {}).get("short_axis_points")


def _points(request, course, visit, number, run):
    entry = request.followUps[number]
    name = _("Lesions in {volume}").format(volume=entry.name)
    markups = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLMarkupsFiducialNode", slicer.mrmlScene.GenerateUniqueName(name)
    )
    for lesion in course.lesions:
        reading = lesion.readings.get(visit.name)
        if reading is None:
            continue
        place = reading.position
        world = (0.0, 0.0, 0.0)
        if place is not None:
            world = nodes.worldOfLps([place], run.frames[number + 1].worldFromFrame)[0]
        index = markups.AddControlPointWorld(vtk.vtkVector3d(*world))
        markups.SetNthControlPointLabel(index, lesion.name)
        markups.SetNthControlPointDescription(index, stateLabel(reading.state))
        markups.SetNthControlPointSelected(index, reading.state in PRESENT)
        if place is None:
            markups.UnsetNthControlPointPosition(index)
    if entry.volume.GetScene() is not None:
        placeBeside(markups, entry.volume)
    return markups


def _contours(request, run, found, images, number):
    """A segmentation with the carried and the suggested contour of every lesion that came with an extent, or None."""
    entry, frame = request.followUps[number], run.frames[number + 1]
    present = [
        (lesion["name"], kind, images[lesion["timepoints"][number][kind]])
        for lesion in found["lesions"]
        for kind in ("carried", "suggested")
        if kind in lesion["timepoints"][number]
    ]
    if not present:
        return None
    name = _("Lesion contours in {volume}").format(volume=entry.name)
    segmentation = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLSegmentationNode", slicer.mrmlScene.GenerateUniqueName(name)
    )
    segmentation.GetSegmentation().SetSourceRepresentationName(segments.BINARY)
    colors = {"carried": (0.2, 0.8, 1.0), "suggested": (1.0, 0.85, 0.1)}
    titles = {"carried": _("{name}, carried from the baseline"), "suggested": _("{name}, suggested")}
    for lesion, kind, image in present:
        labels = (sitk.GetArrayFromImage(image) > 0.5).astype(np.int16)
        if not labels.any():
            continue
        segment = slicer.vtkSegment()
        segment.SetName(titles[kind].format(name=lesion))
        segment.SetColor(*colors[kind])
        toWorld = frame.worldFromFrame @ nodes.imageToRas(image)
        segment.AddRepresentation(segments.BINARY, segments.orientedLabels(labels, toWorld))
        segmentation.GetSegmentation().AddSegment(segment)
    segmentation.CreateDefaultDisplayNodes()
    segmentation.GetDisplayNode().SetVisibility2DFill(False)
    if entry.volume.GetScene() is not None:
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(entry.volume)
        placeBeside(segmentation, entry.volume)
    return segmentation
