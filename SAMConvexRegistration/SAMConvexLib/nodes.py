"""MRML nodes to SimpleITK objects and back: the only place that converts between RAS (MRML) and LPS (ITK, engine).

Images travel in world coordinates, so that linear parent transforms are part of what is registered. Where a parent
shears an image (ITK grids cannot), the image travels in its own frame and the parent is composed into the result.
"""

import json
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util import numpy_support

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
LINEAR_ATTRIBUTE = "SAMConvex.Interpolation"
ALIGNMENT_ATTRIBUTE = "SAMConvex.Alignment"
# On a node that was placed under a result: JSON of its own parent transform's ID.
PARENT_ATTRIBUTE = "SAMConvex.OriginalParent"
GRID_SPACING_MM = 3.5
GRID_MARGIN_MM = 21.0


class NodeError(ValueError):
    """A node that cannot be used; the message says which and what to do."""


@dataclass(frozen=True)
class ImageInFrame:
    """An image in LPS mm of its export frame, and the frame's place in the world (4x4, RAS mm)."""

    image: sitk.Image
    worldFromFrame: np.ndarray


# --- matrices -------------------------------------------------------------------------------------------------------


def matrixFromVtk(matrix):
    """4x4 numpy array of a vtkMatrix4x4."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def vtkFromMatrix(matrix):
    """vtkMatrix4x4 of a 4x4 array."""
    result = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            result.SetElement(row, column, float(matrix[row, column]))
    return result


def parentToWorld(node):
    """4x4 RAS matrix from the node's own frame to the world; where it was placed under a result, to where it came from.

    Raises:
        NodeError: a parent transform is not linear.
    """
    parent = ownParent(node)
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        raise NodeError(
            _(
                "'{node}' is under the non-linear transform '{transform}'; move it out or harden a copy of it first."
            ).format(node=node.GetName(), transform=parent.GetName())
        )
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return matrixFromVtk(matrix)


def ownParent(node):
    """The parent transform node that the user gave a node, or None; a result it was placed under is none."""
    stored = node.GetAttribute(PARENT_ATTRIBUTE)
    if stored is None:
        return node.GetParentTransformNode()
    identifier = json.loads(stored)
    return slicer.mrmlScene.GetNodeByID(identifier) if identifier else None


def ijkToRas(volumeNode):
    """4x4 matrix from voxel index to the node's own RAS mm."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return matrixFromVtk(matrix)


def perpendicular(matrix):
    """True where the matrix's axes are perpendicular, so that an ITK grid can hold it."""
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return bool(np.allclose(axes.T @ axes, np.eye(3), atol=1e-3))


def exportFrame(volumeNode):
    """(voxel-to-frame RAS matrix, frame-to-world RAS matrix) that the volume travels in.

    Raises:
        NodeError: a non-linear parent, or axes that are not perpendicular in the volume itself.
    """
    local, world = ijkToRas(volumeNode), parentToWorld(volumeNode)
    if perpendicular(world @ local):
        return world @ local, np.eye(4)
    if not perpendicular(local):
        raise NodeError(
            _("The axes of '{node}' are not perpendicular; resample it onto a regular grid first.").format(
                node=volumeNode.GetName()
            )
        )
    return local, world


# --- volumes --------------------------------------------------------------------------------------------------------


def checkVolume(volumeNode, slices=False):
    """Raise NodeError unless the node is a scalar 3D volume (or, with ``slices``, a 2D image) with voxels."""
    name = volumeNode.GetName()
    if not volumeNode.IsA("vtkMRMLScalarVolumeNode") or volumeNode.GetImageData() is None:
        raise NodeError(_("'{node}' holds no image; load or choose another volume.").format(node=name))
    image = volumeNode.GetImageData()
    if image.GetNumberOfScalarComponents() != 1:
        raise NodeError(
            _("'{node}' has {count} values per voxel; choose a volume with one.").format(
                node=name, count=image.GetNumberOfScalarComponents()
            )
        )
    if sorted(image.GetDimensions())[1 if slices else 0] < 2:
        raise NodeError(_("'{node}' is a single slice; choose a 3D volume.").format(node=name))


def imageFromVolume(volumeNode, slices=False):
    """The volume as a SimpleITK image (voxels copied) in its export frame.

    Raises:
        NodeError: as checkVolume and exportFrame.
    """
    checkVolume(volumeNode, slices)
    voxelToFrame, worldFromFrame = exportFrame(volumeNode)
    image = sitk.GetImageFromArray(slicer.util.arrayFromVolume(volumeNode))
    return ImageInFrame(setImageGeometry(image, voxelToFrame), worldFromFrame)


