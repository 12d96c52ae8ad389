"""What a person measures and confirms, with the lines that show it: numbers and lines change together. No Qt.

Every function changes a course and returns sentences to tell; what the engine refuses raises its error.
"""

import re

import slicer
from SAMConvexLib import nodes
from slicer.i18n import tr as _

from .course import decisions
from .measurelines import LONGEST, SHORT, length, scaled, starting

# The program's lines stay beside those of a person.
SUGGESTED_LINES = "suggested_lines"
SIZES = re.compile(r"([0-9.]+)(?:\s*[xX×*]\s*([0-9.]+))?\s*(?:mm)?")


def confirm(course, chosen, kind):
    """Confirm readings, [(lesion name, visit name)], as they are or as what ``kind`` says."""
    said = []
    for lesion, visit in chosen:
        said += decisions().confirm(course, lesion, visit, kind, by=reader())
        if kind == "measured":
            _fitLines(course.lesion(lesion).readings[visit])
    return said


def confirmTyped(course, lesion, visit, text):
    """Confirm typed millimeters: "26", of a lymph node its short axis, or "26 x 14".

    Raises:
        nodes.NodeError: something else was typed.
    """
    found = SIZES.fullmatch(text.strip().replace(",", "."))
    try:
        longest, short = [None if part is None else float(part) for part in found.groups()]
    except (AttributeError, ValueError) as error:
        raise nodes.NodeError(
            _("'{text}' is no diameter; type millimeters, such as 26 or 26 x 14.").format(text=text)
        ) from error
    if short is None and course.lesion(lesion).node:
        longest, short = None, longest
    said = decisions().confirm(course, lesion, visit, longest_mm=longest, short_axis_mm=short, by=reader())
    _fitLines(course.lesion(lesion).readings[visit])
    return said


def confirmDrawn(course, lesion, visit, drawn):
    """Confirm lines that were dragged, {LONGEST or SHORT: end points}: their lengths are the diameters."""
    reading = course.lesion(lesion).readings[visit]
    _keepSuggestion(reading)
    reading.longest_line, reading.short_line = drawn.get(LONGEST), drawn.get(SHORT)
    longest, short = [length(drawn[kind]) if kind in drawn else None for kind in (LONGEST, SHORT)]
    return decisions().confirm(course, lesion, visit, longest_mm=longest, short_axis_mm=short, by=reader())


def begin(course, lesion, visit, otherwise):
    """Lines to drag where the program suggested none; nothing is confirmed yet.

    Args:
        otherwise: (3,) LPS mm where to begin, of a lesion whose place is not known.
    """
    reading = course.lesion(lesion).readings[visit]
    if reading.longest_line is None:
        _keepSuggestion(reading)
        if reading.position is None:
            reading.position = [float(value) for value in otherwise]
        lines = starting(reading.position)
        reading.longest_line, reading.short_line = lines[LONGEST], lines[SHORT]
    return [_("Drag the ends of the lines in the views; the diameters follow.")]


def withdraw(course, chosen):
    """Take confirmations back; the program's lines come back with them."""
    for lesion, visit in chosen:
        decisions().withdraw(course, lesion, visit)
        reading = course.lesion(lesion).readings[visit]
        if SUGGESTED_LINES in reading.extra:
            reading.longest_line, reading.short_line = reading.extra.pop(SUGGESTED_LINES)


def reader():
    """Name of the user as the application knows it, or ""."""
    logic = slicer.app.applicationLogic()
    user = logic.GetUserInformation() if hasattr(logic, "GetUserInformation") else None
    return (user.GetName() or "") if user is not None else ""


def _keepSuggestion(reading):
    reading.extra.setdefault(SUGGESTED_LINES, [reading.longest_line, reading.short_line])


def _fitLines(reading):
    """Lines as long as what was confirmed."""
    longest, short = reading.confirmed.longest_mm, reading.confirmed.short_axis_mm
    for name, size in ((LONGEST, longest), (SHORT, short)):
        line = getattr(reading, name)
        if line is not None and size and abs(length(line) - size) > 0.005:
            _keepSuggestion(reading)
            setattr(reading, name, scaled(line, size))
