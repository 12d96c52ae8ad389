"""The slice views put back as they were."""

import json

import slicer

from . import nodes

# Where a view's node keeps the layers that the user had while temporary ones are shown.
KEPT_ATTRIBUTE = "SAMConvex.Layers"
KEPT_ROLES = {name: f"SAMConvex.{name}Volume" for name in ("Background", "Foreground", "Label")}


# On the display node of what is hidden while temporary nodes are shown.
HIDDEN_ATTRIBUTE = "SAMConvex.Hidden"


class ViewState:
    """Layers, opacities and positions of all slice views and what was hidden, to be put back exactly."""

    def __init__(self):
        self._composites = {node.GetID(): layersOf(node) for node in _composites()}
        self._slices = {
            node.GetID(): (nodes.matrixFromVtk(node.GetSliceToRAS()), node.GetFieldOfView(), node.GetXYZOrigin())
            for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")
        }

    def keepInScene(self):
        """Note the layers in the views' nodes: call it before temporary nodes are shown.

        Slicer tells nobody before it saves a scene (its StartSaveEvent is declared and never invoked), and a view whose
        layers were not saved comes back empty. What is noted is used by ``restoreSavedLayers``.
        """
        for node in _composites():
            layers = self._composites.get(node.GetID())
            if layers is not None and node.GetAttribute(KEPT_ATTRIBUTE) is None:
                for name, role in KEPT_ROLES.items():
                    node.SetNodeReferenceID(role, layers[name])
                numbers = {name: value for name, value in layers.items() if name not in KEPT_ROLES}
                node.SetAttribute(KEPT_ATTRIBUTE, json.dumps(numbers))

    def hide(self, shown):
        """Hide displayable nodes until ``restore``; those that are not visible stay as they are."""
        for node in shown:
            display = node.GetDisplayNode()
            if display is not None and display.GetVisibility():
                display.SetAttribute(HIDDEN_ATTRIBUTE, "1")
                display.SetVisibility(False)

    def restore(self):
        scene = slicer.mrmlScene
        _showHidden()
        for nodeId, layers in self._composites.items():
            node = scene.GetNodeByID(nodeId)
            if node is not None:
                _forgetKept(node)
                _setLayers(node, layers)
        for nodeId, (matrix, fieldOfView, origin) in self._slices.items():
            node = scene.GetNodeByID(nodeId)
            if node is None:
                continue
            with slicer.util.NodeModify(node):
                node.GetSliceToRAS().DeepCopy(nodes.vtkFromMatrix(matrix))
                node.SetFieldOfView(*fieldOfView)
                node.SetXYZOrigin(*origin)
                node.UpdateMatrices()


def restoreSavedLayers(scene):
    """Give the views of a scene that was saved while temporary nodes were shown the layers that the user had."""
    kept = [node for node in _composites() if node.GetAttribute(KEPT_ATTRIBUTE) is not None]
    busy = [node for node in kept if _showsTemporary(node, scene)]
    if not busy:
        _showHidden()
    for node in kept:
        if node in busy:
            continue  # they are being shown now: another scene was added to this one
        layers = json.loads(node.GetAttribute(KEPT_ATTRIBUTE))
        layers |= {name: node.GetNodeReferenceID(role) for name, role in KEPT_ROLES.items()}
        _forgetKept(node)
        _setLayers(node, layers)


def _showsTemporary(node, scene):
    identifiers = [identifier for name, identifier in layersOf(node).items() if name in KEPT_ROLES and identifier]
    shown = [scene.GetNodeByID(identifier) for identifier in identifiers]
    return any(volume is not None and not volume.GetSaveWithScene() for volume in shown)


def _showHidden():
    """Show again what ``ViewState.hide`` hid, in this session or before the scene was saved."""
    for display in slicer.util.getNodesByClass("vtkMRMLDisplayNode"):
        if display.GetAttribute(HIDDEN_ATTRIBUTE):
            display.RemoveAttribute(HIDDEN_ATTRIBUTE)
            display.SetVisibility(True)


def layersOf(node):
    """Layers, opacities and linking of a vtkMRMLSliceCompositeNode by name; volumes by ID."""
    return {
        "Background": node.GetBackgroundVolumeID(),
        "Foreground": node.GetForegroundVolumeID(),
        "Label": node.GetLabelVolumeID(),
        "ForegroundOpacity": node.GetForegroundOpacity(),
        "LabelOpacity": node.GetLabelOpacity(),
        "Compositing": node.GetCompositing(),
        "LinkedControl": node.GetLinkedControl(),
    }


def _setLayers(node, layers):
    # Linked views would copy each other while they are being restored.
    node.SetLinkedControl(False)
    with slicer.util.NodeModify(node):
        node.SetBackgroundVolumeID(ifPresent(layers["Background"]))
        node.SetForegroundVolumeID(ifPresent(layers["Foreground"]))
        node.SetLabelVolumeID(ifPresent(layers["Label"]))
        node.SetForegroundOpacity(layers["ForegroundOpacity"])
        node.SetLabelOpacity(layers["LabelOpacity"])
        node.SetCompositing(layers["Compositing"])
    node.SetLinkedControl(layers["LinkedControl"])


def _forgetKept(node):
    node.RemoveAttribute(KEPT_ATTRIBUTE)
    for role in KEPT_ROLES.values():
        node.SetNodeReferenceID(role, None)


def _composites():
    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def ifPresent(nodeId):
    """A node ID, or None where the scene has no such node (any more)."""
    return nodeId if nodeId and slicer.mrmlScene.GetNodeByID(nodeId) is not None else None