def setImageGeometry(image, voxelToRas):
    """Write a voxel-to-RAS matrix (perpendicular axes) into a SimpleITK image, as LPS; returns the image."""
    matrix = LPS_FROM_RAS @ voxelToRas
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    direction = matrix[:3, :3] / spacing
    # The nearest orthonormal matrix: float rounding of headers must not stop ITK.
    left, _singular, right = np.linalg.svd(direction)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((left @ right).ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    return image


def imageToRas(image):
    """4x4 voxel-to-RAS matrix of a SimpleITK image."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    return LPS_FROM_RAS @ matrix


def fillVolume(volumeNode, array, voxelToRas):
    """Put voxels (k, j, i) and a voxel-to-RAS matrix into a volume node and give it display nodes."""
    slicer.util.updateVolumeFromArray(volumeNode, array)
    volumeNode.SetIJKToRASMatrix(vtkFromMatrix(voxelToRas))
    if volumeNode.GetDisplayNode() is None:
        volumeNode.CreateDefaultDisplayNodes()


def fillVolumeLike(volumeNode, array, referenceNode):
    """Put voxels that lie on the reference volume's grid into a node: same geometry, same parent transform."""
    fillVolume(volumeNode, array, ijkToRas(referenceNode))
    volumeNode.SetAndObserveTransformNodeID(referenceNode.GetTransformNodeID())


# --- transforms -----------------------------------------------------------------------------------------------------


def transformNodeToSitk(transformNode, fixed, moving):
    """A transform node that would align the moving volume, as the ITK transform from fixed to moving frame.

    Args:
        fixed, moving: ImageInFrame of the two volumes.
    Returns:
        sitk.Transform on LPS points; linear nodes exactly, others sampled every 3.5 mm around the fixed image.
    """
    if transformNode.IsTransformToWorldLinear():
        matrix = vtk.vtkMatrix4x4()
        transformNode.GetMatrixTransformFromWorld(matrix)
        ras = np.linalg.inv(moving.worldFromFrame) @ matrixFromVtk(matrix) @ fixed.worldFromFrame
        return affineToSitk(ras)
    general = vtk.vtkGeneralTransform()
    transformNode.GetTransformFromWorld(general)
    chain = vtk.vtkGeneralTransform()
    chain.PostMultiply()
    chain.Concatenate(vtkFromMatrix(fixed.worldFromFrame))
    chain.Concatenate(general)
    chain.Concatenate(vtkFromMatrix(np.linalg.inv(moving.worldFromFrame)))
    size, origin = coveringLattice([fixed.image], np.eye(4), GRID_SPACING_MM, GRID_MARGIN_MM)
    sampler = vtk.vtkTransformToGrid()
    sampler.SetInput(chain)
    sampler.SetGridOrigin(origin)
    sampler.SetGridSpacing([GRID_SPACING_MM] * 3)
    sampler.SetGridExtent(0, size[0] - 1, 0, size[1] - 1, 0, size[2] - 1)
    sampler.SetGridScalarTypeToDouble()
    sampler.Update()
    vectors = numpy_support.vtk_to_numpy(sampler.GetOutput().GetPointData().GetScalars())
    vectors = vectors.reshape(size[2], size[1], size[0], 3) * np.array([-1.0, -1.0, 1.0])
    image = sitk.GetImageFromArray(vectors, isVector=True)
    lattice = np.diag([GRID_SPACING_MM] * 3 + [1.0])
    lattice[:3, 3] = origin
    return sitk.DisplacementFieldTransform(sitk.Cast(setImageGeometry(image, lattice), sitk.sitkVectorFloat64))


def affineToSitk(rasMatrix):
    """ITK affine transform (LPS) of a 4x4 RAS matrix."""
    lps = LPS_FROM_RAS @ rasMatrix @ LPS_FROM_RAS
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform


def coveringLattice(images, worldFromFrame, spacing, margin):
    """Size and RAS origin of the axis-aligned world lattice that covers the images' extents plus a margin, mm."""
    corners = []
    for image in images:
        size = np.asarray(image.GetSize())
        index = np.array([[(-0.5, size[a] - 0.5)[(c >> a) & 1] for a in range(3)] + [1.0] for c in range(8)])
        corners.append((worldFromFrame @ imageToRas(image) @ index.T)[:3].T)
    corners = np.concatenate(corners)
    lower, upper = corners.min(0) - margin, corners.max(0) + margin
    size = np.ceil((upper - lower) / spacing).astype(int) + 1
    return [int(s) for s in size], (lower + upper) / 2 - (size - 1) / 2 * spacing


def gridFromSitk(transform, fromFrame, toFrame):
    """ITK transform between two export frames as one displacement grid between world points.

    Args:
        transform: maps LPS points of frame a to LPS points of frame b.
        fromFrame, toFrame: ImageInFrame of a and b.
    Returns:
        (vectors (k, j, i, 3) float32 RAS mm, 4x4 lattice-to-RAS matrix, perpendicular axes).
    """
    inWorld = np.allclose(fromFrame.worldFromFrame, np.eye(4)) and np.allclose(toFrame.worldFromFrame, np.eye(4))
    field = firstField(transform) if inWorld else None
    if field is None:
        # The map is sampled where the image it starts from lies; a shearing parent is undone and redone around it.
        size, origin = coveringLattice([fromFrame.image], fromFrame.worldFromFrame, GRID_SPACING_MM, GRID_MARGIN_MM)
        lattice = np.diag([GRID_SPACING_MM] * 3 + [1.0])
        lattice[:3, 3] = origin
        chain = sitk.CompositeTransform(3)
        chain.AddTransform(affineToSitk(toFrame.worldFromFrame))
        chain.AddTransform(transform)
        chain.AddTransform(affineToSitk(np.linalg.inv(fromFrame.worldFromFrame)))
        transform = chain
    else:
        # An affine after a trilinear field is trilinear on the field's own lattice: nothing is lost by sampling there.
        size, lattice = list(field.GetSize()), imageToRas(field)
    grid = setImageGeometry(sitk.Image([1, 1, 1], sitk.sitkUInt8), lattice)
    sampled = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, size, grid.GetOrigin(), grid.GetSpacing(), grid.GetDirection()
    )
    vectors = sitk.GetArrayFromImage(sampled) * np.array([-1.0, -1.0, 1.0])
    return np.ascontiguousarray(vectors, dtype=np.float32), imageToRas(sampled)


