"""One tracking run: baseline, lesion nodes and follow-ups out as files, the engine's findings read back."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from SAMConvexLib import nodes, segments
from SAMConvexLib.files import PreparedRun, writeImage
from slicer.i18n import tr as _

from . import course as courses
from .patients import acquisitionDate, patientOf

RESULT_FILE = "tracking.json"


@dataclass
class FollowUp:
    """A later image: a volume of the scene or one of a sequence's data nodes, with its date (YYYYMMDD) or ""."""

    volume: object
    name: str
    date: str = ""


@dataclass
class TrackingRequest:
    """What to track.

    Attributes:
        lesionNodes: point lists, ROIs, lines and segmentations of the baseline.
        followUps: FollowUps, in order.
        table: table node whose course goes on; None, or one without a course, begins one. Lesions of the course that
            no node marks are tracked by what the course knows of them.
        newLesions: also look for candidates of new lesions.
    """

    baselineVolume: object
    lesionNodes: list
    followUps: list
    minimumScore: float | None = None
    device: str = "auto"
    table: object = None
    newLesions: bool = False

    def inputNodes(self):
        """Nodes whose removal ends the run."""
        every = [self.baselineVolume, *self.lesionNodes, *(entry.volume for entry in self.followUps), self.table]
        return [node for node in every if node is not None]


@dataclass(kw_only=True)
class PreparedTracking(PreparedRun):
    """A tracking run's files, and the ImageInFrame of the baseline and each follow-up."""

    frames: list

    def read(self):
        """(findings, {contour file: image}) (safe in a worker thread)."""
        found = json.loads((self.target / RESULT_FILE).read_text(encoding="utf-8"))
        contours = {}
        for lesion in found["lesions"]:
            for entry in lesion["timepoints"]:
                for kind in ("carried", "suggested"):
                    if kind in entry:
                        contours[entry[kind]] = sitk.ReadImage(str(self.target / entry[kind]))
        return found, contours


# --- inputs ---------------------------------------------------------------------------------------------------------


def followUpsOf(volumesOrSequences, baselineVolume=None):
    """FollowUps of volumes and sequences, by acquisition date where all are known, else in the given order."""
    found = []
    for node in volumesOrSequences:
        if node.IsA("vtkMRMLSequenceNode"):
            for index in range(node.GetNumberOfDataNodes()):
                volume = node.GetNthDataNode(index)
                value = f"{node.GetIndexName()} {node.GetNthIndexValue(index)}".strip()
                name = _("{sequence}, {value}").format(sequence=node.GetName(), value=value)
                found.append(FollowUp(volume, name, acquisitionDate(volume)))
        elif node is not baselineVolume:
            found.append(FollowUp(node, node.GetName(), acquisitionDate(node)))
    if all(entry.date for entry in found):
        found.sort(key=lambda entry: entry.date)
    return found


def lesionsOf(lesionNodes, frame, run):
    """Entries of the engine's list of lesions of all lesion nodes; masks become files of the run.

    Raises:
        nodes.NodeError: a node of another kind.
    """
    lesions = []

    def lps(points):
        return nodes.lpsInFrame(points, frame.worldFromFrame).round(4).tolist()

    for node in lesionNodes:
        if node.IsA("vtkMRMLSegmentationNode"):
            for layer in segments.labelLayers(node):
                labels = segments.resample(layer, frame)
                for segmentId, value in layer.values.items():
                    mask = (labels == value).astype(np.uint8)
                    if not mask.any():
                        continue
                    image = sitk.GetImageFromArray(mask)
                    image.CopyInformation(frame.image)
                    path = run.add(f"lesion{len(lesions)}.mha", writeImage, image)
                    name = node.GetSegmentation().GetSegment(segmentId).GetName()
                    lesions.append({"name": name, "mask": path.name})
        elif node.IsA("vtkMRMLMarkupsROINode"):
            bounds = [0.0] * 6
            node.GetRASBounds(bounds)
            corners = [[bounds[axis * 2 + (number >> axis & 1)] for axis in range(3)] for number in range(8)]
            corners = nodes.lpsInFrame(corners, frame.worldFromFrame)
            box = np.stack([corners.min(0), corners.max(0)]).round(4).tolist()
            lesions.append({"name": node.GetName(), "box": box})
        elif node.IsA("vtkMRMLMarkupsLineNode"):
            _labels, points = nodes.worldPoints(node)
            if len(points) == 2:
                lesions.append({"name": node.GetName(), "line": lps(points)})
        elif node.IsA("vtkMRMLMarkupsFiducialNode"):
            labels, points = nodes.worldPoints(node)
            for label, point in zip(labels, points, strict=True):
                lesions.append({"name": label or node.GetName(), "point": lps([point])[0]})
        else:
            raise nodes.NodeError(
                _("'{name}' holds no lesions; choose points, ROIs, lines or a segmentation.").format(
                    name=node.GetName()
                )
            )
    return _uniquelyNamed(lesions)


