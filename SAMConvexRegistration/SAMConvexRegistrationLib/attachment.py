"""The user's own nodes under a result, on request, and back under the parent they had."""

import json

import numpy as np
import slicer
from SAMConvexLib import nodes
from SAMConvexLib.nodes import PARENT_ATTRIBUTE
from SAMConvexLib.viewstate import ifPresent
from slicer.i18n import tr as _

PLACEMENT_ATTRIBUTE = "SAMConvex.Placement"


def attach(node, transformNode):
    """Put a node under the result; its own parents stay in effect below it. ``detach`` restores the parent exactly.

    Raises:
        nodes.NodeError: the node's parent is non-linear.
    """
    if node.GetAttribute(PARENT_ATTRIBUTE) is not None:
        detach(node)
    below = nodes.parentToWorld(node)
    node.SetAttribute(PARENT_ATTRIBUTE, json.dumps(node.GetTransformNodeID()))
    target = transformNode
    if not np.allclose(below, np.eye(4)):
        # Others may share the parent; a copy of it carries only this node.
        target = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLTransformNode", _("{name} placement").format(name=node.GetName())
        )
        target.SetAttribute(PLACEMENT_ATTRIBUTE, "1")
        target.SetMatrixTransformToParent(nodes.vtkFromMatrix(below))
        target.SetAndObserveTransformNodeID(transformNode.GetID())
    node.SetAndObserveTransformNodeID(target.GetID())


def isAttached(node):
    """True where ``attach`` has moved the node under a result."""
    return node is not None and node.GetAttribute(PARENT_ATTRIBUTE) is not None


def detach(node):
    """Give a node back the parent it had before ``attach``."""
    stored = node.GetAttribute(PARENT_ATTRIBUTE)
    if stored is None:
        return
    placement = node.GetParentTransformNode()
    node.SetAndObserveTransformNodeID(ifPresent(json.loads(stored)))
    node.RemoveAttribute(PARENT_ATTRIBUTE)
    if placement is not None and placement.GetAttribute(PLACEMENT_ATTRIBUTE):
        slicer.mrmlScene.RemoveNode(placement)
