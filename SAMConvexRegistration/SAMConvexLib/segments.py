"""Segmentations to label images and back, with one resampling and without touching the input node.

Slicer's own ways are not exact enough here: hardening under a non-linear transform clips segments whose grid is oblique
(Slicer 5.12 and 5.13), and exporting under one resamples twice (0.92 Dice against a single resampling).
"""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import slicer
from vtk.util import numpy_support

from . import nodes
from .scene import addHidden

BINARY = "Binary labelmap"
_CONVERSION_PARAMETERS = ("Reference image geometry", "Oversampling factor", "Smoothing factor")


@dataclass
class LabelLayer:
    """Segments that share one label image and do not overlap.

    Attributes:
        values: {segment ID: label value}.
        content: nodes.ImageInFrame of the labels (int16), or None where all segments are empty.
    """

    values: dict
    content: object


def segmentIds(segmentationNode):
    """Segment IDs in display order."""
    segmentation = segmentationNode.GetSegmentation()
    return [segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())]


# --- temporary nodes ------------------------------------------------------------------------------------------------


@contextmanager
def temporaryNode(className, name):
    """A hidden node, removed afterwards together with its display nodes."""
    node = addHidden(className, name)
    try:
        yield node
    finally:
        removeWithDisplay(node)


def removeWithDisplay(node):
    """Remove a node and its display nodes."""
    scene = slicer.mrmlScene
    for index in reversed(range(node.GetNumberOfDisplayNodes() if node.IsA("vtkMRMLDisplayableNode") else 0)):
        displayNode = node.GetNthDisplayNode(index)
        if displayNode:
            scene.RemoveNode(displayNode)
    if scene.IsNodePresent(node):
        scene.RemoveNode(node)


@contextmanager
def copyOf(segmentationNode):
    """A hidden copy under the same parent transform; converting it leaves the source's representations alone."""
    with temporaryNode("vtkMRMLSegmentationNode", "SAMConvexSegmentationCopy") as copy:
        copySegments(segmentationNode, copy)
        copy.SetAndObserveTransformNodeID(segmentationNode.GetTransformNodeID())
        yield copy


def copySegments(source, target):
    """Copy all segments and the reference geometry of one segmentation node into an empty one."""
    segmentation = target.GetSegmentation()
    segmentation.SetSourceRepresentationName(source.GetSegmentation().GetSourceRepresentationName())
    for name in _CONVERSION_PARAMETERS:
        value = source.GetSegmentation().GetConversionParameter(name)
        if value:
            segmentation.SetConversionParameter(name, value)
    for segmentId in segmentIds(source):
        segmentation.CopySegmentFromSegmentation(source.GetSegmentation(), segmentId)


# --- segments to label images ---------------------------------------------------------------------------------------


def labelLayers(segmentationNode):
    """All segments as LabelLayers (voxels copied), linear parent transforms included.

    Raises:
        nodes.NodeError: the segmentation is under a non-linear transform.
    """
    nodes.parentToWorld(segmentationNode)
    if segmentationNode.GetSegmentation().ContainsRepresentation(BINARY):
        return _layersOf(segmentationNode)
    with copyOf(segmentationNode) as copy:
        copy.GetSegmentation().CreateRepresentation(BINARY)
        return _layersOf(copy)


def _layersOf(segmentationNode):
    segmentation, toWorld = segmentationNode.GetSegmentation(), nodes.parentToWorld(segmentationNode)
    layers = {}
    for segmentId in segmentIds(segmentationNode):
        segment = segmentation.GetSegment(segmentId)
        image = segment.GetRepresentation(BINARY)
        layer = layers.setdefault(id(image) if image else None, LabelLayer({}, _labelImage(image, toWorld)))
        layer.values[segmentId] = segment.GetLabelValue()
    return list(layers.values())


