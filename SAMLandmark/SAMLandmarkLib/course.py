"""The course of one patient: what was found, what the user confirmed, what follows from it.

The table node keeps all of it as JSON in an attribute. Response categories are computed from confirmed diameters only;
they support a reading and are no diagnosis.
"""

import csv
import json
from pathlib import Path

from SAMConvexLib import nodes
from SAMConvexLib.process import engineModule
from SAMConvexLib.tables import fillTextTable, formatted
from slicer.i18n import tr as _

COURSE_ATTRIBUTE = "SAMLandmark.Course"
FOUND, UNCERTAIN, NOT_IN_VIEW = "found", "uncertain", "not in the field of view"


def stateLabel(state):
    """A state in the user's language."""
    return {
        FOUND: _("found"),
        UNCERTAIN: _("uncertain"),
        NOT_IN_VIEW: _("not in the field of view"),
    }.get(state, state)


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
    fillTextTable(table, titles(), rows(course))


def titles():
    """Column titles of the table."""
    return (
        _("Patient"),
        _("Lesion"),
        _("Time point"),
        _("Date"),
        _("State"),
        _("Score"),
        _("Return error (mm)"),
        "R",
        "A",
        "S",
        _("Longest diameter (mm)"),
        _("Short axis (mm)"),
        _("Volume (ml)"),
        _("Confirmed (mm)"),
        _("Since baseline (%)"),
        _("Since smallest (%)"),
        _("Note"),
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
            start = [course["patient"], lesion["name"], point["name"], point["date"], state]
            # Courses of earlier versions hold no reason for the baseline.
            lines.append([*start, *texts, finding.get("reason", "")])
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
    """A ``samconvex.lesions.response.Response`` per time point from the confirmed diameters, or [] without a
    confirmed baseline.

    Lesions that have no confirmed baseline diameter are no targets.
    """
    targets = [lesion for lesion in course["lesions"] if lesion["findings"][0]["confirmed_mm"]]
    if not targets:
        return []
    diameters = [
        {lesion["name"]: lesion["findings"][number]["confirmed_mm"] for lesion in targets}
        for number in range(len(course["timepoints"]))
    ]
    lymphNodes = [lesion["name"] for lesion in targets if lesion["node"]]
    return engineModule("samconvex.lesions.response").assess_response(
        diameters, nodes=lymphNodes, new_lesions=course["new"]
    )


def exportCsv(table, path):
    """The table as comma separated values."""
    course = courseOf(table)
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(titles())
        writer.writerows(rows(course))


def exportJson(table, path):
    """Everything about the course, with the response computed from what was confirmed."""
    course = courseOf(table)
    responses = [
        {**vars(entry), "timepoint": point["name"]}
        for entry, point in zip(response(course), course["timepoints"], strict=False)
    ]
    notice = engineModule("samconvex.lesions.response").NOTICE
    values = {**course, "response": responses, "notice": notice}
    Path(path).write_text(json.dumps(values, indent=2, default=str) + "\n", encoding="utf-8")
