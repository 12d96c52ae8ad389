"""What the tables of the Lesions tab say, cell by cell. No Qt."""

from slicer.i18n import tr as _

from . import course as courses


def readingTitles():
    """Titles of the table of readings; what a reader needs first comes first."""
    return [
        _("Lesion"),
        _("Visit"),
        _("Size (mm)"),
        _("Confirmed"),
        _("Change"),
        _("State"),
        _("Since smallest"),
        _("Role"),
        _("Organ"),
        _("Volume (ml)"),
        _("Score"),
        _("90 % within"),
        _("Note"),
    ]


def readingTexts(lesion, visit, since):
    """Cells of one reading.

    Args:
        since: change in percent since the first and the smallest diameter, or None.
    """
    reading = lesion.readings[visit.name]
    return [
        lesion.name,
        visit.name,
        courses.sizeText(reading.longest_mm, reading.short_axis_mm),
        courses.confirmedText(reading.confirmed),
        _figure(since[0], "{:+.0f} %"),
        courses.stateLabel(reading.state),
        _figure(since[1], "{:+.0f} %"),
        courses.roleLabel(lesion.role) + (_(", node") if lesion.node else ""),
        lesion.organ,
        _withError(reading.volume_ml, reading.volume_error_ml, "{:.2f}"),
        _figure(reading.score, "{:.2f}"),
        _figure(reading.error90_mm, "{:.0f} mm"),
        reading.reason,
    ]


def readingTip(reading):
    """What the table has no room for: the expected error, and every doubt."""
    lines = [reading.reason] if reading.reason else []
    if reading.longest_error_mm is not None and reading.longest_mm is not None:
        errors = _withError(reading.longest_mm, reading.longest_error_mm, "{:.1f}")
        lines.append(_("Longest diameter {size} mm, as far as slices and contour tell.").format(size=errors))
    return "\n".join(lines)


def visitTitles():
    """Titles of the table of visits."""
    return [
        _("Visit"),
        _("Date"),
        _("Sum"),
        _("Change"),
        "RECIST",
        "iRECIST",
        _("Since smallest"),
        _("Volume"),
        _("Rule"),
    ]


def visitTexts(entry):
    """Cells of one visit after its name and date: sums, both categories and the rules that decided."""
    recist = entry.recist
    first = recist.category == "baseline"
    return [
        _figure(recist.sum_mm, "{:.1f}"),
        _figure(recist.change_since_baseline_percent, "{:+.0f} %"),
        _("baseline") if first else recist.category,
        "" if first else entry.immune.category,
        _figure(recist.change_since_nadir_percent, "{:+.0f} %"),
        "" if first else _figure(entry.volume_change_percent, "{:+.0f} %"),
        recist.reason if first else f"{recist.reason} iRECIST: {entry.immune.reason}",
    ]


def stateColor(reading):
    """Red, green, blue of a row: green is there, yellow in doubt or gone, blue new, gray not in the image."""
    if reading.state == "outside":
        return 215, 215, 215
    if reading.state == "new":
        return 195, 220, 250
    told = reading.state in ("merged", "split", "baseline")
    doubtful = reading.state in ("not found", "gone") or (reading.reason and not told)
    return (255, 235, 170) if doubtful and reading.confirmed is None else (200, 240, 205)


def _figure(value, form):
    return "" if value is None else form.format(value)


def _withError(value, error, form):
    if value is None or error is None:
        return _figure(value, form)
    return form.format(value) + " ± " + form.format(error)
