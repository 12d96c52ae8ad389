"""What each input file of a manifest really is, read once; and what of it contradicts the rows that name it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, SamConvexError
from ..io.checks import labels_note
from ..io.dicom import is_dicom
from ..io.dicom_tags import read_header
from ..io.files import file_sha256
from ..io.images import read_grid, read_labels, read_mask, read_volume
from ..io.points import read_points
from ..landmarks.templates import is_template, load_template
from ..lesions.course import read_course
from ..lesions.course_changes import iso_date
from ..lesions.files import read_lesions
from ..settings.presets import get_settings
from ..space.grid import Grid
from ..space.transforms import Transform
from ..weights.models import family_of
from .commands import REGISTER, Row, options_of, preset_of
from .manifest import Fault

_LABELS_AS_IMAGE = "name the image itself here (an image of so few values: store it as floating point)"
# Images that more patients share than a slip of the hand would give are templates.
_SLIP = 2
_IMAGES = ("image", "slice", "template", "volume", "grid")


@dataclass(frozen=True)
class Facts:
    """What a file was found to be.

    Attributes:
        stamp: changes when the file does, without reading it.
        sha256: of its content, empty where it could not be read.
        grid: of an image, labels or mask.
        patient: PatientID of a DICOM folder, "" elsewhere.
        fault: why it cannot serve, "" where it can.
    """

    stamp: str
    sha256: str = ""
    grid: Grid | None = None
    patient: str = ""
    fault: str = ""


def stamp(path: str) -> str:
    """Size and time of a file, or of all files of a folder; empty where there is none."""
    place = Path(path)
    try:
        files = sorted(entry for entry in place.iterdir() if entry.is_file()) if place.is_dir() else [place]
        states = [(file.name, file.stat()) for file in files]
    except OSError:
        return ""
    return ";".join(f"{name}:{state.st_size}:{state.st_mtime_ns}" for name, state in states)


def inspected(path: str, kind: str) -> Facts:
    """Read a file as the command would and say what it is; nothing is raised for a file that cannot serve."""
    try:
        grid = _READERS[kind](path)
        return Facts(stamp(path), file_sha256(path), grid, _dicom_patient(Path(path)))
    except (SamConvexError, OSError) as error:
        return Facts(stamp(path), fault=str(error))


def _image(path: str, slices: bool = False) -> Grid:
    volume = read_volume(path, slices=slices)
    if note := labels_note(volume, _LABELS_AS_IMAGE):
        raise InputError(note)
    return volume.grid


def _template(path: str) -> Grid | None:
    if is_template(path):
        load_template(path)
        return None
    return _image(path, slices=True)


def _points(path: str) -> None:
    # Voxel indices of elastix need the image; the command itself reads them.
    if not path.lower().endswith((".txt", ".pts")):
        read_points(path)


def _lesions(path: str) -> None:
    read_lesions(path)


def _course(path: str) -> None:
    read_course(path)


def _weights(path: str) -> None:
    family_of(path)


def _transform(path: str) -> None:
    try:
        Transform.load(path)
    except InputError as error:
        # What is sampled over the fixed grid can only be read with it.
        if "fixed" not in str(error):
            raise


_READERS: dict[str, Callable[[str], Grid | None]] = {
    "image": _image,
    "slice": lambda path: _image(path, slices=True),
    "template": _template,
    "volume": lambda path: read_volume(path).grid,
    "grid": read_grid,
    "labels": lambda path: read_labels(path).grid,
    "mask": lambda path: read_mask(path).grid,
    "points": _points,
    "lesions": _lesions,
    "transform": _transform,
    "course": _course,
    "weights": _weights,
}


def _dicom_patient(path: Path) -> str:
    if not path.is_dir() or not is_dicom(path):
        return ""
    for file in sorted(entry for entry in path.iterdir() if entry.is_file()):
        header = read_header(file)
        if header is not None and header.data.text("Patient"):
            return header.data.text("Patient")
    return ""


def option_faults(row: Row) -> list[Fault]:
    """Choices of a row that only the engine knows: presets, features, days, weights by name."""
    faults = []
    if row.command == REGISTER:
        try:
            get_settings(preset_of(row))
        except InputError as error:
            faults.append(Fault(row.number, "preset", str(error)))
        else:
            try:
                options_of(row).settings()
            except InputError as error:
                column = next((name for name in ("features", "refine", "affine") if row.values.get(name)), "")
                faults.append(Fault(row.number, column, str(error)))
    for day in row.values.get("dates") or ():
        try:
            iso_date(day, "A day of dates")
        except InputError as error:
            faults.append(Fault(row.number, "dates", str(error)))
    for name in ("weights", "initial_network"):
        given = row.values.get(name)
        if given and not Path(given).is_file():
            try:
                family_of(given)
            except InputError as error:
                faults.append(Fault(row.number, name, str(error)))
    return faults


def file_faults(rows: Sequence[Row], facts: Mapping[tuple[str, str], Facts]) -> list[Fault]:
    """Faults of single files, of files that do not fit together in a row, and of patients that are mixed up.

    Args:
        facts: by path and kind, of every file of the rows.
    """
    faults = []
    for row in rows:
        for column, kind, path in row.files():
            if facts[path, kind].fault:
                faults.append(Fault(row.number, column, facts[path, kind].fault))
        faults += _apart(row, facts)
    faults += _shared_images(rows, facts)
    faults += _mixed_patients(rows, facts)
    return sorted(faults, key=lambda fault: fault.row)


def _apart(row: Row, facts: Mapping[tuple[str, str], Facts]) -> list[Fault]:
    """Labels and masks that lie wholly outside their image."""
    if row.command != REGISTER:
        return []
    faults = []
    for column, side in (("fixed_labels", "fixed"), ("fixed_mask", "fixed"), ("protect", "fixed")) + tuple(
        (f"moving_{what}", "moving") for what in ("labels", "mask")
    ):
        path, image = row.values.get(column), row.values.get(side)
        if not path or not image:
            continue
        kind = "mask" if column.endswith("mask") else "labels"
        grid, place = facts[path, kind].grid, facts[image, "image"].grid
        if grid is not None and place is not None and not _boxes_meet(grid, place):
            sentence = f"{path} lies outside {image}; name the file that belongs to this image."
            faults.append(Fault(row.number, column, sentence))
    return faults


def _boxes_meet(first: Grid, second: Grid) -> bool:
    a, b = first.corners(), second.corners()
    return bool(np.all(a.min(0) <= b.max(0)) and np.all(b.min(0) <= a.max(0)))


def _claims(row: Row) -> list[tuple[str, str, str, str]]:
    """(argument, kind, path, patient) of every image whose patient the row names."""
    claims = []
    for column, kind, path in row.files():
        patient = row.sides.get(column, "" if row.sides else row.patient)
        if kind in _IMAGES and patient and column not in ("template", "also"):
            claims.append((column, kind, path, patient))
    return claims


def _same_patient(row: Row) -> bool:
    """True where all images of the row show the row's patient."""
    if row.command != REGISTER:
        return True
    try:
        return get_settings(preset_of(row)).same_patient
    except InputError:
        return False


