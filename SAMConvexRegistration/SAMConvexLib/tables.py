"""Figures as texts, rows as table nodes."""

import numpy as np
import vtk


def formatted(value):
    """A figure with as many digits as are worth reading."""
    if value == "" or not isinstance(value, int | float):
        return str(value)
    if not np.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def fillTextTable(tableNode, titles, lines):
    """A table node's cells anew, all of them texts; it is saved with the scene."""
    tableNode.RemoveAllColumns()
    for column, title in enumerate(titles):
        array = vtk.vtkStringArray()
        array.SetName(title)
        for line in lines:
            array.InsertNextValue(line[column])
        tableNode.AddColumn(array)
    tableNode.SetUseColumnTitleAsColumnHeader(True)
    tableNode.Modified()
