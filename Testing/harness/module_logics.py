"""The module logics that slicer-core brings."""

from __future__ import annotations

# Module name -> class of its logic in slicer-core.
LOGIC_CLASSES = {
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Units": "vtkSlicerUnitsLogic",
    "Colors": "vtkSlicerColorLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
}


def create_module_logics(scene, application_logic, classes=None):
    """Instances of the module logics that slicer-core has, by module name."""
    import slicer

    logics = {}
    for name, class_name in (classes or LOGIC_CLASSES).items():
        logic = getattr(slicer, class_name)()
        logic.SetMRMLApplicationLogic(application_logic)
        application_logic.SetModuleLogic(name, logic)
        logic.SetMRMLScene(scene)
        logics[name] = logic
    return logics
