"""Segmentations to label maps on a volume's grid and back, without hardening and without touching the input node.

Hardening a segmentation under a non-linear transform clips it where its grid is oblique (Slicer 5.12 and 5.13), so
warped segments are exported to the target grid while a copy hangs under the transform.
"""

from contextlib import contextmanager

import numpy as np
import slicer
import vtk

from . import nodes

BINARY = "Binary labelmap"


def segmentIds(segmentationNode):
    """Segment IDs in display order."""
    segmentation = segmentationNode.GetSegmentation()
    return [segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())]


def layers(segmentationNode):
    """Groups of segment IDs whose label maps are shared, so that no two of a group overlap."""
    segmentation = segmentationNode.GetSegmentation()
    if not segmentation.CreateRepresentation(BINARY):
        return [[segmentId] for segmentId in segmentIds(segmentationNode)]
    groups = {}
    for segmentId in segmentIds(segmentationNode):
        groups.setdefault(segmentation.GetLayerIndex(segmentId, BINARY), []).append(segmentId)
    return list(groups.values())


@contextmanager
def temporaryNode(className, name):
    """A hidden node, removed afterwards together with the display and color nodes it brought along."""
    node = slicer.mrmlScene.AddNewNodeByClass(className, name)
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    try:
        yield node
    finally:
        removeWithDisplay(node)


def removeWithDisplay(node):
    """Remove a node, its display nodes and the color table that an exported label map leaves behind."""
    scene = slicer.mrmlScene
    for index in reversed(range(node.GetNumberOfDisplayNodes() if node.IsA("vtkMRMLDisplayableNode") else 0)):
        displayNode = node.GetNthDisplayNode(index)
        colorNode = displayNode.GetColorNode() if displayNode and displayNode.IsA("vtkMRMLVolumeDisplayNode") else None
        if displayNode:
            scene.RemoveNode(displayNode)
        if colorNode is not None and colorNode.GetAttribute("SAMConvex.Temporary"):
            scene.RemoveNode(colorNode)
    if scene.IsNodePresent(node):
        scene.RemoveNode(node)


@contextmanager
def copyOf(segmentationNode):
    """A hidden copy under the same parent transform; the source is not touched, not even its representations."""
    with temporaryNode("vtkMRMLSegmentationNode", "SAMConvexSegmentationCopy") as copy:
        copySegments(segmentationNode, copy)
        copy.SetAndObserveTransformNodeID(segmentationNode.GetTransformNodeID())
        yield copy


def copySegments(source, target):
    """Copy all segments and the reference geometry of one segmentation node into an empty one."""
    segmentation = target.GetSegmentation()
    segmentation.SetSourceRepresentationName(source.GetSegmentation().GetSourceRepresentationName())
    for name in _conversionParameters:
        value = source.GetSegmentation().GetConversionParameter(name)
        if value:
            segmentation.SetConversionParameter(name, value)
    for segmentId in segmentIds(source):
        segmentation.CopySegmentFromSegmentation(source.GetSegmentation(), segmentId)


_conversionParameters = ("Reference image geometry", "Oversampling factor", "Smoothing factor")


def exportLabels(segmentationNode, ids, referenceVolume):
    """(k, j, i) label map 1..len(ids) on the reference volume's grid, parent transforms honored.

    Segments of one call must not overlap, otherwise the later one wins.
    """
    scene, logic = slicer.mrmlScene, slicer.modules.segmentations.logic()
    colorsBefore = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLColorNode")}
    with temporaryNode("vtkMRMLLabelMapVolumeNode", "SAMConvexLabels") as labelMap:
        chosen = vtk.vtkStringArray()
        for segmentId in ids:
            chosen.InsertNextValue(segmentId)
        exported = logic.ExportSegmentsToLabelmapNode(
            segmentationNode, chosen, labelMap, referenceVolume, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
        )
        empty = not exported or labelMap.GetImageData() is None
        shape = tuple(reversed(referenceVolume.GetImageData().GetDimensions()))
        labels = None if empty else slicer.util.arrayFromVolume(labelMap).copy()
    for colorNode in slicer.util.getNodesByClass("vtkMRMLColorNode"):
        if colorNode.GetID() not in colorsBefore:
            scene.RemoveNode(colorNode)
    if labels is None:
        return np.zeros(shape, np.int16)
    if labels.shape != shape:
        raise RuntimeError(f"exported label map has shape {labels.shape}, expected {shape}")
    return labels.astype(np.int16, copy=False)


def maskOf(node, referenceVolume):
    """(k, j, i) uint8 mask on the reference grid: union of all segments, or the nonzero voxels of a label map."""
    if node.IsA("vtkMRMLSegmentationNode"):
        mask = np.zeros(tuple(reversed(referenceVolume.GetImageData().GetDimensions())), np.uint8)
        with copyOf(node) as copy:
            for group in layers(copy):
                mask |= (exportLabels(copy, group, referenceVolume) > 0).astype(np.uint8)
        return mask
    raise nodes.NodeError(node.GetName())


def warp(source, transformNode, referenceVolume, target):
    """Fill ``target`` with the source's segments carried by the transform, on the reference volume's grid.

    Names, colors, terminology, IDs and overlaps are kept; the source is not touched.

    Args:
        transformNode: from-parent grid, fixed world to moving world; None copies without moving.
    """
    with copyOf(source) as copy, attached(copy, transformNode):
        segmentation = target.GetSegmentation()
        segmentation.RemoveAllSegments()
        target.SetAndObserveTransformNodeID(referenceVolume.GetTransformNodeID())
        target.SetReferenceImageGeometryParameterFromVolumeNode(referenceVolume)
        segmentation.SetSourceRepresentationName(BINARY)
        groups = layers(copy)
        for segmentId in segmentIds(copy):
            segment = slicer.vtkSegment()
            segment.DeepCopyMetadata(copy.GetSegmentation().GetSegment(segmentId))
            segmentation.AddSegment(segment, segmentId)
        for group in groups:
            labels = exportLabels(copy, group, referenceVolume)
            importLabels(labels, group, referenceVolume, target)
    if target.GetDisplayNode() is None:
        target.CreateDefaultDisplayNodes()


def importLabels(labels, ids, referenceVolume, target):
    """Put label values 1..len(ids) on the reference grid into existing segments of ``target``."""
    with temporaryNode("vtkMRMLLabelMapVolumeNode", "SAMConvexLabels") as labelMap:
        nodes.fillVolume(labelMap, labels, nodes.ijkToRas(referenceVolume))
        labelMap.SetAndObserveTransformNodeID(referenceVolume.GetTransformNodeID())
        present = [value for value in range(1, len(ids) + 1) if np.any(labels == value)]
        chosen = vtk.vtkStringArray()
        for value in present:
            chosen.InsertNextValue(ids[value - 1])
        if present:
            slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labelMap, target, chosen)


@contextmanager
def attached(node, transformNode):
    """The node temporarily under ``transformNode``, its own linear parents kept below it."""
    if transformNode is None:
        yield
        return
    below = nodes.parentToWorld(node)
    with temporaryNode("vtkMRMLTransformNode", "SAMConvexParentCopy") as parent:
        parent.SetMatrixTransformToParent(nodes.vtkFromMatrix(below))
        parent.SetAndObserveTransformNodeID(transformNode.GetID())
        previous = node.GetTransformNodeID()
        node.SetAndObserveTransformNodeID(parent.GetID())
        try:
            yield
        finally:
            node.SetAndObserveTransformNodeID(previous)
