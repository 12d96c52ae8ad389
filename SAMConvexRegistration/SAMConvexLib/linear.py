"""Results without a deformation: linear ITK transforms, linear transform nodes, and what previews take of these."""

import numpy as np
import SimpleITK as sitk
import vtk

from . import nodes


def isLinear(transform):
    """True for an ITK transform that is linear in all its parts."""
    transform = transform.Downcast() if hasattr(transform, "Downcast") else transform
    if isinstance(transform, sitk.CompositeTransform):
        return all(isLinear(transform.GetNthTransform(n)) for n in range(transform.GetNumberOfTransforms()))
    return transform.IsLinear()


def fillLinearTransform(transformNode, matrix):
    """Make the node the linear map ``matrix`` (4x4 RAS) from parent: from fixed to moving world points."""
    # A node that held a deformation refuses a matrix alone.
    transformNode.SetAndObserveTransformFromParent(linearTransform(matrix))
    transformNode.RemoveAttribute(nodes.LINEAR_ATTRIBUTE)


def linearTransform(matrix):
    """vtkTransform of a 4x4 matrix."""
    transform = vtk.vtkTransform()
    transform.SetMatrix(nodes.vtkFromMatrix(matrix))
    return transform


def isLinearResult(transformNode):
    """True for a node that holds a result without a deformation."""
    return transformNode.GetAttribute(nodes.ALIGNMENT_ATTRIBUTE) is not None and bool(transformNode.IsLinear())


def mapOfResult(transformNode, fixedVolume):
    """(vectors, lattice, alignment) of a node that a registration filled, else None.

    The first two as nodes.gridOfTransform gives them; those of a linear result are sampled around the fixed volume.
    """
    if not isLinearResult(transformNode):
        content = nodes.gridOfTransform(transformNode)
        return None if content is None else (*content, nodes.alignmentOf(transformNode))
    matrix = vtk.vtkMatrix4x4()
    transformNode.GetMatrixTransformFromParent(matrix)
    alignment = nodes.matrixFromVtk(matrix)
    bounds = np.zeros(6)
    fixedVolume.GetRASBounds(bounds)
    return (*sampledLinear(alignment, bounds), alignment)


def sampledLinear(matrix, bounds):
    """A linear map as a displacement grid of eight points along each side of a box.

    Args:
        matrix: 4x4 RAS.
        bounds: the box, RAS mm (x from, x to, y from, ...).
    Returns:
        (vectors (k, j, i, 3) float32 RAS mm, 4x4 lattice-to-RAS matrix).
    """
    lower, upper = np.reshape(bounds, (3, 2)).T
    count = 8
    lattice = np.diag([*(np.maximum(upper - lower, 1.0) / (count - 1)), 1.0])
    lattice[:3, 3] = lower
    index = np.moveaxis(np.indices((count,) * 3)[::-1], 0, -1)
    points = index @ lattice[:3, :3].T + lattice[:3, 3]
    return (points @ matrix[:3, :3].T + matrix[:3, 3] - points).astype(np.float32), lattice
