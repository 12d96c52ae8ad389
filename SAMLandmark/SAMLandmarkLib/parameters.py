"""The parameter node: inputs, settings and outputs of the panel, saved with the scene."""

# Slicer reads these annotations at run time; its parameter node wrapper knows Optional, not "| None".
# ruff: noqa: UP045

from typing import Annotated, Optional

from SAMConvexLib.choices import Device, Mode
from slicer import vtkMRMLMarkupsFiducialNode, vtkMRMLScalarVolumeNode, vtkMRMLTableNode
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


@parameterNodeWrapper
class SAMLandmarkParameterNode:
    """Inputs, settings and outputs of all three tabs; saved with the scene."""

    templateVolume: Optional[vtkMRMLScalarVolumeNode]
    templateMarkups: Optional[vtkMRMLMarkupsFiducialNode]
    queryVolumes: list[vtkMRMLScalarVolumeNode]
    truthMarkups: Optional[vtkMRMLMarkupsFiducialNode]
    minimumScore: Annotated[float, WithinRange(0, 1)] = 0.0
    mode: Mode = Mode.STABLE
    device: Device = Device.AUTO
    linkViews: bool = True

    liveFirst: Optional[vtkMRMLScalarVolumeNode]
    liveSecond: Optional[vtkMRMLScalarVolumeNode]
    liveMinimumScore: Annotated[float, WithinRange(0, 1)] = 0.0
    liveHeat: bool = False
    liveFollow: bool = True

    baselineVolume: Optional[vtkMRMLScalarVolumeNode]
    trackMinimumScore: Annotated[float, WithinRange(0, 1)] = 0.0
    courseTable: Optional[vtkMRMLTableNode]
