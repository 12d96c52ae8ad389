"""A chart of the lesions' diameters over time."""

import slicer
import vtk
from slicer.i18n import tr as _

from .course import courseOf, diameterOf


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
    columns = [(title, times), *zip(names, values, strict=True)]
    if len(names) > 1:  # of one lesion it would hide the lesion's own line
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