def firstField(transform):
    """Displacement image of the field that acts first when only linear maps follow it, else None."""
    transform = transform.Downcast() if hasattr(transform, "Downcast") else transform
    if isinstance(transform, sitk.DisplacementFieldTransform):
        return transform.GetDisplacementField()
    if not isinstance(transform, sitk.CompositeTransform) or transform.GetNumberOfTransforms() == 0:
        return None
    last = transform.GetNumberOfTransforms() - 1
    # ITK applies the transform added last first.
    if all(transform.GetNthTransform(n).IsLinear() for n in range(last)):
        return firstField(transform.GetNthTransform(last))
    return None


def alignmentFromSitk(transform, fromFrame, toFrame):
    """4x4 world RAS matrix of an ITK transform's linear parts alone: what is left without its displacement fields.

    Args:
        transform, fromFrame, toFrame: as gridFromSitk.
    """
    return toFrame.worldFromFrame @ _linearPart(transform) @ np.linalg.inv(fromFrame.worldFromFrame)


def _linearPart(transform):
    """4x4 RAS matrix of the linear parts, a displacement field taken as doing nothing."""
    transform = transform.Downcast() if hasattr(transform, "Downcast") else transform
    if isinstance(transform, sitk.CompositeTransform):
        matrix = np.eye(4)
        # ITK applies the transform added last first.
        for index in range(transform.GetNumberOfTransforms()):
            matrix = matrix @ _linearPart(transform.GetNthTransform(index))
        return matrix
    if not transform.IsLinear():
        return np.eye(4)
    matrix = np.eye(4)
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    for axis in range(3):
        matrix[:3, axis] = np.array(transform.TransformPoint(np.eye(3)[axis].tolist())) - matrix[:3, 3]
    return LPS_FROM_RAS @ matrix @ LPS_FROM_RAS


def setAlignment(transformNode, matrix):
    """Note on a grid which part of it is the alignment (4x4 RAS, fixed to moving world); saved with the scene."""
    transformNode.SetAttribute(ALIGNMENT_ATTRIBUTE, json.dumps(np.asarray(matrix).tolist()))


def alignmentOf(transformNode):
    """4x4 RAS matrix noted by setAlignment; the identity where none was."""
    return np.array(json.loads(transformNode.GetAttribute(ALIGNMENT_ATTRIBUTE) or "null") or np.eye(4))


def withoutAlignment(vectors, latticeToRas, alignment):
    """The deformation alone: u with T(p) = A(p + u(p)), (k, j, i, 3) float32 RAS mm on the same lattice.

    Args:
        vectors: (k, j, i, 3) displacements T(p) - p.
        alignment: A, 4x4.
    """
    if np.allclose(alignment, np.eye(4)):
        return vectors
    inverse = np.linalg.inv(alignment)
    index = np.moveaxis(np.indices(vectors.shape[:3])[::-1], 0, -1)
    points = index @ latticeToRas[:3, :3].T + latticeToRas[:3, 3]
    moved = points + vectors
    return (moved @ inverse[:3, :3].T + inverse[:3, 3] - points).astype(np.float32)