def _shared_images(rows: Iterable[Row], facts: Mapping[tuple[str, str], Facts]) -> list[Fault]:
    """One image under two patients, be it the same file or a copy; what many share is a template."""
    seen: dict[str, dict[str, tuple[Row, str, str]]] = defaultdict(dict)
    for row in rows:
        for column, kind, path, patient in _claims(row):
            if digest := facts[path, kind].sha256:
                seen[digest].setdefault(patient, (row, column, path))
    faults = []
    for places in seen.values():
        if len(places) != _SLIP:
            continue
        (one, (first, _, _)), (other, (row, column, path)) = places.items()
        faults.append(
            Fault(
                row.number,
                column,
                f"{path} is an image of patient {other} here and of patient {one} in row {first.number}; correct one, "
                "or name whom each image shows in the columns fixed_patient and moving_patient.",
            )
        )
    return faults


def _mixed_patients(rows: Iterable[Row], facts: Mapping[tuple[str, str], Facts]) -> list[Fault]:
    """DICOM folders of two patients under one name."""
    known: dict[str, tuple[str, Row, str]] = {}
    faults = []
    for row in rows:
        if not (row.sides or _same_patient(row)):
            continue
        for column, kind, path, patient in _claims(row):
            identity = facts[path, kind].patient
            if not identity:
                continue
            other, first, before = known.setdefault(patient, (identity, row, path))
            if other != identity:
                sentence = (
                    f"{path} and {before} (row {first.number}) have different PatientIDs, but both are given as "
                    f"patient {patient}; correct the path or the patient."
                )
                faults.append(Fault(row.number, column, sentence))
    return faults
