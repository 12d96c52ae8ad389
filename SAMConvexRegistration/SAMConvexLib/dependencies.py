"""PyTorch and SimpleITK for the engine: looked for by version metadata, installed on request, never at import.

PyTorch comes through the PyTorch extension, which picks the build that fits the computer; it is never installed by
plain pip. Everything here runs on the main thread, because Slicer's installers show dialogs.
"""

import importlib
import importlib.metadata
import logging
from pathlib import Path
from subprocess import CalledProcessError

import slicer
from slicer.i18n import tr as _

TORCH_REQUIREMENT = ">=2.1"
# The first PyTorch that works with NumPy 2; for Macs with Intel processors there is none after 2.2.
TORCH_FOR_NUMPY_2 = "2.3"
EXTENSION = "PyTorch"
CLUSTER = "distributed>=2024.5"
PENDING_SETTING = "SAMConvex/ContinueInstallation"


_installing = False


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
    return numpyConflict()


def numpyConflict():
    """One sentence where the installed PyTorch cannot work with the installed NumPy, or an empty string."""
    torch, numpy = torchVersion(), numpyVersion()
    if torch is None or _numbers(torch) >= _numbers(TORCH_FOR_NUMPY_2) or _numbers(numpy) < (2, 0):
        return ""
    return _(
        "PyTorch {torch} needs a NumPy older than 2, but NumPy {numpy} is installed (on a Mac with an Intel processor "
        "there is no newer PyTorch); run slicer.util.pip_install('numpy<2') in the Python console and restart Slicer."
    ).format(torch=torch, numpy=numpy)


def numpyVersion():
    """Installed NumPy version; reads metadata."""
    return importlib.metadata.version("numpy")


def ensure(ask=True):
    """Make the engine able to run; asks before installing anything.

    Raises:
        DependencyError: declined, not possible, a restart is needed first, or an installation is under way.
    """
    global _installing
    reason = missingReason()
    if not reason:
        return
    if numpyConflict():
        # Installing PyTorch again would change nothing.
        raise DependencyError(reason)
    if _installing:
        # The installers show dialogs and process events, so that buttons can be pressed meanwhile.
        raise DependencyError(_("PyTorch is being installed; wait until that has ended."))
    _installing = True
    try:
        _install(ask)
    finally:
        _installing = False


def _install(ask):
    try:
        logic = _pytorchExtensionLogic(ask)
        torch = logic.installTorch(askConfirmation=ask, torchVersionRequirement=TORCH_REQUIREMENT)
        if torch is not None:
            ensureRequirements()
    except DependencyError:
        raise
    except Exception as error:  # pip's exit status, a broken download, a library that does not load, a full disk, ...
        logging.exception("SAMConvex: PyTorch could not be installed")
        raise DependencyError(
            _(
                "PyTorch could not be installed ({error}); check the network connection and the free disk space, "
                "restart Slicer and try again. The application log has the details."
            ).format(error=_reason(error))
        ) from error
    if torch is None:
        raise DependencyError(_("PyTorch was not installed; it is needed for the computation."))
    if numpyConflict():
        raise DependencyError(numpyConflict())


def _reason(error):
    """The first line of an exception, without the command line of the installer."""
    if isinstance(error, CalledProcessError):
        return _("the installer ended with status {status}").format(status=error.returncode)
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def ensureCluster(ask=True):
    """Make ``samconvex cohort`` able to run, which needs dask.distributed; asks before installing it.

    Raises:
        DependencyError: declined, or the installation failed.
    """
    try:
        importlib.metadata.version("distributed")
        return
    except importlib.metadata.PackageNotFoundError:
        pass
    question = _("Lists of image files run on dask.distributed, which is not installed. Install it now?")
    if ask and not slicer.util.confirmOkCancelDisplay(question):
        raise DependencyError(_("dask.distributed was not installed; it is needed for lists of image files."))
    try:
        slicer.util.pip_install(CLUSTER)
    except Exception as error:
        logging.exception("SAMConvex: dask.distributed could not be installed")
        raise DependencyError(
            _("dask.distributed could not be installed ({error}); check the network connection.").format(
                error=_reason(error)
            )
        ) from error


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
    except ModuleNotFoundError as error:
        if error.name != "PyTorchUtils":
            raise
    manager = slicer.app.extensionsManagerModel()
    if manager.isExtensionInstalled(EXTENSION):
        setPending(True)
        raise DependencyError(
            _("The PyTorch extension is installed but not loaded; enable it in the Extensions Manager, restart Slicer.")
        )
    question = _(
        "The computation needs the PyTorch extension. Install it now? Slicer must be restarted afterwards; "
        "the installation then continues."
    )
    if ask and not slicer.util.confirmOkCancelDisplay(question):
        raise DependencyError(_("The PyTorch extension was not installed; it is needed for the computation."))
    interactive = manager.interactive
    manager.interactive = False  # it was asked above
    try:
        # Without a restart (the second argument): the manager would not ask before it, and unsaved work would be lost.
        installed = manager.installExtensionFromServer(EXTENSION, False)
    finally:
        manager.interactive = interactive
    if not installed:
        raise DependencyError(
            _("The PyTorch extension could not be installed; install it in the Extensions Manager and restart Slicer.")
        )
    setPending(True)
    raise DependencyError(_("The PyTorch extension is installed; save your work and restart Slicer to continue."))


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