def _labelImage(image, toWorld):
    if image is None or image.IsEmpty() or image.GetPointData().GetScalars() is None:
        return None
    labels = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    labels = labels.reshape(tuple(reversed(image.GetDimensions()))).astype(np.int16)
    first = np.eye(4)
    first[:3, 3] = image.GetExtent()[0::2]
    matrix = nodes.vtkFromMatrix(np.eye(4))
    image.GetImageToWorldMatrix(matrix)
    local = nodes.matrixFromVtk(matrix) @ first
    inWorld = nodes.perpendicular(toWorld @ local)
    geometry, worldFromFrame = (toWorld @ local, np.eye(4)) if inWorld else (local, toWorld)
    return nodes.ImageInFrame(nodes.setImageGeometry(sitk.GetImageFromArray(labels), geometry), worldFromFrame)


def resample(layer, reference, transform=None, movingFrame=None):
    """(k, j, i) int16 labels of a layer on a reference image's grid; safe in a worker thread.

    Through a transform each voxel takes the label of the largest share there, and thin labels the voxels of nearest
    neighbor, as in the engine's ``warp_labels``, where this SimpleITK can; labels in place go by nearest neighbor.

    Args:
        reference: nodes.ImageInFrame.
        transform: ITK transform from the reference's frame to movingFrame's, or None for the same place in the world.
        movingFrame: nodes.ImageInFrame that the transform leads to.
    """
    if layer.content is None:
        return np.zeros(tuple(reversed(reference.image.GetSize())), np.int16)
    start = reference.worldFromFrame if transform is None else movingFrame.worldFromFrame
    chain = sitk.CompositeTransform(3)
    chain.AddTransform(nodes.affineToSitk(np.linalg.inv(layer.content.worldFromFrame) @ start))
    if transform is not None:
        chain.AddTransform(transform)

    # A labelmap that ends with its segment is air beyond.
    source = sitk.ConstantPad(layer.content.image, (1, 1, 1), (1, 1, 1), 0)

    def resampled(interpolator):
        return sitk.GetArrayFromImage(sitk.Resample(source, reference.image, chain, interpolator, 0, sitk.sitkInt16))

    nearest = resampled(sitk.sitkNearestNeighbor)
    byShares = getattr(sitk, "sitkLabelLinear", None)  # not in every SimpleITK that Slicer brings
    if transform is None or byShares is None:
        return nearest
    return _thinKept(resampled(byShares), nearest)


# As the engine's samconvex.space.transforms.THIN.
THIN = 0.8


def _thinKept(shares, nearest):
    """``shares``, in which labels that lost much of what they have in ``nearest`` got those voxels back."""

    def counts(labels):
        return dict(zip(*np.unique(labels[labels != 0], return_counts=True), strict=True))

    expected, thin = counts(nearest), set()
    while True:
        found = counts(shares)
        more = {label for label, n in expected.items() if label not in thin and found.get(label, 0) < THIN * n}
        if not more:
            return shares
        thin |= more
        where = np.isin(nearest, list(more))
        shares[where] = nearest[where]


def maskOf(node, reference):
    """(k, j, i) uint8 on a reference ImageInFrame's grid: the union of all segments, or the inside of an ROI box.

    Raises:
        nodes.NodeError: the node is under a non-linear transform.
    """
    if node.IsA("vtkMRMLMarkupsROINode"):
        return boxMask(node, reference)
    mask = np.zeros(tuple(reversed(reference.image.GetSize())), np.uint8)
    for layer in labelLayers(node):
        labels = resample(layer, reference)
        mask |= np.isin(labels, list(layer.values.values())).astype(np.uint8)
    return mask


def boxMask(roiNode, reference):
    """(k, j, i) uint8: which voxel centers of a reference ImageInFrame lie in an ROI's box, turned as it may be."""
    objectToWorld = nodes.parentToWorld(roiNode) @ nodes.matrixFromVtk(roiNode.GetObjectToNodeMatrix())
    voxelToObject = np.linalg.inv(objectToWorld) @ reference.worldFromFrame @ nodes.imageToRas(reference.image)
    size = roiNode.GetSize()
    shape = tuple(reversed(reference.image.GetSize()))
    inside = np.ones(shape, bool)
    k, j, i = np.ogrid[: shape[0], : shape[1], : shape[2]]
    for axis in range(3):
        row = voxelToObject[axis]
        inside &= np.abs(i * row[0] + j * row[1] + k * row[2] + row[3]) <= size[axis] / 2
    return inside.astype(np.uint8)


