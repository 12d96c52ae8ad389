"""Preset list and its menu: choose, save as one's own or into the scene, delete; tool tips of other lists."""

import html

import qt
import slicer
from SAMConvexLib import verdicts
from slicer.i18n import tr as _

from . import presets
from .settings import RegistrationSettings

# Dark on the color of a warning, whatever the theme's links are.
_LINK = '<a href="{name}" style="color:#141414">{label}</a>'


def explainChoices(combo, kind):
    """Give every entry of a list, filled from an enumeration, its member's explanation as tool tip."""
    for index, member in enumerate(kind):
        combo.setItemData(index, member.explanation(), qt.Qt.ToolTipRole)


class PresetMenu:
    """Connects the preset combo box and menu button to the parameter node.

    Args:
        parameters: callable that gives the current parameter node, or None.
    """

    def __init__(self, ui, parameters):
        self.ui = ui
        self._parameters = parameters
        self._shown = None
        menu = qt.QMenu(ui.presetMenuButton)
        self.saveForUserAction = menu.addAction(_("Save as my preset..."))
        self.saveInSceneAction = menu.addAction(_("Save in the scene..."))
        menu.addSeparator()
        self.deleteAction = menu.addAction(_("Delete this preset"))
        self.saveForUserAction.connect("triggered(bool)", self.onSaveForUser)
        self.saveInSceneAction.connect("triggered(bool)", self.onSaveInScene)
        self.deleteAction.connect("triggered(bool)", self.onDelete)
        ui.presetMenuButton.setMenu(menu)
        ui.presetComboBox.connect("activated(int)", self.onActivated)
        ui.presetHintLabel.connect("linkActivated(QString)", self.onHintLink)
        ui.presetHintLabel.setStyleSheet(verdicts.style(verdicts.CHECK))

    def update(self):
        """Fill the list anew."""
        combo = self.ui.presetComboBox
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        for name, (label, description) in presets.builtInPresets().items():
            combo.addItem(label, presets.BUILT_IN + name)
            combo.setItemData(combo.count - 1, description, qt.Qt.ToolTipRole)
        for name in presets.userPresets():
            combo.addItem(_("{name} (mine)").format(name=name), presets.USER + name)
        for name in presets.scenePresets(slicer.mrmlScene):
            combo.addItem(_("{name} (in the scene)").format(name=name), presets.SCENE + name)
        combo.blockSignals(wasBlocked)
        self._shown = None
        self.parametersChanged()

    def parametersChanged(self):
        """Show what the parameter node says."""
        parameters = self._parameters()
        if parameters is None or parameters.chosenPreset == self._shown:
            return
        combo = self.ui.presetComboBox
        self._shown = parameters.chosenPreset
        index = combo.findData(parameters.chosenPreset)
        if index < 0:
            # A preset of another user or a deleted one: its settings are still in the parameter node.
            index = combo.findData(presets.BUILT_IN + parameters.preset)
        wasBlocked = combo.blockSignals(True)
        combo.setCurrentIndex(index)
        combo.blockSignals(wasBlocked)
        entry = presets.builtInPresets().get(parameters.preset)
        self.ui.presetDescriptionLabel.text = entry[1] if entry else ""
        self.deleteAction.enabled = not parameters.chosenPreset.startswith(presets.BUILT_IN)

    def showHint(self, usable):
        """Say, before the run, that the preset is for another kind of image, and offer those that fit.

        Args:
            usable: whether both volumes hold images.
        """
        parameters, label = self._parameters(), self.ui.presetHintLabel
        names = (
            presets.fitting(parameters.preset, parameters.fixedVolume, parameters.movingVolume)
            if usable and parameters is not None
            else []
        )
        label.visible = bool(names)
        if not names:
            label.text = ""
            return
        labels = {name: html.escape(entry[0]) for name, entry in presets.builtInPresets().items()}
        words = {True: _("a CT"), False: _("no CT")}
        label.text = _(
            "The preset '{preset}' is for other images: '{fixed}' looks like {fixedKind}, '{moving}' like "
            "{movingKind}. Choose: {choices}"
        ).format(
            preset=labels.get(parameters.preset, parameters.preset),
            fixed=html.escape(parameters.fixedVolume.GetName()),
            moving=html.escape(parameters.movingVolume.GetName()),
            fixedKind=words[presets.looksLikeCt(parameters.fixedVolume)],
            movingKind=words[presets.looksLikeCt(parameters.movingVolume)],
            choices=" | ".join(_LINK.format(name=name, label=labels[name]) for name in names),
        )

    def onHintLink(self, name):
        self.choose(presets.BUILT_IN + name)

    def onActivated(self, index):
        self.choose(self.ui.presetComboBox.itemData(index))

    def choose(self, key):
        """Take over a preset's settings."""
        parameters = self._parameters()
        if parameters is None or not key:
            return
        if key.startswith(presets.BUILT_IN):
            settings = RegistrationSettings(preset=key[len(presets.BUILT_IN) :], device=parameters.device)
        elif key.startswith(presets.USER):
            settings = presets.userPresets().get(key[len(presets.USER) :])
        else:
            settings = presets.scenePresets(slicer.mrmlScene).get(key[len(presets.SCENE) :])
        if settings is not None:
            with slicer.util.NodeModify(parameters.parameterNode):
                parameters.applySettings(settings)
                parameters.chosenPreset = key
            self.parametersChanged()

    def onSaveForUser(self, checked=False):
        name = self._askName()
        if name:
            try:
                presets.saveUserPreset(name, self._parameters().settings())
            except OSError as error:
                slicer.util.errorDisplay(
                    _("The preset could not be saved ({reason}); save it in the scene.").format(reason=error)
                )
                return
            self._parameters().chosenPreset = presets.USER + name
            self.update()

    def onSaveInScene(self, checked=False):
        name = self._askName()
        if name:
            presets.saveScenePreset(name, self._parameters().settings(), slicer.mrmlScene)
            self._parameters().chosenPreset = presets.SCENE + name
            self.update()

    def onDelete(self, checked=False):
        parameters = self._parameters()
        key = parameters.chosenPreset
        if key.startswith(presets.USER):
            presets.deleteUserPreset(key[len(presets.USER) :])
        elif key.startswith(presets.SCENE):
            presets.deleteScenePreset(key[len(presets.SCENE) :], slicer.mrmlScene)
        parameters.chosenPreset = presets.BUILT_IN + parameters.preset
        self.update()

    def _askName(self):
        text = qt.QInputDialog.getText(slicer.util.mainWindow(), _("Save preset"), _("Name of the preset:"))
        return (text or "").strip()
