"""Lesions over time: lesion nodes and follow-ups out as files, the engine's findings back as table, points, contours.

The table node keeps everything about one patient's course as JSON in an attribute: what was found, what the user
confirmed. Response categories are computed from confirmed diameters only; they support a reading and are no diagnosis.
"""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from SAMConvexLib import nodes, segments
from SAMConvexLib.files import writeImage
from SAMConvexLib.process import temporaryFolder
from SAMConvexLib.scene import placeBeside
from SAMConvexLib.tables import formatted
from slicer.i18n import tr as _

COURSE_ATTRIBUTE = "SAMLandmark.Course"
DATE_ATTRIBUTE = "SAMLandmark.AcquisitionDate"
BASELINE_ROLE = "SAMLandmark.Baseline"
FOUND, UNCERTAIN, NOT_IN_VIEW = "found", "uncertain", "not in the field of view"
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
    """

    baselineVolume: object
    lesionNodes: list
    followUps: list
    minimumScore: float | None = None
    device: str = "auto"

    def inputNodes(self):
        """Nodes whose removal ends the run."""
        every = [self.baselineVolume, *self.lesionNodes, *(entry.volume for entry in self.followUps)]
        return [node for node in every if node is not None]


@dataclass
class PreparedTracking:
    """A request as files to write and engine arguments."""

    folder: Path
    arguments: list
    frames: list
    names: dict
    writes: list = field(default_factory=list)

    def write(self):
        """Write all files (safe in a worker thread: no node is touched)."""
        for writer, content, path in self.writes:
            writer(content, str(path))

    def read(self):
        """(findings, {contour file: image}) (safe in a worker thread)."""
        folder = self.folder / "result"
        found = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
        contours = {}
        for lesion in found["lesions"]:
            for entry in lesion["timepoints"]:
                for kind in ("carried", "suggested"):
                    if kind in entry:
                        contours[entry[kind]] = sitk.ReadImage(str(folder / entry[kind]))
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


def acquisitionDate(volume):
    """YYYYMMDD of a volume: its own attribute, else the study date of its subject hierarchy item, else ""."""
    own = volume.GetAttribute(DATE_ATTRIBUTE) or volume.GetAttribute("DICOM.AcquisitionDate")
    if own:
        return "".join(character for character in own if character.isdigit())[:8]
    hierarchy, item = _itemOf(volume)
    constants = slicer.vtkMRMLSubjectHierarchyConstants
    while item:
        for name in (constants.GetDICOMStudyDateAttributeName(), "StudyDate"):
            value = hierarchy.GetItemAttribute(item, name)
            if value:
                return "".join(character for character in value if character.isdigit())[:8]
        item = _parentOf(hierarchy, item)
    return ""


def patientOf(node):
    """(subject hierarchy item of the patient, name), or (0, "") where none is known."""
    hierarchy, item = _itemOf(node)
    level = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelPatient()
    while item:
        if hierarchy.GetItemLevel(item) == level:
            return item, hierarchy.GetItemName(item)
        item = _parentOf(hierarchy, item)
    return 0, ""


def _itemOf(node):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    return hierarchy, hierarchy.GetItemByDataNode(node) if hierarchy is not None and node.GetScene() else 0


def _parentOf(hierarchy, item):
    parent = hierarchy.GetItemParent(item)
    return parent if parent not in (0, item, hierarchy.GetSceneItemID()) else 0


def lesionsOf(lesionNodes, frame, baselineVolume, folder):
    """([entries of the engine's list of lesions], [files to write]) of all lesion nodes.

    Raises:
        nodes.NodeError: a node of another kind, or none with a lesion.
    """
    lesions, writes = [], []

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
                    path = folder / f"lesion{len(lesions)}.mha"
                    writes.append((writeImage, image, path))
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
    seen = {}
    for lesion in lesions:
        count = seen[lesion["name"]] = seen.get(lesion["name"], 0) + 1
        if count > 1:
            lesion["name"] = _("{name} ({number})").format(name=lesion["name"], number=count)
    if not lesions:
        raise nodes.NodeError(
            _("No lesion was found on '{name}'; mark at least one.").format(name=baselineVolume.GetName())
        )
    return lesions, writes


def checkRequest(request):
    """One sentence that says what is missing or wrong, or an empty string."""
    if request.baselineVolume is None:
        return _("Choose the baseline volume.")
    if not request.lesionNodes:
        return _("Check at least one node with lesions.")
    if not request.followUps:
        return _("Check at least one follow-up.")
    try:
        for volume in (request.baselineVolume, *(entry.volume for entry in request.followUps)):
            nodes.checkVolume(volume)
            nodes.exportFrame(volume)
    except nodes.NodeError as error:
        return str(error)
    patient = patientOf(request.baselineVolume)
    for entry in request.followUps:
        other = patientOf(entry.volume)
        if patient[0] and other[0] and patient[0] != other[0]:
            return _("'{follow}' belongs to {other}, the baseline to {patient}; choose images of one patient.").format(
                follow=entry.name, other=other[1], patient=patient[1]
            )
    return ""


def prepare(request):
    """Copy the nodes' content and list the files to write.

    Raises:
        nodes.NodeError: an input that cannot be used.
    """
    sentence = checkRequest(request)
    if sentence:
        raise nodes.NodeError(sentence)
    folder = temporaryFolder()
    baseline = nodes.imageFromVolume(request.baselineVolume)
    lesions, writes = lesionsOf(request.lesionNodes, baseline, request.baselineVolume, folder)
    frames = [nodes.imageFromVolume(entry.volume) for entry in request.followUps]
    paths = [folder / "baseline.mha", *(folder / f"followup{number}.mha" for number in range(len(frames)))]
    writes += [(writeImage, frame.image, path) for frame, path in zip([baseline, *frames], paths, strict=True)]
    names = [request.baselineVolume.GetName(), *(entry.name for entry in request.followUps)]
    listed = folder / "lesions.json"
    writes.append((writeList, lesions, listed))
    arguments = ["track", paths[0], listed, *paths[1:], "-o", folder / "result", "--each-contour"]
    arguments += ["--progress", "json", "--device", request.device]
    if request.minimumScore is not None:
        arguments += ["--min-score", request.minimumScore]
    return PreparedTracking(folder, arguments, [baseline, *frames], dict(zip(paths, names, strict=True)), writes)


def writeList(entries, path):
    """Write the lesions as ``samconvex track`` reads them."""
    Path(path).write_text(json.dumps(entries), encoding="utf-8")


# --- results --------------------------------------------------------------------------------------------------------


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
    """Per time point, the baseline first: state, world place, figures, and room for what the user confirms."""
    place = nodes.worldOfLps([lesion["point"]], run.frames[0].worldFromFrame)[0]
    findings = [_finding(FOUND, place, None, None, lesion.get("measurement"))]
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


def stateLabel(state):
    """A state in the user's language."""
    return {
        FOUND: _("found"),
        UNCERTAIN: _("uncertain"),
        NOT_IN_VIEW: _("not in the field of view"),
    }.get(state, state)


# --- the course of one patient --------------------------------------------------------------------------------------


def courseOf(table):
    """The course that a table node keeps, or None."""
    try:
        course = json.loads(table.GetAttribute(COURSE_ATTRIBUTE) or "null") if table is not None else None
    except ValueError:
        return None
    return course if isinstance(course, dict) and "lesions" in course else None


def writeCourse(table, course):
    """Keep a course with its table and write the table's cells anew."""
    table.SetAttribute(COURSE_ATTRIBUTE, json.dumps(course))
    lines = rows(course)
    table.RemoveAllColumns()
    for column, title in enumerate(titles()):
        array = vtk.vtkStringArray()
        array.SetName(title)
        for line in lines:
            array.InsertNextValue(line[column])
        table.AddColumn(array)
    table.SetUseColumnTitleAsColumnHeader(True)
    table.Modified()


def titles():
    """Column titles of the table."""
    return (
        _("Patient"),
        _("Lesion"),
        _("Time point"),
        _("Date"),
        _("State"),
        _("Score"),
        _("Cycle error (mm)"),
        "R",
        "A",
        "S",
        _("Longest diameter (mm)"),
        _("Short axis (mm)"),
        _("Volume (ml)"),
        _("Confirmed (mm)"),
        _("Since baseline (%)"),
        _("Since smallest (%)"),
    )


def rows(course):
    """The table's cells as texts, lesion by lesion."""
    lines = []
    for lesion in course["lesions"]:
        changes = changesOf(lesion)
        for point, finding, change in zip(course["timepoints"], lesion["findings"], changes, strict=True):
            place = finding["place"] or (None,) * 3
            figures = (
                finding["score"],
                finding["cycle_mm"],
                *place,
                finding["longest_mm"],
                finding["short_axis_mm"],
                finding["volume_ml"],
                finding["confirmed_mm"],
                *change,
            )
            texts = ["" if value is None else formatted(float(value)) for value in figures]
            state = stateLabel(finding["state"])
            lines.append([course["patient"], lesion["name"], point["name"], point["date"], state, *texts])
    return lines


def diameterOf(lesion, finding):
    """The diameter that counts in mm: confirmed, else suggested (short axis of a lymph node), or None."""
    if finding["confirmed_mm"] is not None:
        return finding["confirmed_mm"]
    return finding["short_axis_mm" if lesion["node"] else "longest_mm"]


def changesOf(lesion):
    """Per time point the diameter's change in percent (since the baseline, since the smallest earlier one), or None."""
    changes, earlier = [], []
    for finding in lesion["findings"]:
        value = diameterOf(lesion, finding)
        changes.append(
            (_percent(value, earlier[0] if earlier else None), _percent(value, min(earlier) if earlier else None))
        )
        if value is not None:
            earlier.append(value)
    return changes


def _percent(value, reference):
    return None if value is None or not reference else 100.0 * (value - reference) / reference


def confirm(table, lesionName, timepoint, millimeters=None):
    """Confirm a lesion's diameter at a time point (0: baseline): the suggested one, or ``millimeters``.

    Raises:
        nodes.NodeError: there is no suggested diameter to confirm, or a negative one was given.
    """
    course = courseOf(table)
    lesion = next(lesion for lesion in course["lesions"] if lesion["name"] == lesionName)
    finding = lesion["findings"][timepoint]
    if millimeters is None:
        finding["confirmed_mm"] = None
        millimeters = diameterOf(lesion, finding)
    if millimeters is None or millimeters < 0:
        raise nodes.NodeError(
            _("{lesion} has no suggested diameter here; measure it and type the millimeters.").format(lesion=lesionName)
        )
    finding["confirmed_mm"] = float(millimeters)
    writeCourse(table, course)


def withdraw(table, lesionName, timepoint):
    """Take a confirmation back."""
    course = courseOf(table)
    lesion = next(lesion for lesion in course["lesions"] if lesion["name"] == lesionName)
    lesion["findings"][timepoint]["confirmed_mm"] = None
    writeCourse(table, course)


def setLymphNode(table, lesionName, isNode):
    """Count a lesion's short axis (lymph node) or longest diameter; earlier confirmations of it are taken back."""
    course = courseOf(table)
    lesion = next(lesion for lesion in course["lesions"] if lesion["name"] == lesionName)
    if lesion["node"] != bool(isNode):
        lesion["node"] = bool(isNode)
        for finding in lesion["findings"]:
            finding["confirmed_mm"] = None
    writeCourse(table, course)


def setNewLesion(table, timepoint, isNew):
    """Tell that an unequivocal new lesion was confirmed at a time point."""
    course = courseOf(table)
    course["new"][timepoint] = bool(isNew)
    writeCourse(table, course)


def response(course):
    """samconvex.response.Response per time point from the confirmed diameters, or [] without a confirmed baseline.

    Lesions that have no confirmed baseline diameter are no targets.
    """
    from samconvex.response import assess_response

    targets = [lesion for lesion in course["lesions"] if lesion["findings"][0]["confirmed_mm"]]
    if not targets:
        return []
    diameters = [
        {lesion["name"]: lesion["findings"][number]["confirmed_mm"] for lesion in targets}
        for number in range(len(course["timepoints"]))
    ]
    lymphNodes = [lesion["name"] for lesion in targets if lesion["node"]]
    return assess_response(diameters, nodes=lymphNodes, new_lesions=course["new"])


# --- export and plot ------------------------------------------------------------------------------------------------


def exportCsv(table, path):
    """The table as comma separated values."""
    course = courseOf(table)
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(titles())
        writer.writerows(rows(course))


def exportJson(table, path):
    """Everything about the course, with the response computed from what was confirmed."""
    from samconvex.response import NOTICE

    course = courseOf(table)
    responses = [
        {**vars(entry), "timepoint": point["name"]}
        for entry, point in zip(response(course), course["timepoints"], strict=False)
    ]
    values = {**course, "response": responses, "notice": NOTICE}
    Path(path).write_text(json.dumps(values, indent=2, default=str) + "\n", encoding="utf-8")


def plot(table):
    """A chart node of the lesions' diameters over time, and their sum; made anew from the table's course.

    Returns:
        The plot chart node. Its numbers are in a table node of their own.
    """
    course, scene = courseOf(table), slicer.mrmlScene
    chart = table.GetNodeReference("SAMLandmark.Chart")
    numbers = table.GetNodeReference("SAMLandmark.Numbers")
    if chart is None or numbers is None:
        chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", _("Lesion diameters"))
        numbers = scene.AddNewNodeByClass("vtkMRMLTableNode", _("Lesion diameters, numbers"))
        table.SetNodeReferenceID("SAMLandmark.Chart", chart.GetID())
        table.SetNodeReferenceID("SAMLandmark.Numbers", numbers.GetID())
    for index in reversed(range(chart.GetNumberOfPlotSeriesNodes())):
        scene.RemoveNode(chart.GetNthPlotSeriesNode(index))
    chart.RemoveAllPlotSeriesNodeIDs()
    numbers.RemoveAllColumns()
    times, title = timeAxis(course)
    values = [[diameterOf(lesion, finding) for finding in lesion["findings"]] for lesion in course["lesions"]]
    sums = [sum(column) if None not in column else None for column in zip(*values, strict=True)]
    names = [lesion["name"] for lesion in course["lesions"]]
    columns = [(title, times), *zip(names, values, strict=True), (_("Sum"), sums)]
    for name, column in columns:
        array = vtk.vtkDoubleArray()
        array.SetName(name)
        for value in column:
            array.InsertNextValue(float("nan") if value is None else float(value))
        numbers.AddColumn(array)
    palette = ((0.9, 0.3, 0.2), (0.2, 0.5, 0.9), (0.2, 0.7, 0.3), (0.7, 0.4, 0.8), (0.9, 0.6, 0.1), (0.3, 0.7, 0.7))
    for index, (name, _column) in enumerate(columns[1:]):
        series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
        series.SetAndObserveTableNodeID(numbers.GetID())
        series.SetXColumnName(title)
        series.SetYColumnName(name)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
        series.SetColor(*((0.1, 0.1, 0.1) if index == len(names) else palette[index % len(palette)]))
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetTitle(course["patient"] or _("Lesion diameters"))
    chart.SetXAxisTitle(title)
    chart.SetYAxisTitle(_("Diameter (mm)"))
    return chart


def timeAxis(course):
    """(values, title): days since the baseline where all dates are known, else the number of the time point."""
    from datetime import datetime

    try:
        dates = [datetime.strptime(point["date"], "%Y%m%d") for point in course["timepoints"]]
    except ValueError:
        return [float(number) for number in range(len(course["timepoints"]))], _("Time point")
    return [float((date - dates[0]).days) for date in dates], _("Days since the baseline")
