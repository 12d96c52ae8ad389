"""Stand-in for slicer.packaging (Slicer 5.11+): answers from what is installed here, records, and never installs."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from packaging.requirements import Requirement

installed = []  # what modules asked to install: (requirements, keyword arguments)
declined = False  # set by tests: the user says no


def pip_check(requirements) -> bool:
    """Whether every requirement is met by an installed package."""
    for requirement in _asList(requirements):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return False
        if not requirement.specifier.contains(version, prereleases=True):
            return False
    return True


def pip_ensure(requirements, requester=None, **kwargs) -> None:
    """Slicer asks the user and installs; here it is written down. Skipped in testing mode, as in Slicer."""
    if pip_check(requirements):
        return
    import slicer

    if declined:
        raise RuntimeError("The installation was declined.")
    if slicer.app.testingEnabled():
        return
    installed.append((_asList(requirements), dict(kwargs, requester=requester)))


def pip_install(requirements, **kwargs) -> None:
    installed.append((requirements, kwargs))


def load_requirements(path) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def _asList(requirements):
    if isinstance(requirements, (str, Requirement)):
        requirements = [requirements]
    return [r if isinstance(r, Requirement) else Requirement(r) for r in requirements]
