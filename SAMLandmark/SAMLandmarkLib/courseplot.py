"""Charts of a course over time: the lesions' diameters, or their change since the baseline (a spider plot)."""

from datetime import date

import slicer
import vtk
from slicer.i18n import tr as _

from .course import courseOf, rules

DIAMETERS, CHANGE = "diameters", "change"


def plot(table, kind=DIAMETERS):
    """A chart node of the lesions over time; made anew from the table's course.

    Args:
        kind: DIAMETERS in mm, and their sum; or CHANGE of each in percent since the baseline.

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
    if kind == CHANGE:
        values = [_changes(course, lesion) for lesion in course.lesions]
    else:
        values = [
            [rules().shown_mm(lesion, lesion.readings.get(visit.name)) for visit in course.visits]
            for lesion in course.lesions
        ]
    names = [lesion.name for lesion in course.lesions]
    columns = [(title, times), *zip(names, values, strict=True)]
    if kind == DIAMETERS and len(names) > 1:  # of one lesion it would hide the lesion's own line
        sums = [sum(column) if None not in column else None for column in zip(*values, strict=True)]
        columns.append((_("Sum"), sums))
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
    chart.SetTitle(course.patient or (_("Lesion changes") if kind == CHANGE else _("Lesion diameters")))
    chart.SetXAxisTitle(title)
    chart.SetYAxisTitle(_("Change since baseline (%)") if kind == CHANGE else _("Diameter (mm)"))
    return chart


def _changes(course, lesion):
    """Percent since the first visit at which the lesion was measured, 0 there; None where it was not."""
    changes = [since for since, _least in rules().changes_of(course, lesion)]
    measured = [rules().shown_mm(lesion, lesion.readings.get(visit.name)) is not None for visit in course.visits]
    if True in measured:
        changes[measured.index(True)] = 0.0
    return changes


def timeAxis(course):
    """(values, title): days since the baseline where all dates are known, else the number of the time point."""
    days = [date.fromisoformat(visit.date) if visit.date else None for visit in course.visits]
    if None in days:
        return [float(number) for number in range(len(days))], _("Time point")
    return [float((day - days[0]).days) for day in days], _("Days since the baseline")
