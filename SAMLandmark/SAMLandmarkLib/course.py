"""The course of one patient in the scene: the engine's course, kept as its JSON with a table node.

The table node keeps all of it in an attribute, and node references to the images, points and contours of each time
point: images are found by node, never by name. Rules and format are the engine's; here is what the scene adds.
"""

import json

import numpy as np
import slicer
from SAMConvexLib import nodes
from SAMConvexLib.process import engineModule
from SAMConvexLib.tables import fillTextTable, formatted
from slicer.i18n import tr as _

COURSE_ATTRIBUTE = "SAMLandmark.Course"
# Node reference roles, one of each kind for every time point, ended by the time point's number for life.
VOLUME, POINTS, CONTOURS, MARKED = "Volume", "Points", "Contours", "Marked"
KEY = "slicer"


def model():
    """The engine's module of the course's data and format."""
    return engineModule("samconvex.lesions.course")


def changes():
    """The engine's module that adds, orders and replaces time points."""
    return engineModule("samconvex.lesions.course_changes")


def rules():
    """The engine's module that gives sums and categories."""
    return engineModule("samconvex.lesions.assessment")


def decisions():
    """The engine's module that confirms measurements and sets roles."""
    return engineModule("samconvex.lesions.confirmation")


def proposals():
    """The engine's module of candidates of new lesions."""
    return engineModule("samconvex.lesions.proposals")


# --- kept with the scene --------------------------------------------------------------------------------------------


def courseOf(table):
    """The course that a table node keeps, or None."""
    text = table.GetAttribute(COURSE_ATTRIBUTE) if table is not None else None
    if not text:
        return None
    try:
        return model().course_from_dict(json.loads(text), table.GetName())
    except ValueError:
        # No JSON, or the engine's refusal: of an earlier version, or edited by hand.
        return None


def writeCourse(table, course):
    """Keep a course with its table and write the table's cells anew."""
    table.SetAttribute(COURSE_ATTRIBUTE, json.dumps(model().course_to_dict(course)))
    module = engineModule("samconvex.lesions.course_table")
    lines = [[_cell(row[name]) for name in module.COLUMNS] for row in module.course_rows(course)]
    fillTextTable(table, module.COLUMNS, lines)


def _cell(value):
    return "" if value is None else formatted(value) if isinstance(value, float) else str(value)


def change(table, action):
    """Change a table's course; nothing is kept where the engine refuses.

    Args:
        action: called with the course; what it returns is returned.
    Raises:
        nodes.NodeError: the engine's sentence.
    """
    course = courseOf(table)
    answer = refusing(lambda: action(course))
    writeCourse(table, course)
    return answer


def roleOf(visit, kind):
    """Node reference role of a time point: ``kind`` and its number for life, which renaming and sorting keep."""
    return f"SAMLandmark.{kind}.{visit.extra.get(KEY, '')}"


def numbered(course, visit):
    """Give a new time point its number for life."""
    visit.extra[KEY] = str(1 + max([int(known.extra.get(KEY) or 0) for known in course.visits], default=0))
    return visit


def nodeOf(table, visit, kind):
    """A time point's node of a kind, or None where the scene has none."""
    return table.GetNodeReference(roleOf(visit, kind)) if visit.extra.get(KEY) else None


def setNode(table, visit, kind, node):
    """Remember a time point's node of a kind."""
    table.SetNodeReferenceID(roleOf(visit, kind), node.GetID() if node is not None else None)


def lpsOf(table, visit, position):
    """LPS mm of a time point's image of a point (3,) in world RAS mm."""
    volume = nodeOf(table, visit, VOLUME)
    return nodes.lpsInFrame([position], np.eye(4) if volume is None else nodes.exportFrame(volume)[1])[0]


def visitOf(table, course, volume):
    """The time point whose image is this volume node, or None."""
    return next((visit for visit in course.visits if nodeOf(table, visit, VOLUME) is volume), None)


def placeOf(table, visit, position):
    """World RAS mm of a point (3,) LPS mm of a time point's image, as the image lies in the scene now."""
    volume = nodeOf(table, visit, VOLUME)
    worldFromFrame = np.eye(4) if volume is None else nodes.exportFrame(volume)[1]
    return nodes.worldOfLps([position], worldFromFrame)[0]


