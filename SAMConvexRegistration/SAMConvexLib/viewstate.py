"""The slice views put back as they were."""

import slicer

from . import nodes


class ViewState:
    """Layers, opacities and positions of all slice views, to be put back exactly."""

    def __init__(self):
        self._composites = {
            node.GetID(): (
                node.GetBackgroundVolumeID(),
                node.GetForegroundVolumeID(),
                node.GetLabelVolumeID(),
                node.GetForegroundOpacity(),
                node.GetLabelOpacity(),
                node.GetCompositing(),
                node.GetLinkedControl(),
            )
            for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        }
        self._slices = {
            node.GetID(): (nodes.matrixFromVtk(node.GetSliceToRAS()), node.GetFieldOfView(), node.GetXYZOrigin())
            for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")
        }

    def restore(self):
        scene = slicer.mrmlScene
        for nodeId, values in self._composites.items():
            node = scene.GetNodeByID(nodeId)
            if node is None:
                continue
            background, foreground, label, opacity, labelOpacity, compositing, linked = values
            # Linked views would copy each other while they are being restored.
            node.SetLinkedControl(False)
            with slicer.util.NodeModify(node):
                node.SetBackgroundVolumeID(ifPresent(background))
                node.SetForegroundVolumeID(ifPresent(foreground))
                node.SetLabelVolumeID(ifPresent(label))
                node.SetForegroundOpacity(opacity)
                node.SetLabelOpacity(labelOpacity)
                node.SetCompositing(compositing)
            node.SetLinkedControl(linked)
        for nodeId, (matrix, fieldOfView, origin) in self._slices.items():
            node = scene.GetNodeByID(nodeId)
            if node is None:
                continue
            with slicer.util.NodeModify(node):
                node.GetSliceToRAS().DeepCopy(nodes.vtkFromMatrix(matrix))
                node.SetFieldOfView(*fieldOfView)
                node.SetXYZOrigin(*origin)
                node.UpdateMatrices()


def ifPresent(nodeId):
    """A node ID, or None where the scene has no such node (any more)."""
    return nodeId if nodeId and slicer.mrmlScene.GetNodeByID(nodeId) is not None else None
