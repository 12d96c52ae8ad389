"""Whose an image is and when it was taken, as the subject hierarchy and the image itself say."""

import slicer

DATE_ATTRIBUTE = "SAMLandmark.AcquisitionDate"


def acquisitionDate(volume):
    """YYYYMMDD of a volume: its own attribute, else the study date of its subject hierarchy item, else ""."""
    own = volume.GetAttribute(DATE_ATTRIBUTE) or volume.GetAttribute("DICOM.AcquisitionDate")
    if own:
        return "".join(character for character in own if character.isdigit())[:8]
    hierarchy, item = _itemOf(volume)
    constants = slicer.vtkMRMLSubjectHierarchyConstants
    while item:
        for name in (constants.GetDICOMStudyDateAttributeName(), "StudyDate"):
            value = hierarchy.GetItemAttribute(item, name)
            if value:
                return "".join(character for character in value if character.isdigit())[:8]
        item = _parentOf(hierarchy, item)
    return ""


def patientOf(node):
    """(subject hierarchy item of the patient, name), or (0, "") where none is known."""
    hierarchy, item = _itemOf(node)
    level = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelPatient()
    while item:
        if hierarchy.GetItemLevel(item) == level:
            return item, hierarchy.GetItemName(item)
        item = _parentOf(hierarchy, item)
    return 0, ""


def patientIdOf(node):
    """DICOM PatientID of a node, as its patient's item in the subject hierarchy says, or ""."""
    item = patientOf(node)[0]
    if not item:
        return ""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    return hierarchy.GetItemAttribute(item, slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMPatientIDAttributeName())


def _itemOf(node):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    return hierarchy, hierarchy.GetItemByDataNode(node) if hierarchy is not None and node.GetScene() else 0


def _parentOf(hierarchy, item):
    parent = hierarchy.GetItemParent(item)
    return parent if parent not in (0, item, hierarchy.GetSceneItemID()) else 0