def namedLabels(segmentationNode, names, reference):
    """(k, j, i) int16 label map on a reference grid: value n + 1 where the segment called ``names[n]`` is.

    Where segments overlap, the later name wins.
    """
    segmentation = segmentationNode.GetSegmentation()
    valueOf = {name: index + 1 for index, name in enumerate(names)}
    ids = segmentIds(segmentationNode)
    return _labelMap(segmentationNode, {i: valueOf.get(segmentation.GetSegment(i).GetName()) for i in ids}, reference)


def separateLabels(segmentationNode, reference):
    """(k, j, i) int16 label map on a reference grid: value n + 1 where the n-th segment is; the later one wins."""
    values = {segmentId: n + 1 for n, segmentId in enumerate(segmentIds(segmentationNode))}
    return _labelMap(segmentationNode, values, reference)


def _labelMap(segmentationNode, valueOf, reference):
    result = np.zeros(tuple(reversed(reference.image.GetSize())), np.int16)
    for layer in labelLayers(segmentationNode):
        wanted = {segmentId: valueOf[segmentId] for segmentId in layer.values}
        if any(wanted.values()):
            labels = resample(layer, reference)
            for segmentId, value in wanted.items():
                if value:
                    result[labels == layer.values[segmentId]] = value
    return result


# --- label images to segments ---------------------------------------------------------------------------------------


def metadata(segmentationNode):
    """[(segment ID, vtkSegment with name, color and terminology but no voxels)]."""
    found = []
    for segmentId in segmentIds(segmentationNode):
        segment = slicer.vtkSegment()
        segment.DeepCopyMetadata(segmentationNode.GetSegmentation().GetSegment(segmentId))
        found.append((segmentId, segment))
    return found


def fill(target, described, layers, images, referenceVolume):
    """Replace a segmentation's content by label images on a reference volume's grid.

    Args:
        described: what ``metadata`` gave.
        layers, images: LabelLayers and their labels on the reference volume's grid, as orientedLabels makes them.
    """
    segmentation = target.GetSegmentation()
    segmentation.RemoveAllSegments()
    segmentation.SetSourceRepresentationName(BINARY)
    target.SetAndObserveTransformNodeID(referenceVolume.GetTransformNodeID())
    target.SetReferenceImageGeometryParameterFromVolumeNode(referenceVolume)
    contents = {}
    for layer, image in zip(layers, images, strict=True):
        for segmentId, value in layer.values.items():
            contents[segmentId] = image, value
    for segmentId, segment in described:
        image, value = contents[segmentId]
        segment.SetLabelValue(value)
        segment.AddRepresentation(BINARY, image)
        segmentation.AddSegment(segment, segmentId)
    if target.GetDisplayNode() is None:
        target.CreateDefaultDisplayNodes()


def orientedLabels(labels, voxelToRas):
    """vtkOrientedImageData of (k, j, i) labels, cropped to what is not empty."""
    image = slicer.vtkOrientedImageData()
    occupied = np.argwhere(labels.any((1, 2))), np.argwhere(labels.any((0, 2))), np.argwhere(labels.any((0, 1)))
    if not len(occupied[0]):
        image.SetExtent(0, -1, 0, -1, 0, -1)
        return image
    lower, upper = [int(axis[0, 0]) for axis in occupied], [int(axis[-1, 0]) for axis in occupied]
    cropped = labels[tuple(slice(a, b + 1) for a, b in zip(lower, upper, strict=True))]
    kind = np.uint8 if cropped.max() < 256 else np.int16
    image.SetExtent(lower[2], upper[2], lower[1], upper[1], lower[0], upper[0])
    flat = np.ascontiguousarray(cropped, dtype=kind).ravel()
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(flat, deep=True))
    image.SetImageToWorldMatrix(nodes.vtkFromMatrix(voxelToRas))
    return image
