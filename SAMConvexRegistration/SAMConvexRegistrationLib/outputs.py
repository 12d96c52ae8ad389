"""Results of the engine into nodes: transforms, warped volume, segmentation, markups, maps of quality, table."""

import json
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
import slicer
from SAMConvexLib import nodes, segments, verdicts
from SAMConvexLib.scene import copyDisplay, placeBeside
from slicer.i18n import tr as _

from .comparison import (
    ERROR_TOP_MM,
    errorColors,
    errorTitle,
    showLegend,
    showVolumeChange,
    volumeChange,
    volumeChangeColors,
)
from .quality import REPORT_ATTRIBUTE, fillTable, namedReport

VERSION_ATTRIBUTE = "SAMConvex.Version"
PRESET_ATTRIBUTE = "SAMConvex.Preset"
OUTPUT_ATTRIBUTE = "SAMConvex.Output"


@dataclass
class OutputNodes:
    """Nodes to fill; None leaves an output out."""

    transform: object = None
    inverse: object = None
    volume: object = None
    segmentation: object = None
    markups: object = None
    jacobian: object = None
    validity: object = None
    error: object = None
    table: object = None

    def nodes(self):
        """The nodes that are already there."""
        return [node for node in vars(self).values() if node is not None]

    def names(self):
        """Names of the fields that have a node."""
        return [name for name, node in vars(self).items() if node is not None]


# Further outputs of the console function: argument name -> field.
MORE_OUTPUTS = {
    "outputInverse": "inverse",
    "outputMarkups": "markups",
    "outputJacobian": "jacobian",
    "outputValidity": "validity",
    "outputError": "error",
    "outputTable": "table",
}


@dataclass
class RegistrationResult:
    """What a registration gives back: the filled nodes and the engine's report."""

    outputs: OutputNodes
    report: dict = field(default_factory=dict)

    @property
    def transformNode(self):
        return self.outputs.transform


@dataclass
class EngineFiles:
    """The engine's results, read and turned into what nodes take.

    Attributes:
        alignment: the linear part of grid, 4x4 RAS; None where it is not told apart.
        grid, inverseGrid: (vectors (k, j, i, 3) RAS mm, lattice-to-RAS matrix) between world points.
        volumeChange: (k, j, i) as comparison.volumeChange gives it, on the grid.
        warped, validity: (k, j, i) voxels on the fixed grid.
        error: ((k, j, i) expected error in mm, voxel-to-RAS matrix in world space).
        labels: warped label images, one for each of the run's layers.
    """

    report: dict
    grid: tuple
    alignment: object = None
    inverseGrid: tuple | None = None
    volumeChange: object = None
    warped: object = None
    validity: object = None
    error: tuple | None = None
    labels: list = field(default_factory=list)


def isMap(node):
    """True for a volume of figures, such as the expected error, that is no image to register."""
    return node.GetAttribute(OUTPUT_ATTRIBUTE) in ("jacobian", "error")


def checkTargets(request, targets):
    """Raise NodeError where an output would overwrite an input."""
    for node in targets.nodes():
        if node in request.inputNodes():
            raise nodes.NodeError(_("'{name}' is an input; choose another node as output.").format(name=node.GetName()))


def create(request, targets, names):
    """Create the output nodes called ``names`` (fields of OutputNodes) that are not there yet."""
    fixed, moving = request.fixedVolume.GetName(), request.movingVolume.GetName()
    kinds = {
        "transform": ("vtkMRMLTransformNode", _("{moving} to {fixed}"), None),
        "inverse": ("vtkMRMLTransformNode", _("{fixed} to {moving}"), None),
        "volume": ("vtkMRMLScalarVolumeNode", _("{moving} registered to {fixed}"), None),
        "segmentation": ("vtkMRMLSegmentationNode", _("{source} registered"), request.movingSegmentation),
        "markups": ("vtkMRMLMarkupsFiducialNode", _("{source} registered"), request.movingMarkups),
        "jacobian": ("vtkMRMLScalarVolumeNode", _("{moving} to {fixed} volume change"), None),
        "validity": ("vtkMRMLLabelMapVolumeNode", _("{moving} to {fixed} overlap"), None),
        "error": ("vtkMRMLScalarVolumeNode", _("{moving} to {fixed} expected error"), None),
        "table": ("vtkMRMLTableNode", _("{moving} to {fixed} quality"), None),
    }
    for name in names:
        if getattr(targets, name) is None:
            className, title, source = kinds[name]
            if source is not None and name == "markups":
                className = source.GetClassName()
            title = title.format(fixed=fixed, moving=moving, source=source.GetName() if source else "")
            title = slicer.mrmlScene.GenerateUniqueName(title)
            setattr(targets, name, slicer.mrmlScene.AddNewNodeByClass(className, title))


def readFiles(run, wanted):
    """Read a run's results and warp its segments (safe in a worker thread: no node is touched).

    Args:
        wanted: names of OutputNodes fields that will be filled.
    """
    folder = run.target
    with open(folder / "report.json", encoding="utf-8") as file:
        report = json.load(file)
    transform = sitk.ReadTransform(str(folder / "transform.h5"))
    files = EngineFiles(
        report,
        nodes.gridFromSitk(transform, run.fixed, run.moving),
        nodes.alignmentFromSitk(transform, run.fixed, run.moving),
    )
    if "inverse" in wanted:
        inverse = sitk.ReadTransform(str(folder / "inverse.h5"))
        files.inverseGrid = nodes.gridFromSitk(inverse, run.moving, run.fixed)
    if "volume" in wanted:
        files.warped = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "warped.nii.gz")))
    if "validity" in wanted:
        files.validity = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "valid.nii.gz")))
    if "error" in wanted:
        image = sitk.ReadImage(str(folder / "error.nii.gz"))
        files.error = sitk.GetArrayFromImage(image), run.fixed.worldFromFrame @ nodes.imageToRas(image)
    if "segmentation" in wanted:
        for layer in run.layers:
            labels = segments.resample(layer, run.fixed, transform, run.moving)
            files.labels.append(segments.orientedLabels(labels, run.fixedVoxelToRas))
    if "jacobian" in wanted:
        files.volumeChange = volumeChange(nodes.jacobianDeterminant(*files.grid))
    return files


