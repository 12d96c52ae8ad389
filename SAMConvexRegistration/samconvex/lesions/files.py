"""Lesions of a baseline image and the files they come in: label maps, points, boxes (ROI), measured lines, lists."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import InputError, check_at_hand, refusing
from ..io.checks import other_grid_note
from ..io.dicom import is_dicom
from ..io.dicom_segmentation import segment_names
from ..io.images import read_labels
from ..io.points import PointSet, markups_points, read_points
from ..space.image_files import read_header
from ..space.volume import Volume
from .lesion import Lesion

POINT_FILES = (".csv", ".fcsv")
MARKUPS_FILE = ".mrk.json"
LIST_FILE = ".json"
# Single voxels beside a segment are slips of the brush.
_STRAY_VOXELS = 3


def read_lesions(path: str | os.PathLike) -> list[Lesion]:
    """Read lesions from a label map, a point list, Slicer markups or a list of lesions of any kind.

    A label map with several labels holds one lesion per label, one with a single label one per connected part (the
    names of a Slicer segmentation are kept). In .csv and .fcsv every point is a lesion; in .mrk.json every point of a
    point list, every ROI and every line. A .json holds a list of objects with a ``name`` and one of ``point``, ``box``
    (opposite corners), ``line`` (end points), all LPS mm, or ``mask`` (image file, relative to the list's folder).

    Raises:
        InputError: missing, unreadable, empty, or markups of another kind.
    """
    location = Path(path)
    check_at_hand(path, "of the lesions", folder=True)
    name = location.name.lower()
    with refusing(f"{path} could not be read as lesions; see `samconvex track --help`."):
        if name.endswith(MARKUPS_FILE):
            lesions = _from_markups(location)
        elif name.endswith(LIST_FILE):
            lesions = _from_list(location)
        elif name.endswith(POINT_FILES):
            lesions = _from_points(read_points(path), "lesion")
        else:
            lesions = _from_labels(location)
        return [replace(lesion, note=_parts_note(lesion)) for lesion in _uniquely_named(lesions)]


def lesion_notes(lesions: Iterable[Lesion], image: Volume) -> list[str]:
    """What reading the lesions noticed, and a sentence for each label map on another grid than its ``image``."""
    lesions = list(lesions)
    sources = dict.fromkeys(lesion.mask.source for lesion in lesions if lesion.mask is not None and lesion.mask.source)
    notes: list[str] = []
    for labels in map(read_labels, sources):
        note = other_grid_note(labels.grid, labels.name, image)
        notes += [*labels.notes, *([note] if note else [])]
    return notes + [lesion.note for lesion in lesions if lesion.note]


def _from_points(points: PointSet, stem: str) -> list[Lesion]:
    named = zip(points.positions, points.labels, points.defined, strict=True)
    return [
        Lesion(label or f"{stem} {number}", position)
        for number, (position, label, defined) in enumerate(named, start=1)
        if defined
    ]


def _from_list(path: Path) -> list[Lesion]:
    try:
        entries = [dict(entry) for entry in json.loads(path.read_text(encoding="utf-8-sig"))]
        lesions = [_from_entry(entry, f"lesion {number}", path) for number, entry in enumerate(entries, start=1)]
    except InputError:
        raise
    except (OSError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise InputError(f"{path} is no list of lesions; see `samconvex track --help`.") from error
    if not lesions:
        raise InputError(f"{path} holds no lesion; list at least one.")
    return lesions


def _from_entry(entry: dict, stem: str, path: Path) -> Lesion:
    name = str(entry.get("name") or stem)
    if "mask" in entry:
        return Lesion.from_mask(name, read_labels(path.parent / str(entry["mask"])))
    places = {key: np.array(entry[key], dtype=float) for key in ("box", "line", "point") if key in entry}
    if "box" in places:
        return Lesion.from_box(name, places["box"])
    if "line" in places:
        return Lesion.from_diameters(name, places["line"])
    if "point" in places:
        return Lesion(name, places["point"].reshape(3))
    raise InputError(f"{path}: {name} has no place; give a point, box, line or mask.")


def _from_labels(path: Path) -> list[Lesion]:
    labels = read_labels(path)
    values = [int(value) for value in labels.tensor.unique().tolist() if value > 0]
    if not values:
        raise InputError(f"{path} has no label above 0; check that it is the segmentation of the lesions.")
    if len(values) > 1:
        names = _segment_names(path)
        parts = [(names.get(value, f"label {value}"), labels.tensor == value) for value in values]
    else:
        image = sitk.GetImageFromArray((labels.tensor[0, 0] > 0).to(torch.uint8).numpy())
        found = sitk.GetArrayFromImage(sitk.RelabelComponent(sitk.ConnectedComponent(image, True)))
        components = torch.from_numpy(found.astype(np.int32))[None, None]
        parts = [(f"lesion {number}", components == number) for number in range(1, int(components.max()) + 1)]
    return [
        Lesion.from_mask(name, Volume(inside.to(torch.uint8), labels.grid, sitk.sitkUInt8, str(path)))
        for name, inside in parts
    ]


def _parts_note(lesion: Lesion) -> str:
    """A sentence where a lesion's segment has several separate parts; a class map is no map of lesions."""
    if lesion.mask is None:
        return ""
    image = sitk.GetImageFromArray((lesion.mask.tensor[0, 0] > 0).to(torch.uint8).numpy())
    sizes = sitk.GetArrayFromImage(sitk.RelabelComponent(sitk.ConnectedComponent(image, True), _STRAY_VOXELS))
    count = int(sizes.max())
    if count < 2:
        return ""
    return (
        f"{lesion.name} has {count} separate parts and is followed as one lesion; give each part a label of its own "
        "to follow them apart."
    )


def _segment_names(path: Path) -> dict[int, str]:
    """Names by label value that Slicer keeps in a .seg.nrrd, or of a DICOM segmentation; empty for other files."""
    if is_dicom(path):
        return segment_names(path)
    reader = read_header(path)
    names = {}
    for key in reader.GetMetaDataKeys():
        if key.startswith("Segment") and key.endswith("_LabelValue"):
            name = f"{key.removesuffix('_LabelValue')}_Name"
            if reader.HasMetaDataKey(name):
                names[int(reader.GetMetaData(key))] = reader.GetMetaData(name)
    return names


def _from_markups(path: Path) -> list[Lesion]:
    stem = path.name[: -len(MARKUPS_FILE)]
    try:
        markups = json.loads(path.read_text(encoding="utf-8-sig"))["markups"]
        kinds = [str(markup["type"]) for markup in markups]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no Slicer markups file; save the lesions from Slicer as .mrk.json.") from error
    lesions: list[Lesion] = []
    for number, (kind, markup) in enumerate(zip(kinds, markups, strict=True), start=1):
        name = str(markup.get("name") or (stem if len(markups) == 1 else f"{stem} {number}"))
        points = markups_points([markup], str(path))
        positions = points.positions[points.defined]
        if kind == "Fiducial":
            lesions += _from_points(points, "lesion")
        elif kind == "Line" and len(positions) == 2:
            lesions.append(Lesion.from_diameters(name, positions[None]))
        elif kind == "ROI" and len(positions):
            lesions.append(Lesion.from_box(name, _roi_box(markup, positions.mean(0), str(path))))
        elif kind not in ("Line", "ROI"):
            raise InputError(f"{path} holds a {kind}; give points, lines or ROIs, or a label map of the lesions.")
    if not lesions:
        raise InputError(f"{path} holds no lesion with a position; place a point, line or ROI in Slicer.")
    return lesions


def _roi_box(markup: dict, center: np.ndarray, path: str) -> np.ndarray:
    """(2, 3) corners of the box along the patient's axes around an ROI of any orientation."""
    try:
        size = np.asarray(markup["size"], dtype=float).reshape(3)
        axes = np.asarray(markup.get("orientation") or np.eye(3), dtype=float).reshape(3, 3)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the ROI has no size; save it from Slicer again.") from error
    # RAS or LPS does not matter here: the sign of an axis does not change its extent.
    half = np.abs(axes) @ (np.abs(size) / 2)
    return np.stack([center - half, center + half])


def _uniquely_named(lesions: Iterable[Lesion]) -> list[Lesion]:
    """The lesions with a number added to names that repeat."""
    seen: dict[str, int] = {}
    result = []
    for lesion in lesions:
        count = seen.get(lesion.name, 0) + 1
        seen[lesion.name] = count
        name = lesion.name if count == 1 else f"{lesion.name} ({count})"
        result.append(replace(lesion, name=name))
    return result
