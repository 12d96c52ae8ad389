"""PyTorch and SimpleITK for the engine: looked for by version metadata, installed on request, never at import.

PyTorch comes through the PyTorch extension, which picks the build that fits the computer; it is never installed by
plain pip. Everything here runs on the main thread, because Slicer's installers show dialogs.
"""

import importlib
import importlib.metadata
from pathlib import Path

import slicer
from slicer.i18n import tr as _

TORCH_REQUIREMENT = ">=2.1"
PENDING_SETTING = "SAMConvex/ContinueInstallation"


class DependencyError(RuntimeError):
    """Something that the engine needs is missing; the message says what to do."""


def torchVersion():
    """Installed PyTorch version, or None; reads metadata, imports nothing."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def missingReason():
    """One sentence that says why the engine cannot run yet, or an empty string."""
    version = torchVersion()
    if version is None:
        return _("PyTorch is not installed.")
    if _numbers(version) < _numbers(TORCH_REQUIREMENT.lstrip(">=")):
        return _("PyTorch {version} is too old; {minimum} or newer is needed.").format(
            version=version, minimum=TORCH_REQUIREMENT.lstrip(">=")
        )
    return ""


def ensure(ask=True):
    """Make the engine able to run; asks before installing anything.

    Raises:
        DependencyError: declined, not possible, or a restart is needed first.
    """
    if not missingReason():
        return
    logic = _pytorchExtensionLogic(ask)
    if logic.installTorch(askConfirmation=ask, torchVersionRequirement=TORCH_REQUIREMENT) is None:
        raise DependencyError(_("PyTorch was not installed; it is needed for the computation."))
    ensureRequirements()


def ensureRequirements():
    """Install what requirements.txt names, through Slicer's own installer (Slicer 5.12 and newer)."""
    try:
        from slicer.packaging import load_requirements, pip_ensure
    except ImportError:
        return
    path = Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"
    pip_ensure(load_requirements(str(path)), requester="SAMConvex")


def _pytorchExtensionLogic(ask):
    try:
        return importlib.import_module("PyTorchUtils").PyTorchUtilsLogic()
    except ImportError:
        pass
    question = _(
        "The computation needs the PyTorch extension. Install it now? Slicer must be restarted afterwards; "
        "the installation then continues."
    )
    if ask and not slicer.util.confirmOkCancelDisplay(question):
        raise DependencyError(_("The PyTorch extension was not installed; it is needed for the computation."))
    manager = slicer.app.extensionsManagerModel()
    manager.interactive = False
    if not manager.installExtensionFromServer("PyTorch"):
        raise DependencyError(
            _("The PyTorch extension could not be installed; install it in the Extensions Manager and restart Slicer.")
        )
    setPending(True)
    raise DependencyError(_("The PyTorch extension is installed; restart Slicer to continue."))


def setPending(pending):
    """Remember over a restart that an installation was under way."""
    slicer.app.userSettings().setValue(PENDING_SETTING, "1" if pending else "")


def isPending():
    """True after a restart in the middle of an installation."""
    return bool(slicer.app.userSettings().value(PENDING_SETTING))


def _numbers(version):
    digits = []
    for part in version.split("+")[0].split(".")[:2]:
        number = "".join(character for character in part if character.isdigit())
        digits.append(int(number or 0))
    return tuple(digits)