def fill(request, run, files, outputs):
    """Put everything into the output nodes; returns RegistrationResult. Input nodes are not touched."""
    report = namedReport(files.report, run, request)
    fixed = request.fixedVolume
    fillers = {
        "transform": lambda node: fillTransform(node, files),
        "inverse": lambda node: nodes.fillGridTransform(node, *files.inverseGrid),
        "volume": lambda node: fillWarpedVolume(node, files.warped, request),
        "segmentation": lambda node: segments.fill(node, run.segments, run.layers, files.labels, fixed),
        "markups": lambda node: warpMarkups(request.movingMarkups, nodes.orientedGrid(*files.grid), node),
        "jacobian": lambda node: fillVolumeChange(node, files.volumeChange, files.grid[1]),
        "validity": lambda node: nodes.fillVolumeLike(node, files.validity, fixed),
        "error": lambda node: fillError(node, *files.error),
        "table": lambda node: fillTable(node, report),
    }
    scene = slicer.mrmlScene
    scene.StartState(slicer.vtkMRMLScene.BatchProcessState)
    try:
        for name in outputs.names():
            node = getattr(outputs, name)
            fillers[name](node)
            addProvenance(node, request, report, inverse=name == "inverse")
            node.SetAttribute(OUTPUT_ATTRIBUTE, name)
            # Whoever meets the node elsewhere in the scene must not take it for a sound one.
            node.SetName(verdicts.markedName(node.GetName(), verdicts.levelOf(report)))
            if name != "table":
                placeBeside(node, fixed)
        return RegistrationResult(outputs, report)
    finally:
        scene.EndState(slicer.vtkMRMLScene.BatchProcessState)


def addProvenance(node, request, report, inverse=False):
    """References to fixed and moving volume, and the report as an attribute that is saved with the scene."""
    role = slicer.vtkMRMLTransformNode
    fixed, moving = request.fixedVolume, request.movingVolume
    if inverse:
        fixed, moving = moving, fixed
    node.SetNodeReferenceID(role.GetFixedNodeReferenceRole(), fixed.GetID())
    node.SetNodeReferenceID(role.GetMovingNodeReferenceRole(), moving.GetID())
    node.SetAttribute(VERSION_ATTRIBUTE, str(report.get("version", "")))
    node.SetAttribute(PRESET_ATTRIBUTE, str(report.get("preset", "")))
    node.SetAttribute(REPORT_ATTRIBUTE, json.dumps(report))


def fillWarpedVolume(volumeNode, array, request):
    """Moving image on the fixed grid, shown with the moving image's window and color."""
    nodes.fillVolumeLike(volumeNode, array, request.fixedVolume)
    copyDisplay(request.movingVolume, volumeNode)


def warpMarkups(source, fixedToMoving, target):
    """Fill ``target`` with the source's control points carried to the fixed image; the source is not touched."""
    name = target.GetName()
    target.CopyContent(source) if hasattr(target, "CopyContent") else target.Copy(source)
    target.SetName(name)
    target.SetAndObserveTransformNodeID(None)
    target.SetLocked(False)
    statuses = [source.GetNthControlPointPositionStatus(n) for n in range(source.GetNumberOfControlPoints())]
    defined = [n for n, status in enumerate(statuses) if status == slicer.vtkMRMLMarkupsNode.PositionDefined]
    positions = []
    for n in defined:
        position = [0.0, 0.0, 0.0]
        source.GetNthControlPointPositionWorld(n, position)
        positions.append(position)
    moved = nodes.transformPoints(fixedToMoving.GetInverse(), positions) if positions else []
    with slicer.util.NodeModify(target):
        for n, position in zip(defined, moved, strict=True):
            target.SetNthControlPointPositionWorld(n, *[float(value) for value in position])
    if target.GetDisplayNode() is None:
        target.CreateDefaultDisplayNodes()


def fillTransform(transformNode, files):
    """The displacement grid, and which part of it is alignment alone."""
    nodes.fillGridTransform(transformNode, *files.grid)
    # A node that is filled anew must not keep what was noted of the result before.
    nodes.setAlignment(transformNode, np.eye(4) if files.alignment is None else files.alignment)


def fillVolumeChange(volumeNode, change, lattice):
    """Volume of the registered tissue against what it was: 1 keeps it, below shrinks, above grows, 0 is folded."""
    nodes.fillVolume(volumeNode, change, lattice)
    volumeNode.SetAndObserveTransformNodeID(None)
    showVolumeChange(volumeNode, volumeChangeColors())


def fillError(volumeNode, millimeters, lattice):
    """Expected error in mm on the transform's own grid, in the colors of the report's picture."""
    nodes.fillVolume(volumeNode, millimeters, lattice)
    volumeNode.SetAndObserveTransformNodeID(None)
    display = volumeNode.GetDisplayNode()
    display.SetAndObserveColorNodeID(errorColors().GetID())
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, ERROR_TOP_MM)
    showLegend(volumeNode, errorTitle())
