"""Matched points in markups nodes: place, score, state of each point, and what the user decides about it.

What the engine said about a point is kept as JSON in an attribute of the node, by control point ID, so that it is saved
with the scene; the description of each control point says the same in words and is also kept in .mrk.json files.
"""

import json
import math
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from SAMConvexLib import nodes
from SAMConvexLib.scene import placeBeside
from SAMConvexLib.tables import fillTextTable, formatted
from slicer.i18n import tr as _

MATCHES_ATTRIBUTE = "SAMLandmark.Matches"
QUERY_ROLE = "SAMLandmark.Volume"
TEMPLATE_ROLE = "SAMLandmark.Template"
TEMPLATE_VOLUME_ROLE = "SAMLandmark.TemplateVolume"
# Colors of confident and of doubtful points; markups have these two per node.
CONFIDENT_COLOR = (0.25, 0.85, 0.35)
DOUBTFUL_COLOR = (1.0, 0.55, 0.1)
CONFIDENT = 0.5
# A point that lies further from the engine's place was moved by the user.
MOVED_MM = 0.05
NEW, ACCEPTED, REJECTED, CORRECTED = "new", "accepted", "rejected", "corrected"
# No reliable match; and what lies at a level of the body that the scan does not show. The engine calls them so.
NOT_FOUND, OUTSIDE = "not found", "outside"
# A point that lies beside the image it is said to be placed in; it was not looked for.
OUTSIDE_TEMPLATE = "outside the template"


@dataclass(frozen=True)
class TemplatePoint:
    """A control point with a position: label, description, world RAS mm."""

    label: str
    description: str
    position: tuple


@dataclass(frozen=True)
class PointRow:
    """What the table shows of one point; unknown figures are None.

    Attributes:
        state: one of this module's states.
        cycle: return error, mm between the template's point and where its match leads back to.
        votes: number of templates that agree.
        error90: mm that nine of ten errors of such matches stay below; None where the point is not at the found place.
        confidence: 0 (do not trust) to 1.
        error: mm from the true place, where it is known.
    """

    label: str
    state: str
    score: float | None
    cycle: float | None
    votes: int | None
    spread: float | None
    confidence: float
    error: float | None = None
    error90: float | None = None


def stateLabel(state):
    """A state in the user's language."""
    return {
        NEW: _("to be checked"),
        ACCEPTED: _("accepted"),
        REJECTED: _("rejected"),
        CORRECTED: _("corrected"),
        NOT_FOUND: _("not found"),
        OUTSIDE: _("outside this scan"),
        OUTSIDE_TEMPLATE: _("outside the template"),
    }[state]


def templatePoints(markups):
    """TemplatePoints of a markups node, those without a position left out."""
    found = []
    for index in range(markups.GetNumberOfControlPoints()):
        position = positionOf(markups, index)
        if position is not None:
            label, text = markups.GetNthControlPointLabel(index), markups.GetNthControlPointDescription(index)
            found.append(TemplatePoint(label, text, tuple(position)))
    return found


def positionOf(markups, index):
    """World RAS mm (3,) of a control point, or None where it has no position."""
    if markups.GetNthControlPointPositionStatus(index) != slicer.vtkMRMLMarkupsNode.PositionDefined:
        return None
    position = [0.0, 0.0, 0.0]
    markups.GetNthControlPointPositionWorld(index, position)
    return np.array(position)


# --- engine answers into nodes --------------------------------------------------------------------------------------


def create(queryVolume, templateMarkups):
    """A new, empty markups node for the answers in a query volume."""
    name = _("{points} in {volume}").format(points=templateMarkups.GetName(), volume=queryVolume.GetName())
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", slicer.mrmlScene.GenerateUniqueName(name))


def fill(markups, entries, points, frame, queryVolume, templateMarkups, templateVolume=None):
    """Replace a node's points by the engine's answers; points that were not found become undefined control points.

    Args:
        entries: one dictionary per point as the engine reports it, LPS mm of ``frame``.
        points: TemplatePoints of the first entries; further entries are points that only other templates have.
        templateVolume: the image that the template's points lie in, where it is in the scene.
    """
    records = {}
    with slicer.util.NodeModify(markups):
        markups.RemoveAllControlPoints()
        markups.SetAndObserveTransformNodeID(None)
        for row, entry in enumerate(entries):
            place = None
            if entry["point"] is not None:
                place = nodes.worldOfLps([entry["point"]], frame.worldFromFrame)[0]
            index = markups.AddControlPointWorld(vtk.vtkVector3d(*(place if place is not None else (0.0, 0.0, 0.0))))
            markups.SetNthControlPointLabel(index, points[row].label if row < len(points) else entry["label"])
            if not entry["found"]:
                markups.UnsetNthControlPointPosition(index)
            records[markups.GetNthControlPointID(index)] = recordOf(entry, place)
    writeRecords(markups, records)
    markups.SetNodeReferenceID(QUERY_ROLE, queryVolume.GetID())
    markups.SetNodeReferenceID(TEMPLATE_ROLE, templateMarkups.GetID())
    markups.SetNodeReferenceID(TEMPLATE_VOLUME_ROLE, templateVolume.GetID() if templateVolume is not None else None)
    if markups.GetDisplayNode() is None:
        markups.CreateDefaultDisplayNodes()
    display = markups.GetDisplayNode()
    display.SetSelectedColor(*CONFIDENT_COLOR)
    display.SetColor(*DOUBTFUL_COLOR)
    display.SetActiveColor(1.0, 1.0, 0.2)
    update(markups)
    placeBeside(markups, queryVolume)


