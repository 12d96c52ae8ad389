"""Which weights there are: shipped and imported ones, with their checksums."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, ResourceError, refusing
from ..io.files import file_sha256, replaced, user_folder

DEFAULT_SAM = "sam-ct"
DEFAULT_XRAY = "sam-xray"
DEFAULT_SEMANTIC = "semantic-ct"
DEFAULT_LEVELS = "levels-ct"
DEFAULT_SIDES = "sides-ct"
DEFAULT_LAPIRN = "lapirn-ct"
DEFAULT_SAM_VOXELMORPH = "same-ct"
INDEX = "index.json"


@dataclass(frozen=True)
class WeightsEntry:
    """A file the registry knows.

    Attributes:
        origin: "shipped" or "imported".
        network: "sam-compact", "sam", "uae" or the name of one of :data:`FAMILIES`.
        modality: "ct", "mr" or "any".
        sha256: what the index says the file's checksum is.
        card: the model card's file, if one is there.
    """

    name: str
    path: Path
    origin: str
    network: str
    modality: str
    sha256: str
    bytes: int
    card: Path | None = None


def imported_folder() -> Path:
    """Where ``import`` puts files."""
    return user_folder() / "weights"


def shipped_folder() -> Path | None:
    """Folder of the shipped weights: in an installed wheel, in Slicer's packaged modules, or in the repository."""
    package = Path(__file__).resolve().parents[1]
    candidates = (
        package / "models",
        package.parent / "Resources" / "Models",
        package.parent.parent / "Resources" / "Models",
    )
    return next((folder for folder in candidates if (folder / INDEX).is_file()), None)


def known_weights() -> list[WeightsEntry]:
    """Every weights file the registry knows, shipped ones first."""
    shipped = shipped_folder()
    entries = all_entries(shipped, "shipped") if shipped else []
    names = {entry.name for entry in entries}
    return entries + [entry for entry in all_entries(imported_folder(), "imported") if entry.name not in names]


def find(name_or_path: str | os.PathLike | None = None) -> WeightsEntry | Path:
    """The entry of that name, or the path of a file that exists; None is the default SAM network.

    Raises:
        InputError: neither a known name nor a file.
    """
    wanted = str(name_or_path) if name_or_path is not None else DEFAULT_SAM
    entries = known_weights()
    for entry in entries:
        if entry.name == wanted:
            return entry
    if os.path.isfile(wanted):
        return Path(wanted)
    names = ", ".join(entry.name for entry in entries) or "none"
    raise InputError(f"{wanted} is neither a weights file nor a known name ({names}); see `samconvex weights list`.")


def path_of(name_or_path: str | os.PathLike | None = None) -> Path:
    """The file that :func:`load_sam` would read.

    Raises:
        InputError: see :func:`find`.
    """
    found = find(name_or_path)
    return found.path if isinstance(found, WeightsEntry) else found


def verify(name: str | None = None) -> list[tuple[WeightsEntry, str]]:
    """Compare files with their recorded sha256.

    Returns:
        Entries, each with "ok", "missing" or "changed"; of one name, or of all.

    Raises:
        InputError: no such name.
    """
    entries = known_weights()
    if name is not None:
        entries = [entry for entry in entries if entry.name == name]
        if not entries:
            raise InputError(f"{name} is not a known weights name; see `samconvex weights list`.")
    results = []
    for entry in entries:
        if not entry.path.is_file():
            results.append((entry, "missing"))
        else:
            results.append((entry, "ok" if file_sha256(entry.path) == entry.sha256 else "changed"))
    return results


def remove(name: str) -> Path:
    """Delete imported weights; returns the removed file.

    Raises:
        InputError: shipped, or not known.
    """
    for entry in known_weights():
        if entry.name != name:
            continue
        if entry.origin == "shipped":
            raise InputError(f"{name} is shipped with the product and cannot be removed.")
        index = read_index(imported_folder())
        index.pop(name, None)
        try:
            write_index(imported_folder(), index)
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            raise ResourceError(
                f"{entry.path} could not be removed ({error.strerror}); check its permissions."
            ) from error
        return entry.path
    raise InputError(f"{name} is not a known weights name; see `samconvex weights list`.")


def existing_file(name_or_path: str | os.PathLike | None) -> tuple[WeightsEntry | None, Path]:
    """The registry's entry, if it is one, and the file, which exists."""
    found = find(name_or_path)
    entry, path = (found, found.path) if isinstance(found, WeightsEntry) else (None, found)
    if not path.is_file():
        raise InputError(f"The weights file {path} is missing; reinstall, or run `samconvex weights verify`.")
    return entry, path


def check_unchanged(entry: WeightsEntry, digest: str) -> None:
    if digest != entry.sha256:
        raise InputError(
            f"{entry.path} is not the file that was {entry.origin} (checksum); install or import it again."
        )


def all_entries(folder: Path, origin: str) -> list[WeightsEntry]:
    entries = []
    for name, item in sorted(read_index(folder).items()):
        card = folder / str(item["card"]) if item.get("card") else None
        entries.append(
            WeightsEntry(
                name,
                folder / str(item["file"]),
                origin,
                str(item.get("network", "?")),
                str(item.get("modality", "?")),
                str(item["sha256"]),
                int(item.get("bytes", 0)),
                card if card and card.is_file() else None,
            )
        )
    return entries


def read_index(folder: Path) -> dict[str, dict[str, Any]]:
    damaged = f"{folder / INDEX} is damaged; remove it and import the weights again."
    with refusing(damaged):
        try:
            content = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
    valid = isinstance(content, dict) and all(
        isinstance(item, dict) and "file" in item and "sha256" in item for item in content.values()
    )
    # An index must not point out of its folder.
    if not valid or any(Path(str(item["file"])).name != item["file"] for item in content.values()):
        raise InputError(damaged)
    return content


def write_index(folder: Path, index: dict[str, dict[str, Any]]) -> None:
    with replaced(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(index, indent=2, sort_keys=True), encoding="utf-8")


def copy_weights(source: Path, target: Path) -> None:
    with replaced(target) as temporary:
        shutil.copyfile(source, temporary)
