"""The parameter node: inputs, settings and outputs of the panel, saved with the scene."""

# Slicer reads these annotations at run time; its parameter node wrapper knows Optional, not "| None".
# ruff: noqa: UP045

from typing import Annotated, Optional

from SAMConvexLib.choices import Device
from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
    vtkMRMLTransformNode,
)
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from .presets import BUILT_IN
from .request import RegistrationRequest
from .settings import (
    DEFAULT_PRESET,
    Affine,
    Features,
    Protection,
    Quality,
    Refinement,
    RegistrationSettings,
    Strength,
)


@parameterNodeWrapper
class SAMConvexRegistrationParameterNode:
    """One set of inputs, settings and outputs; saved with the scene."""

    fixedVolume: Optional[vtkMRMLScalarVolumeNode]
    movingVolume: Optional[vtkMRMLScalarVolumeNode]
    movingSegmentation: Optional[vtkMRMLSegmentationNode]
    movingMarkups: Optional[vtkMRMLMarkupsFiducialNode]
    fixedSegmentation: Optional[vtkMRMLSegmentationNode]
    fixedMarkups: Optional[vtkMRMLMarkupsFiducialNode]
    fixedMask: Optional[vtkMRMLSegmentationNode]
    movingMask: Optional[vtkMRMLSegmentationNode]
    protectMask: Optional[vtkMRMLSegmentationNode]
    initialTransform: Optional[vtkMRMLTransformNode]

    chosenPreset: str = BUILT_IN + DEFAULT_PRESET
    preset: str = DEFAULT_PRESET
    strength: Strength = Strength.NORMAL
    quality: Quality = Quality.STANDARD
    device: Device = Device.AUTO
    affine: Affine = Affine.PRESET
    refinement: Refinement = Refinement.PRESET
    threads: Annotated[int, WithinRange(0, 256)] = 0
    maximumMemoryGib: Annotated[float, WithinRange(0, 1024)] = 0.0
    seed: Annotated[int, WithinRange(0, 999999)] = 0
    protection: Protection = Protection.RIGID
    symmetric: bool = False
    features: Features = Features.PRESET

    wantTransform: bool = True
    wantInverse: bool = False
    wantVolume: bool = True
    wantSegmentation: bool = True
    wantMarkups: bool = True
    wantJacobian: bool = False
    wantValidity: bool = False
    wantError: bool = False
    wantTable: bool = True
    outputTransform: Optional[vtkMRMLTransformNode]
    outputInverse: Optional[vtkMRMLTransformNode]
    outputVolume: Optional[vtkMRMLScalarVolumeNode]
    outputSegmentation: Optional[vtkMRMLSegmentationNode]
    outputMarkups: Optional[vtkMRMLMarkupsFiducialNode]
    outputJacobian: Optional[vtkMRMLScalarVolumeNode]
    outputValidity: Optional[vtkMRMLLabelMapVolumeNode]
    outputError: Optional[vtkMRMLScalarVolumeNode]
    outputTable: Optional[vtkMRMLTableNode]

    def settings(self):
        """The settings part, as presets hold it."""
        return RegistrationSettings(**{name: getattr(self, name) for name in RegistrationSettings.names()})

    def applySettings(self, settings):
        """Take over all settings of a preset."""
        for name, value in vars(settings).items():
            setattr(self, name, value)

    def request(self):
        """The inputs part as a registration request."""
        return RegistrationRequest(
            fixedVolume=self.fixedVolume,
            movingVolume=self.movingVolume,
            settings=self.settings(),
            fixedMask=self.fixedMask,
            movingMask=self.movingMask,
            protectMask=self.protectMask,
            fixedSegmentation=self.fixedSegmentation,
            movingSegmentation=self.movingSegmentation,
            fixedMarkups=self.fixedMarkups,
            movingMarkups=self.movingMarkups,
            initialTransform=self.initialTransform,
        )
