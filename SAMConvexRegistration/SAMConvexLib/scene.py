"""Where new nodes go in the scene, and how they look."""

import slicer


def addHidden(className, name, save=False):
    """A new node that no selector and no list ever shows.

    Args:
        save: whether it is saved with the scene.
    """
    node = slicer.mrmlScene.CreateNodeByClass(className)
    node.UnRegister(None)
    node.SetName(name)
    # Before it is added: hidden afterwards, it would have appeared everywhere for a moment and been selected by some.
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(save)
    return slicer.mrmlScene.AddNode(node)


def placeBeside(node, reference):
    """Into the fixed image's subject-hierarchy folder (its study)."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return
    item, referenceItem = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(reference)
    if item and referenceItem:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(referenceItem))


def copyDisplay(source, target):
    """Window, level and color table of one volume to another."""
    fromDisplay, toDisplay = source.GetDisplayNode(), target.GetDisplayNode()
    if fromDisplay is None or toDisplay is None:
        return
    toDisplay.SetAndObserveColorNodeID(fromDisplay.GetColorNodeID())
    toDisplay.SetAutoWindowLevel(False)
    toDisplay.SetWindowLevel(fromDisplay.GetWindow(), fromDisplay.GetLevel())
