"""Small nodes with known truth for the tests of the registration module."""

from __future__ import annotations

import numpy as np
import slicer
import vtk


def rotation(degrees, axis=2):
    """4x4 rotation about a coordinate axis."""
    angle = np.radians(degrees)
    matrix = np.eye(4)
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def translation(*shift):
    """4x4 translation."""
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    return matrix


def oblique(spacing=(2.0, 2.5, 3.0), degrees=20.0, origin=(-40.0, 30.0, 15.0), flip=False):
    """Voxel-to-RAS matrix: rotated about two axes; ``flip`` makes it left-handed."""
    scale = np.diag([*spacing, 1.0])
    if flip:
        scale[1, 1] *= -1
    return translation(*origin) @ rotation(degrees) @ rotation(degrees / 2, 0) @ scale


def centered(matrix, shape, center=(5.0, -10.0, 20.0)):
    """The voxel-to-RAS matrix moved so that the middle of a (k, j, i) array of ``shape`` lies at ``center``."""
    middle = matrix[:3, :3] @ (np.array(shape[::-1]) - 1) / 2
    return translation(*(np.asarray(center) - middle - matrix[:3, 3])) @ matrix


def box_array(shape=(24, 28, 32), low=(6, 7, 8), high=(16, 19, 22), value=400, dtype=np.int16):
    """(k, j, i) array, -1000 outside and ``value`` in a box with a gradient, so that every shift shows."""
    array = np.full(shape, -1000, dtype)
    k, j, i = (slice(a, b) for a, b in zip(low, high, strict=True))
    ramp = (
        np.arange(shape[2])[None, None]
        + 2 * np.arange(shape[1])[None, :, None]
        + 3 * np.arange(shape[0])[:, None, None]
    )
    array[k, j, i] = (value + ramp)[k, j, i]
    return array


def smooth_array(shape=(40, 44, 48), dtype=np.float32):
    """(k, j, i) smooth blobs: interpolation errors stay small."""
    k, j, i = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    blob = np.exp(-4 * ((i - 0.1) ** 2 + (j + 0.15) ** 2 + k**2)) + 0.5 * np.exp(
        -20 * ((i + 0.4) ** 2 + (j - 0.2) ** 2 + (k - 0.3) ** 2)
    )
    return (1000 * blob).astype(dtype)


def volume(name, array, ijk_to_ras):
    """Scalar volume node."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, array)
    node.SetIJKToRASMatrix(vtk_matrix(ijk_to_ras))
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(1500, 0)
    return node


def vtk_matrix(matrix):
    result = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            result.SetElement(row, column, float(matrix[row, column]))
    return result


def linear_parent(node, matrix, name="Parent"):
    """Put the node under a new linear transform."""
    parent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", name)
    parent.SetMatrixTransformToParent(vtk_matrix(matrix))
    node.SetAndObserveTransformNodeID(parent.GetID())
    return parent


def segmentation(name, reference, segments):
    """Segmentation with (id, name, color, (k, j, i) mask) segments on a volume's grid."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    for segment_id, segment_name, color, mask in segments:
        node.GetSegmentation().AddEmptySegment(segment_id, segment_name, color)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment_id, reference)
    return node


def markups(name, points, labels=None):
    """Point list in world RAS mm."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    for n, point in enumerate(points):
        node.AddControlPointWorld(vtk.vtkVector3d(*[float(v) for v in point]))
        if labels:
            node.SetNthControlPointLabel(n, labels[n])
    return node


def smooth_displacement(lattice_to_ras, size, peak=(6.0, -4.0, 5.0)):
    """(k, j, i, 3) RAS mm, zero at the border, and its lattice."""
    axes = [np.sin(np.pi * np.linspace(0, 1, n)) for n in reversed(size)]
    bump = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None]
    return (bump[..., None] * np.asarray(peak)).astype(np.float32)


def lattice(center, spacing=5.0, size=(31, 31, 31)):
    """Axis-aligned lattice-to-RAS matrix around a point."""
    matrix = np.diag([spacing, spacing, spacing, 1.0])
    matrix[:3, 3] = np.asarray(center) - (np.asarray(size) - 1) / 2 * spacing
    return matrix


def center_of(node):
    """World RAS mm of a volume's middle."""
    bounds = np.zeros(6)
    node.GetRASBounds(bounds)
    return bounds.reshape(3, 2).mean(1)


def resample_by_mrml(volume_node, reference_node, outside):
    """(k, j, i) values of a volume (under its parents) on a reference volume's grid, computed by VTK alone."""
    chain = vtk.vtkGeneralTransform()
    chain.PostMultiply()
    ijk_to_ras = vtk.vtkMatrix4x4()
    reference_node.GetIJKToRASMatrix(ijk_to_ras)
    chain.Concatenate(ijk_to_ras)
    for node, forward in ((reference_node, True), (volume_node, False)):
        parent = node.GetParentTransformNode()
        if parent is not None:
            step = vtk.vtkGeneralTransform()
            parent.GetTransformToWorld(step) if forward else parent.GetTransformFromWorld(step)
            chain.Concatenate(step)
    ras_to_ijk = vtk.vtkMatrix4x4()
    volume_node.GetRASToIJKMatrix(ras_to_ijk)
    chain.Concatenate(ras_to_ijk)
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(volume_node.GetImageData())
    reslice.SetResliceTransform(chain)
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputExtent(*[v for n in reference_node.GetImageData().GetDimensions() for v in (0, n - 1)])
    reslice.SetInterpolationModeToLinear()
    reslice.SetBackgroundLevel(outside)
    reslice.SetOutputScalarType(vtk.VTK_FLOAT)
    reslice.Update()
    from vtk.util.numpy_support import vtk_to_numpy

    output = reslice.GetOutput()
    return vtk_to_numpy(output.GetPointData().GetScalars()).reshape(tuple(reversed(output.GetDimensions()))).copy()
