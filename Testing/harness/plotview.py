"""The plot view: a chart node drawn by VTK's charts, off screen, as qMRMLPlotView draws it."""

from __future__ import annotations

import slicer
import vtk

from .views import RenderedView


class PlotView(RenderedView):
    """qMRMLPlotView: draws the chart that its view node names, and follows chart, series and tables."""

    def __init__(self, node, parent=None):
        super().__init__(None, parent)
        self._node = node
        self._chart = vtk.vtkChartXY()
        actor = vtk.vtkContextActor()
        actor.GetScene().AddItem(self._chart)
        actor.GetScene().SetRenderer(self._renderer)
        self._renderer.SetBackground(1.0, 1.0, 1.0)
        self._renderer.AddActor(actor)
        self._watched = []
        node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *a: self._changed())
        self._build()

    def mrmlPlotViewNode(self):
        return self._node

    def chart(self):
        """The vtkChartXY that is drawn."""
        return self._chart

    def fitToContent(self):
        self._chart.RecalculateBounds()
        self.scheduleRender()

    def _changed(self):
        self._build()
        self.scheduleRender()

    def _build(self):
        """Draw the chart node as it is now, and observe all that it consists of."""
        for watched, tag in self._watched:
            watched.RemoveObserver(tag)
        node = self._node.GetPlotChartNode()
        series = [node.GetNthPlotSeriesNode(n) for n in range(node.GetNumberOfPlotSeriesNodes())] if node else []
        series = [entry for entry in series if entry is not None]
        parts = {*([node] if node else []), *series, *(entry.GetTableNode() for entry in series)} - {None}
        self._watched = [
            (part, part.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *a: self._changed())) for part in parts
        ]
        self._chart.ClearPlots()
        self._chart.SetVisible(node is not None)
        if node is None:
            return
        for entry in series:
            self._add(entry)
        self._describe(node)
        self._chart.RecalculateBounds()

    def _add(self, series):
        """One series; nothing where its table lacks the columns."""
        table = series.GetTableNode().GetTable() if series.GetTableNode() is not None else None
        kind, types = series.GetPlotType(), slicer.vtkMRMLPlotSeriesNode
        byIndex = kind in (types.PlotTypeLine, types.PlotTypeBar)
        x, y = series.GetXColumnName(), series.GetYColumnName()
        if table is None or table.GetColumnByName(y) is None or not (byIndex or table.GetColumnByName(x)):
            return
        bar = kind in (types.PlotTypeBar, types.PlotTypeScatterBar)
        plot = self._chart.AddPlot(vtk.vtkChart.BAR if bar else vtk.vtkChart.LINE)
        plot.SetInputData(table, y if byIndex else x, y)
        plot.SetUseIndexForXSeries(byIndex)
        plot.SetLabel(series.GetName())
        plot.SetColorF(*series.GetColor())
        plot.GetPen().SetOpacityF(series.GetOpacity())
        if not bar:
            plot.SetWidth(series.GetLineWidth())
            plot.GetPen().SetLineType(series.GetLineStyle())
            plot.SetMarkerStyle(series.GetMarkerStyle())
            plot.SetMarkerSize(series.GetMarkerSize())

    def _describe(self, node):
        """Title, legend and axes."""
        self._chart.SetTitle(node.GetTitle() or "" if node.GetTitleVisibility() else "")
        self._chart.GetTitleProperties().SetFontSize(node.GetTitleFontSize())
        self._chart.SetShowLegend(node.GetLegendVisibility())
        self._chart.GetLegend().SetLabelSize(node.GetLegendFontSize())
        for letter, place in (("X", vtk.vtkAxis.BOTTOM), ("Y", vtk.vtkAxis.LEFT)):
            axis = self._chart.GetAxis(place)
            shown = getattr(node, f"Get{letter}AxisTitleVisibility")()
            axis.SetTitle((getattr(node, f"Get{letter}AxisTitle")() or "") if shown else "")
            axis.GetTitleProperties().SetFontSize(node.GetAxisTitleFontSize())
            axis.GetLabelProperties().SetFontSize(node.GetAxisLabelFontSize())
            axis.SetGridVisible(node.GetGridVisibility())
            axis.SetLogScale(getattr(node, f"Get{letter}AxisLogScale")())
            if getattr(node, f"Get{letter}AxisRangeAuto")():
                axis.SetBehavior(vtk.vtkAxis.AUTO)
            else:
                axis.SetBehavior(vtk.vtkAxis.FIXED)
                axis.SetRange(*getattr(node, f"Get{letter}AxisRange")())