def recordOf(entry, place):
    """What is kept of an answer: figures, the engine's place (RAS mm) and the user's decision."""
    record = {name: entry.get(name) for name in ("score", "cycle_mm", "votes", "spread_mm", "error90_mm")}
    record["place"] = None if place is None else [round(float(value), 4) for value in place]
    record["found"] = bool(entry["found"])
    record["state"] = entry.get("state")
    record["decision"] = ""
    return record


def records(markups):
    """{control point ID: record} of a result node; empty for any other."""
    try:
        found = json.loads(markups.GetAttribute(MATCHES_ATTRIBUTE) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def writeRecords(markups, content):
    markups.SetAttribute(MATCHES_ATTRIBUTE, json.dumps(content))


def isResult(markups):
    """True for a node that holds matched points."""
    return markups is not None and bool(markups.GetAttribute(MATCHES_ATTRIBUTE))


def queryVolume(markups):
    """The volume that a result's points lie in."""
    return markups.GetNodeReference(QUERY_ROLE)


def templateVolume(markups):
    """The volume that a result's template points lie in, or None where it is not in the scene."""
    return markups.GetNodeReference(TEMPLATE_VOLUME_ROLE)


def resultNodes(scene=None):
    """All result nodes of the scene."""
    found = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode", scene)
    return [node for node in found if isResult(node) and queryVolume(node) is not None]


# --- states ---------------------------------------------------------------------------------------------------------


def stateOf(markups, index, record):
    """The state of a point, from the user's decision and from where the point is now."""
    if record.get("decision") == REJECTED:
        return REJECTED
    position = positionOf(markups, index)
    if position is None:
        return record["state"] if record.get("state") in (OUTSIDE, OUTSIDE_TEMPLATE) else NOT_FOUND
    if record.get("place") is None or np.linalg.norm(position - record["place"]) > MOVED_MM:
        return CORRECTED
    return ACCEPTED if record.get("decision") == ACCEPTED else NEW


def confidenceOf(record):
    """0 to 1 from score and return error; what a user placed or accepted is certain."""
    if record.get("score") is None:
        return 0.0
    score = min(max((record["score"] - 0.4) / 0.4, 0.0), 1.0)
    cycle = math.exp(-(((record["cycle_mm"] or 0.0) / 12.0) ** 2))
    return score * cycle if record["found"] else min(score * cycle, CONFIDENT / 2)


def row(markups, index, record, truth=None):
    """PointRow of a control point.

    Args:
        truth: {label: true world position (3,)}.
    """
    state = stateOf(markups, index, record)
    confidence = 1.0 if state in (ACCEPTED, CORRECTED) else 0.0 if state == REJECTED else confidenceOf(record)
    label, position = markups.GetNthControlPointLabel(index), positionOf(markups, index)
    right = (truth or {}).get(label)
    error = None if right is None or position is None else float(np.linalg.norm(position - right))
    return PointRow(
        label,
        state,
        record.get("score"),
        record.get("cycle_mm"),
        record.get("votes"),
        record.get("spread_mm"),
        confidence,
        error,
        record.get("error90_mm") if state in (NEW, ACCEPTED) else None,
    )


def rows(markups, truthMarkups=None):
    """PointRows of all control points, in order."""
    known, truth = records(markups), positionsByLabel(truthMarkups)
    count = markups.GetNumberOfControlPoints()
    return [row(markups, index, known.get(markups.GetNthControlPointID(index), {}), truth) for index in range(count)]


def positionsByLabel(markups):
    """{label: world position} of the points whose label is unique; empty without a node."""
    if markups is None:
        return {}
    points = templatePoints(markups)
    labels = [point.label for point in points]
    return {point.label: np.array(point.position) for point in points if labels.count(point.label) == 1}


def update(markups):
    """Write description and color of every point after a change."""
    known = records(markups)
    with slicer.util.NodeModify(markups):
        for index in range(markups.GetNumberOfControlPoints()):
            shown = row(markups, index, known.get(markups.GetNthControlPointID(index), {}))
            text = describe(shown)
            if markups.GetNthControlPointDescription(index) != text:
                markups.SetNthControlPointDescription(index, text)
            confident = shown.confidence >= CONFIDENT
            if bool(markups.GetNthControlPointSelected(index)) != confident:
                markups.SetNthControlPointSelected(index, confident)


def describe(shown):
    """One line about a point for its control point's description."""
    if shown.score is None:
        return stateLabel(shown.state)
    state, score, cycle = stateLabel(shown.state), shown.score, shown.cycle or 0.0
    if shown.error90 is None:
        return _("{state}: score {score:.2f}, return error {cycle:.1f} mm").format(
            state=state, score=score, cycle=cycle
        )
    return _("{state}: nine of ten within {bound:.0f} mm; score {score:.2f}, return error {cycle:.1f} mm").format(
        state=state, bound=shown.error90, score=score, cycle=cycle
    )


def decide(markups, index, decision):
    """Accept or reject a point, or take the decision back (an empty string).

    Accepting a point that was not found takes the engine's best place. Rejecting keeps the point, without a position.
    """
    known = records(markups)
    record = known.setdefault(markups.GetNthControlPointID(index), {"found": False})
    rejected = record.get("decision") == REJECTED
    record["decision"] = decision
    if decision == REJECTED:
        position = positionOf(markups, index)
        record["rejectedFrom"] = None if position is None else [float(value) for value in position]
        markups.UnsetNthControlPointPosition(index)
    elif positionOf(markups, index) is None and (decision == ACCEPTED or rejected):
        place = (record.get("rejectedFrom") if rejected else None) or record.get("place")
        if place is not None and (decision == ACCEPTED or record.get("rejectedFrom")):
            markups.SetNthControlPointPositionWorld(index, *place)
    writeRecords(markups, known)
    update(markups)


def place(markups, index, position):
    """Put a point somewhere, as dragging does; it counts as corrected."""
    known = records(markups)
    known.setdefault(markups.GetNthControlPointID(index), {"found": False})["decision"] = ""
    writeRecords(markups, known)
    markups.SetNthControlPointPositionWorld(index, *[float(value) for value in position])
    update(markups)


def replace(markups, index, entry, position):
    """Put another answer of the engine (a re-match) in a point's place."""
    known = records(markups)
    known[markups.GetNthControlPointID(index)] = recordOf(entry, position)
    writeRecords(markups, known)
    if entry["found"]:
        markups.SetNthControlPointPositionWorld(index, *[float(value) for value in position])
    else:
        markups.UnsetNthControlPointPosition(index)
    update(markups)


def templateIndex(markups, index):
    """(template markups, index there) of a result's point by label, or None."""
    template = markups.GetNodeReference(TEMPLATE_ROLE)
    if template is None:
        return None
    label = markups.GetNthControlPointLabel(index)
    for other in range(template.GetNumberOfControlPoints()):
        if template.GetNthControlPointLabel(other) == label and positionOf(template, other) is not None:
            return template, other
    return None


# --- table ----------------------------------------------------------------------------------------------------------


def fillTable(tableNode, resultMarkups, truth=None):
    """All points of several results as a table node that is saved with the scene.

    Args:
        truth: {result markups node ID: markups node with the true points}.
    """
    titles = (
        _("Volume"),
        _("Point"),
        _("State"),
        _("Score"),
        _("Return error (mm)"),
        _("Templates agreeing"),
        _("Spread (mm)"),
        _("Confidence"),
        _("Error (mm)"),
        _("90 % within (mm)"),
        "R",
        "A",
        "S",
    )
    lines = []
    for markups in resultMarkups:
        volume = queryVolume(markups)
        for index, shown in enumerate(rows(markups, (truth or {}).get(markups.GetID()))):
            position = positionOf(markups, index)
            figures = (shown.score, shown.cycle, shown.votes, shown.spread, shown.confidence, shown.error)
            figures += (shown.error90,)
            figures += tuple(position) if position is not None else (None,) * 3
            texts = ["" if value is None else formatted(float(value)) for value in figures]
            lines.append([volume.GetName() if volume else "", shown.label, stateLabel(shown.state), *texts])
    fillTextTable(tableNode, titles, lines)


def errorSummary(markups, truthMarkups):
    """(mean, largest, count) of the errors in mm, or None where no true point is known."""
    errors = [shown.error for shown in rows(markups, truthMarkups) if shown.error is not None]
    return (float(np.mean(errors)), float(np.max(errors)), len(errors)) if errors else None
