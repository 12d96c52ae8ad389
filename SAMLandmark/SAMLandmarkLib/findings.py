"""The engine's findings into nodes: the course with its table, points and contours in every follow-up."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from SAMConvexLib import nodes, segments
from SAMConvexLib.scene import placeBeside
from slicer.i18n import tr as _

from .course import FOUND, stateLabel, writeCourse
from .patients import acquisitionDate, patientOf

BASELINE_ROLE = "SAMLandmark.Baseline"


@dataclass
class TrackingOutput:
    """What a run gives: the table node, and per follow-up the lesions' points and (or None) contours."""

    table: object
    markups: list
    contours: list


def fill(request, run, content, table):
    """Put the engine's findings into nodes; returns TrackingOutput. Input nodes are not touched."""
    found, images = content
    scene = slicer.mrmlScene
    scene.StartState(slicer.vtkMRMLScene.BatchProcessState)
    try:
        course = {
            "patient": patientOf(request.baselineVolume)[1],
            "timepoints": [
                {"name": request.baselineVolume.GetName(), "date": acquisitionDate(request.baselineVolume)},
                *({"name": entry.name, "date": entry.date} for entry in request.followUps),
            ],
            "lesions": [
                {"name": lesion["name"], "node": False, "findings": _findings(lesion, run)}
                for lesion in found["lesions"]
            ],
            "new": [False] * (1 + len(request.followUps)),
        }
        writeCourse(table, course)
        table.SetNodeReferenceID(BASELINE_ROLE, request.baselineVolume.GetID())
        placeBeside(table, request.baselineVolume)
        markups = [_points(request, course, number) for number in range(len(request.followUps))]
        contours = [_contours(request, run, found, images, number) for number in range(len(request.followUps))]
        return TrackingOutput(table, markups, contours)
    finally:
        scene.EndState(slicer.vtkMRMLScene.BatchProcessState)


def _findings(lesion, run):
    """Per time point, the baseline first: state, world place, figures, reason, and room for what the user confirms."""
    place = nodes.worldOfLps([lesion["point"]], run.frames[0].worldFromFrame)[0]
    baseline = _finding(FOUND, place, None, None, lesion.get("measurement"))
    findings = [{**baseline, "reason": lesion.get("note", "")}]
    for frame, entry in zip(run.frames[1:], lesion["timepoints"], strict=True):
        place = None
        if entry.get("position") is not None:
            place = nodes.worldOfLps([entry["position"]], frame.worldFromFrame)[0]
        finding = _finding(entry["state"], place, entry.get("score"), entry.get("cycle_mm"), entry.get("measurement"))
        findings.append({**finding, "reason": entry.get("reason", "")})
    return findings


def _finding(state, place, score, cycle, measurement):
    measurement = measurement or {}
    return {
        "state": state,
        "place": None if place is None else [round(float(value), 3) for value in place],
        "score": score,
        "cycle_mm": cycle,
        "longest_mm": measurement.get("longest_mm"),
        "short_axis_mm": measurement.get("short_axis_mm"),
        "volume_ml": measurement.get("volume_ml"),
        "confirmed_mm": None,
    }


def _points(request, course, number):
    entry = request.followUps[number]
    name = _("Lesions in {volume}").format(volume=entry.name)
    markups = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLMarkupsFiducialNode", slicer.mrmlScene.GenerateUniqueName(name)
    )
    for lesion in course["lesions"]:
        finding = lesion["findings"][number + 1]
        place = finding["place"]
        index = markups.AddControlPointWorld(vtk.vtkVector3d(*(place or (0.0, 0.0, 0.0))))
        markups.SetNthControlPointLabel(index, lesion["name"])
        markups.SetNthControlPointDescription(index, stateLabel(finding["state"]))
        markups.SetNthControlPointSelected(index, finding["state"] == FOUND)
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