def newTable(name):
    """A new table node for the course of a patient."""
    title = slicer.mrmlScene.GenerateUniqueName(_("Lesions of {name}").format(name=name))
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", title)


def courseTables():
    """All table nodes of the scene that keep a course."""
    return [node for node in slicer.util.getNodesByClass("vtkMRMLTableNode") if node.GetAttribute(COURSE_ATTRIBUTE)]


# --- table and files ------------------------------------------------------------------------------------------------


def stateLabel(state):
    """A state in the user's language."""
    return {
        "baseline": _("baseline"),
        "unchanged": _("unchanged"),
        "grown": _("grown"),
        "shrunk": _("shrunk"),
        "gone": _("gone"),
        "new": _("new"),
        "merged": _("merged"),
        "split": _("split"),
        "not found": _("not found"),
        "outside": _("outside this scan"),
    }.get(state, state)


def roleLabel(role):
    """A lesion's role in the user's language."""
    return {
        "target": _("target"),
        "non-target": _("non-target"),
        "new": _("new lesion"),
        "unclassified": _("not decided"),
    }.get(role, role)


def confirmedText(confirmed):
    """What was confirmed, in a few characters; "" before."""
    if confirmed is None:
        return ""
    if confirmed.kind == "measured":
        return sizeText(confirmed.longest_mm, confirmed.short_axis_mm)
    return {
        "disappeared": _("0 (gone)"),
        "too small": _("5 (too small)"),
        "not evaluable": _("not evaluable"),
    }.get(confirmed.kind, _("seen"))


def sizeText(longest, short):
    """Longest diameter x short axis in mm."""
    if longest is None and short is None:
        return ""
    texts = ["-" if value is None else f"{value:.1f}" for value in (longest, short)]
    return texts[0] if short is None else f"{texts[0]} x {texts[1]}"


def exportCsv(table, path, delimiter):
    """Everything about the course as a table for spreadsheets; ``delimiter`` is "," or ";" (with decimal commas).

    Raises:
        nodes.NodeError: the engine's sentence.
    """
    course = courseOf(table)
    refusing(lambda: engineModule("samconvex.lesions.course_table").write_course_csv(course, path, delimiter))


def exportJson(table, path):
    """The course in the engine's format, for another station or ``samconvex track --course``.

    Raises:
        nodes.NodeError: the engine's sentence. OSError: the file could not be written.
    """
    course = courseOf(table)
    for visit in course.visits:
        volume = nodeOf(table, visit, VOLUME)
        storage = volume.GetStorageNode() if volume is not None else None
        if visit.image is None and storage is not None and storage.GetFileName():
            visit.image = storage.GetFileName()
        visit.extra.pop(KEY, None)
    refusing(lambda: model().write_course(course, path))


def importJson(path):
    """A new table node with the course of a file; images that are loaded from its files are found, also later.

    Raises:
        nodes.NodeError: the engine's sentence on what is wrong with the file.
    """
    course = refusing(lambda: model().read_course(path))
    for visit in course.visits:
        visit.extra.pop(KEY, None)
    table = newTable(course.patient or (course.visits[0].name if course.visits else ""))
    for number, visit in enumerate(course.visits, start=1):
        visit.extra[KEY] = str(number)
    writeCourse(table, course)
    linkImages(table, course)
    return table


def linkImages(table, course):
    """Find images that were loaded from the files of time points whose image the scene did not know."""
    missing = {visit.image: visit for visit in course.visits if visit.image and nodeOf(table, visit, VOLUME) is None}
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if missing else []:
        storage = node.GetStorageNode()
        if storage is not None and storage.GetFileName() in missing:
            setNode(table, missing[storage.GetFileName()], VOLUME, node)


def refusing(action):
    """What an action of the engine returns; its refusals become NodeErrors with the same sentence."""
    try:
        return action()
    except engineModule("samconvex.errors").SamConvexError as error:
        raise nodes.NodeError(str(error)) from error
