"""Gives nodes their subject hierarchy items, which Slicer's Qt plugins do in the application."""

from __future__ import annotations

import slicer
import vtk

# Classes for which one of Slicer's subject hierarchy plugins claims a node.
SHOWN_CLASSES = (
    "vtkMRMLVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLMarkupsNode",
    "vtkMRMLModelNode",
    "vtkMRMLTransformNode",
    "vtkMRMLTableNode",
    "vtkMRMLTextNode",
    "vtkMRMLSequenceNode",
    "vtkMRMLSequenceBrowserNode",
    "vtkMRMLPlotChartNode",
    "vtkMRMLPlotSeriesNode",
)


class SubjectHierarchyFiller:
    """Observes a scene: one item per shown node, removed with the node."""

    def __init__(self, scene):
        self.scene = scene

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def node_added(caller, event, node):
            # While a scene is read, the hierarchy that is being read may bring the item itself.
            if not self.scene.IsImporting():
                self.add(node)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def node_about_to_be_removed(caller, event, node):
            self.remove(node)

        def imported(caller, event):
            for node in self.nodes():
                self.add(node)

        scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, node_added)
        scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, node_about_to_be_removed)
        scene.AddObserver(slicer.vtkMRMLScene.EndImportEvent, imported)

    def nodes(self):
        return [self.scene.GetNthNode(i) for i in range(self.scene.GetNumberOfNodes())]

    def hierarchy(self):
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)

    def add(self, node):
        if node is None or node.GetHideFromEditors() or not any(node.IsA(name) for name in SHOWN_CLASSES):
            return
        hierarchy = self.hierarchy()
        if hierarchy and hierarchy.GetItemByDataNode(node) == hierarchy.GetInvalidItemID():
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    def remove(self, node):
        # Looking the hierarchy up creates one; nothing may be created for nodes that never had an item.
        if self.scene.IsClosing() or self.scene.GetNumberOfNodesByClass("vtkMRMLSubjectHierarchyNode") == 0:
            return
        if node is None or not any(node.IsA(name) for name in SHOWN_CLASSES):
            return
        hierarchy = self.hierarchy()
        item = hierarchy.GetItemByDataNode(node)
        if item != hierarchy.GetInvalidItemID():
            hierarchy.RemoveItem(item, False, False)
