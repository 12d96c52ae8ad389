"""Presets of a registration: the engine's, the user's own, and those kept in the scene."""

import json
import re
from pathlib import Path

import slicer
from SAMConvexLib.process import engineModule
from slicer.i18n import tr as _

from .settings import RegistrationSettings

SCENE_PRESET_ATTRIBUTE = "SAMConvex.RegistrationPreset"
# Published methods as they were published, for comparisons: chosen by those who know them, never offered.
PUBLISHED = ("paper", "masr", "suits")
# Prefixes of a chosen preset's name: where it is kept.
BUILT_IN, USER, SCENE = "built-in:", "user:", "scene:"


# --- built-in presets -----------------------------------------------------------------------------------------------


def builtInPresets():
    """{engine preset name: (label, what it is for)}, in the order of the list."""
    return {
        "ct-inter-patient": (_("CT, different patients"), _("Two CT scans of different people, any body region.")),
        "ct-lung-breathing": (
            _("CT, lungs, breathing"),
            _("Two breathing states of one patient; keeps vessels and fissures together."),
        ),
        "ct-follow-up": (_("CT, follow-up"), _("Two dates of one patient; growing lesions are not shrunk to fit.")),
        "ct-multiphase": (_("CT, contrast phases"), _("Phases of one contrast-enhanced examination.")),
        "mr-ct": (_("MR and CT"), _("An MR and a CT image of one patient.")),
        "brain-mr": (_("MR, brain"), _("Two brain MR images, of one patient or of two.")),
        "mr-body": (_("MR, body"), _("Two MR images of one person's trunk or limb: breathing, or two dates.")),
        "rigid": (_("Rigid"), _("Turn and shift alone, for two images of one person.")),
        "affine": (_("Affine"), _("Turn, shift, scale and shear alone, for any two images.")),
        "fast-preview": (_("Fast preview"), _("A rough result in seconds, for checking inputs.")),
        "paper": (_("SAMConvex paper"), _("The published method, by embeddings alone, for comparisons.")),
        "masr": (_("MASR-Net paper"), _("Learned self-similarity from the affine alone, for comparisons.")),
        "suits": (_("SUITS paper"), _("Learned features under a Gauss-Newton descent, for comparisons.")),
    }


def looksLikeCt(volumeNode):
    """True for Hounsfield units: the engine's rule, air or at least fat below zero."""
    return volumeNode.GetImageData().GetScalarRange()[0] <= -100


def fitting(preset, fixedVolume, movingVolume):
    """Names of the built-in presets made for images like these two; empty where ``preset`` suits them as well."""
    wanted = {name: settings.modality for name, settings in engineModule("samconvex.settings.presets").PRESETS.items()}
    kinds = {2: "ct", 1: "mr and ct", 0: "mr"}
    kind = kinds[looksLikeCt(fixedVolume) + looksLikeCt(movingVolume)]
    if wanted.get(preset, "") in ("", kind):
        return []
    return [name for name in builtInPresets() if wanted[name] == kind and name not in PUBLISHED]


# --- the user's presets ---------------------------------------------------------------------------------------------


def userPresetFolder():
    """Folder of this user's presets, beside the application's settings."""
    settingsPath = getattr(slicer.app, "slicerUserSettingsFilePath", "") or ""
    parent = Path(str(settingsPath)).parent if settingsPath else Path.home() / ".samconvex"
    return parent / "SAMConvexPresets"


def fileNameOf(name):
    """A file name that every platform accepts."""
    return re.sub(r"[^\w\-]+", "_", name.strip()) + ".json"


def userPresets(folder=None):
    """{name: RegistrationSettings} of the user; unreadable files are skipped."""
    found = {}
    folder = folder or userPresetFolder()
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            found[str(values["name"])] = RegistrationSettings.fromDictionary(values["settings"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def saveUserPreset(name, settings, folder=None):
    """Keep settings under a name for this user."""
    folder = folder or userPresetFolder()
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"name": name.strip(), "settings": settings.toDictionary()}, indent=2)
    (folder / fileNameOf(name)).write_text(content, encoding="utf-8")


def deleteUserPreset(name, folder=None):
    """Forget one of the user's presets."""
    path = (folder or userPresetFolder()) / fileNameOf(name)
    if path.is_file():
        path.unlink()


# --- presets in the scene -------------------------------------------------------------------------------------------


def scenePresets(scene):
    """{name: RegistrationSettings} of the text nodes that hold presets."""
    found = {}
    for node in slicer.util.getNodesByClass("vtkMRMLTextNode", scene):
        if node.GetAttribute(SCENE_PRESET_ATTRIBUTE):
            try:
                found[node.GetName()] = RegistrationSettings.fromDictionary(json.loads(node.GetText()))
            except (ValueError, TypeError):
                continue
    return found


def saveScenePreset(name, settings, scene):
    """Keep settings in the scene, so that they travel with its file; returns the text node."""
    node = _scenePresetNode(name, scene) or scene.AddNewNodeByClass("vtkMRMLTextNode", name)
    node.SetAttribute(SCENE_PRESET_ATTRIBUTE, "1")
    node.SetText(json.dumps(settings.toDictionary()))
    # Part of the scene file itself, not a text file beside it.
    node.SetForceCreateStorageNode(slicer.vtkMRMLTextNode.CreateStorageNodeNever)
    return node


def deleteScenePreset(name, scene):
    """Remove a preset from the scene."""
    node = _scenePresetNode(name, scene)
    if node is not None:
        scene.RemoveNode(node)


def _scenePresetNode(name, scene):
    for node in slicer.util.getNodesByClass("vtkMRMLTextNode", scene):
        if node.GetAttribute(SCENE_PRESET_ATTRIBUTE) and node.GetName() == name:
            return node
    return None