def knownLesions(course, names):
    """Entries of the engine's list of a course's baseline lesions other than ``names``: by diameters, else by point."""
    found = []
    first = course.visits[0].name
    for lesion in course.lesions:
        reading = lesion.readings.get(first)
        if lesion.name in names or reading is None or reading.position is None:
            continue
        if reading.longest_line is not None:
            found.append({"name": lesion.name, "line": reading.longest_line})
        else:
            found.append({"name": lesion.name, "point": reading.position})
    return found


def _uniquelyNamed(lesions):
    seen = {}
    for lesion in lesions:
        count = seen[lesion["name"]] = seen.get(lesion["name"], 0) + 1
        if count > 1:
            lesion["name"] = _("{name} ({number})").format(name=lesion["name"], number=count)
    return lesions


def checkRequest(request):
    """One sentence that says what is missing or wrong, or an empty string."""
    if request.baselineVolume is None:
        return _("Choose the baseline volume.")
    course = courses.courseOf(request.table)
    if not request.lesionNodes and course is None:
        return _("Check at least one node with lesions.")
    if not request.followUps:
        return _("Check at least one follow-up.")
    try:
        for volume in (request.baselineVolume, *(entry.volume for entry in request.followUps)):
            nodes.checkVolume(volume)
            nodes.exportFrame(volume)
    except nodes.NodeError as error:
        return str(error)
    if course is not None and not belongs(request.table, course, request.baselineVolume):
        return _(
            "'{table}' keeps a course with another baseline; choose that volume, or no course to begin one."
        ).format(table=request.table.GetName())
    patient = patientOf(request.baselineVolume)
    for entry in request.followUps:
        other = patientOf(entry.volume)
        if patient[0] and other[0] and patient[0] != other[0]:
            return _("'{follow}' belongs to {other}, the baseline to {patient}; choose images of one patient.").format(
                follow=entry.name, other=other[1], patient=patient[1]
            )
    return ""


def belongs(table, course, volume):
    """Whether a volume is the baseline of a course; an image that the scene does not know yet may be."""
    known = courses.nodeOf(table, course.visits[0], courses.VOLUME)
    return known is None or known is volume


def prepare(request):
    """Copy the nodes' content and list the files to write.

    Raises:
        nodes.NodeError: an input that cannot be used.
    """
    sentence = checkRequest(request)
    if sentence:
        raise nodes.NodeError(sentence)
    volumes = [request.baselineVolume, *(entry.volume for entry in request.followUps)]
    names = [request.baselineVolume.GetName(), *(entry.name for entry in request.followUps)]
    run = PreparedTracking(frames=[nodes.imageFromVolume(volume) for volume in volumes])
    lesions = lesionsOf(request.lesionNodes, run.frames[0], run)
    course = courses.courseOf(request.table)
    if course is not None:
        lesions += knownLesions(course, {lesion["name"] for lesion in lesions})
    if not lesions:
        raise nodes.NodeError(
            _("No lesion was found on '{name}'; mark at least one.").format(name=request.baselineVolume.GetName())
        )
    files = ["baseline.mha", *(f"followup{number}.mha" for number in range(len(request.followUps)))]
    paths = [
        run.add(file, writeImage, frame.image, name) for file, frame, name in zip(files, run.frames, names, strict=True)
    ]
    run.arguments = ["track", paths[0], run.add("lesions.json", writeList, lesions), *paths[1:], "-o", run.target]
    run.arguments += ["--each-contour", "--progress", "json", "--device", request.device]
    if request.newLesions:
        run.arguments.append("--new-lesions")
    if request.minimumScore is not None:
        run.arguments += ["--min-score", request.minimumScore]
    return run


def writeList(entries, path):
    """Write the lesions as ``samconvex track`` reads them."""
    Path(path).write_text(json.dumps(entries), encoding="utf-8")