def orientedGrid(vectors, latticeToRas):
    """vtkOrientedGridTransform of displacement vectors (k, j, i, 3) in RAS mm on a lattice."""
    spacing = np.linalg.norm(latticeToRas[:3, :3], axis=0)
    direction = np.eye(4)
    direction[:3, :3] = latticeToRas[:3, :3] / spacing
    image = vtk.vtkImageData()
    image.SetDimensions(vectors.shape[2], vectors.shape[1], vectors.shape[0])
    image.SetSpacing(spacing)
    image.SetOrigin(latticeToRas[:3, 3])
    flat = np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1, 3)
    # Scalars, not vectors: VTK's grid transform reads point-data scalars only.
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(flat, deep=True))
    grid = slicer.vtkOrientedGridTransform()
    grid.SetDisplacementGridData(image)
    grid.SetGridDirectionMatrix(vtkFromMatrix(direction))
    grid.SetInterpolationModeToLinear()
    return grid


def fillGridTransform(transformNode, vectors, latticeToRas):
    """Make the node a displacement grid from parent: for each fixed world point, where in the moving world."""
    transformNode.SetAndObserveTransformFromParent(orientedGrid(vectors, latticeToRas))
    transformNode.SetAttribute(LINEAR_ATTRIBUTE, "linear")


def gridOfTransform(transformNode):
    """(vectors (k, j, i, 3) RAS mm, lattice-to-RAS matrix) of a node filled by fillGridTransform, else None."""
    grid = transformNode.GetTransformFromParentAs("vtkOrientedGridTransform", False, False)
    if grid is None or grid.GetDisplacementGrid() is None:
        return None
    image = grid.GetDisplacementGrid()
    vectors = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    vectors = vectors.reshape(*reversed(image.GetDimensions()), 3)
    lattice = np.eye(4)
    direction = grid.GetGridDirectionMatrix()
    rotation = matrixFromVtk(direction)[:3, :3] if direction else np.eye(3)
    lattice[:3, :3] = rotation * np.asarray(image.GetSpacing())
    lattice[:3, 3] = image.GetOrigin()
    return vectors, lattice


def restoreInterpolation(scene):
    """Set our grids to linear interpolation again: Slicer loads every grid as cubic."""
    for transformNode in slicer.util.getNodesByClass("vtkMRMLTransformNode", scene):
        if transformNode.GetAttribute(LINEAR_ATTRIBUTE) == "linear":
            grid = transformNode.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)
            if grid is not None and grid.GetInterpolationMode() != 1:
                grid.SetInterpolationModeToLinear()


def jacobianDeterminant(vectors, latticeToRas):
    """(k, j, i) determinant of the map p -> p + u(p) by central differences (one-sided at the border)."""
    steps = np.gradient(vectors.astype(np.float32), axis=(2, 1, 0))
    perVoxel = np.stack(steps, -1)
    jacobian = perVoxel @ np.linalg.inv(latticeToRas[:3, :3]).astype(np.float32) + np.eye(3, dtype=np.float32)
    return np.linalg.det(jacobian).astype(np.float32)


# --- points ---------------------------------------------------------------------------------------------------------


def worldPoints(markupsNode):
    """(labels, (N, 3) RAS mm in the world) of the control points that have a position."""
    labels, points = [], []
    for index in range(markupsNode.GetNumberOfControlPoints()):
        if markupsNode.GetNthControlPointPositionStatus(index) == slicer.vtkMRMLMarkupsNode.PositionDefined:
            position = [0.0, 0.0, 0.0]
            markupsNode.GetNthControlPointPositionWorld(index, position)
            labels.append(markupsNode.GetNthControlPointLabel(index))
            points.append(position)
    return labels, np.reshape(np.asarray(points, dtype=float), (-1, 3))


def lpsInFrame(points, worldFromFrame):
    """World RAS points (N, 3) as LPS points of an export frame."""
    matrix = LPS_FROM_RAS @ np.linalg.inv(worldFromFrame)
    return np.asarray(points, dtype=float) @ matrix[:3, :3].T + matrix[:3, 3]


def worldOfLps(points, worldFromFrame):
    """LPS points (N, 3) of an export frame as RAS points of the world: the inverse of lpsInFrame."""
    matrix = worldFromFrame @ LPS_FROM_RAS
    return np.asarray(points, dtype=float) @ matrix[:3, :3].T + matrix[:3, 3]


def transformPoints(transform, points):
    """(N, 3) points through a vtkAbstractTransform."""
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    source.SetDataTypeToDouble()
    target.SetDataTypeToDouble()
    for point in points:
        source.InsertNextPoint(point)
    transform.TransformPoints(source, target)
    return np.array([target.GetPoint(n) for n in range(target.GetNumberOfPoints())]).reshape(-1, 3)
