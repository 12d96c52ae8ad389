"""Point lists on disk: csv, Slicer .mrk.json and .fcsv, elastix/transformix .txt and .pts; in memory always LPS mm."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, check_at_hand, refusing
from ..space.grid import Grid, as_points

POINT_ENDINGS = (".csv", ".mrk.json", ".fcsv", ".txt", ".pts")
WRITABLE_ENDINGS = (".csv", ".mrk.json")

# RAS and LPS differ by the sign of the first two coordinates; the map is its own inverse.
_FLIP = np.array([-1.0, -1.0, 1.0])
_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


@dataclass(frozen=True)
class PointSet:
    """Named points of one image.

    Attributes:
        positions: (N, 3) float64 LPS mm; a row of NaN is an undefined (not found) point.
        labels: N names, possibly empty.
        orientations: (N, 3, 3), columns are a control point's axes in LPS, or None where the file has none.
        source: file or node name, for messages.
    """

    positions: np.ndarray
    labels: tuple[str, ...] = ()
    orientations: np.ndarray | None = None
    source: str | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        positions = as_points(self.positions)
        object.__setattr__(self, "positions", positions)
        if not self.labels:
            object.__setattr__(self, "labels", ("",) * len(positions))
        if len(self.labels) != len(positions):
            raise InputError(f"There are {len(self.labels)} labels for {len(positions)} points; give one each.")

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def defined(self) -> np.ndarray:
        """(N,) bool: the point has a position."""
        return np.isfinite(self.positions).all(1)

    @property
    def name(self) -> str:
        """How messages call these points."""
        return self.source or "the point list"

    def with_positions(self, positions: np.ndarray) -> PointSet:
        """The same points elsewhere; labels and orientations stay."""
        return PointSet(positions, self.labels, self.orientations, self.source, self.notes)


def is_point_file(path: str | os.PathLike) -> bool:
    """True where the ending says that the file holds points."""
    return str(path).lower().endswith(POINT_ENDINGS)


def read_points(path: str | os.PathLike, grid: Grid | None = None) -> PointSet:
    """Read a point list; the file's own coordinate system is honored and the result is LPS mm.

    Args:
        path: .csv (header ``x,y,z[,label]``, LPS mm), .mrk.json, .fcsv, or elastix .txt/.pts.
        grid: the points' image; only elastix files that hold voxel indices need it.

    Raises:
        InputError: missing, unreadable, of unknown kind or without any defined point.
    """
    location = Path(path)
    check_at_hand(path, "of the points")
    readers = {".csv": _read_csv, ".mrk.json": _read_markups, ".fcsv": _read_fcsv}
    ending = next((e for e in POINT_ENDINGS if location.name.lower().endswith(e)), None)
    if ending is None:
        raise InputError(f"{path} is no point file; give {', '.join(POINT_ENDINGS[:-1])} or {POINT_ENDINGS[-1]}.")
    with refusing(f"{path} could not be read as text; give a point file."):
        text = _decoded(location.read_bytes(), ending)
    with refusing(f"{path} could not be read as points; save them again."):
        points = readers[ending](text, str(path)) if ending in readers else _read_elastix(text, str(path), grid)
    if not points.defined.any():
        raise InputError(f"{path} holds no point with a position; place at least one.")
    return points


def write_points(
    points: PointSet,
    path: str | os.PathLike,
    *,
    columns: Mapping[str, Sequence[Any]] | None = None,
    descriptions: Sequence[str] | None = None,
) -> None:
    """Write .csv (``x,y,z,label``, LPS mm) or Slicer .mrk.json (LPS), by the ending of ``path``.

    Undefined points have empty coordinates in the csv and the status "undefined" in .mrk.json.

    Args:
        columns: further csv columns, each with N values.
        descriptions: N texts for .mrk.json's description field.

    Raises:
        InputError: another ending.
    """
    name = str(path).lower()
    if name.endswith(".mrk.json"):
        text = json.dumps(_markups(points, descriptions), indent=4, allow_nan=False) + "\n"
        Path(path).write_text(text, encoding="utf-8")
    elif name.endswith(".csv"):
        with open(path, "w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            extra = dict(columns or {})
            writer.writerow(["x", "y", "z", "label", *extra])
            for row, (position, label) in enumerate(zip(points.positions, points.labels, strict=True)):
                writer.writerow([*_cells(position), label, *(values[row] for values in extra.values())])
    else:
        raise InputError(f"{path}: points are written as .csv or .mrk.json; choose one of these endings.")


def check_writable_ending(path: str | os.PathLike) -> None:
    """Raise InputError before any work where :func:`write_points` would refuse ``path``."""
    if not str(path).lower().endswith(WRITABLE_ENDINGS):
        raise InputError(f"{path}: points are written as .csv or .mrk.json; choose one of these endings.")


def _cells(position: np.ndarray) -> list[str]:
    if not np.isfinite(position).all():
        return ["", "", ""]
    # A ten-thousandth of a micrometer: round trips stay exact for every practical purpose and files stay readable.
    return [f"{value:.7f}".rstrip("0").rstrip(".") for value in position]


def _decoded(content: bytes, ending: str) -> str:
    """The text of a file; spreadsheets of Western Europe save .csv in their own encoding, and as UTF-16."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if ending != ".csv" or b"\0" in content:
            raise
        return content.decode("cp1252")


def _read_csv(text: str, path: str) -> PointSet:
    """Separated by commas, semicolons or tabs; where no comma separates, it may be the decimal sign."""
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and lines[0].lower().startswith("sep="):
        # Spreadsheets say the separator in a line of its own.
        lines.pop(0)
    header = lines[0] if lines else ""
    delimiter = max(",;\t", key=header.count)
    names = [cell.strip().lower() for cell in next(csv.reader([header], delimiter=delimiter), [])]
    if not {"x", "y", "z"} <= set(names):
        raise InputError(f"{path} does not start with the header x,y,z[,label]; add it (coordinates are LPS mm).")
    axes = [names.index(axis) for axis in "xyz"]
    label = names.index("label") if "label" in names else None
    positions, labels = [], []
    for number, row in enumerate(csv.reader(lines[1:], delimiter=delimiter), start=2):
        beyond = [cell.strip() for cell in row[len(names) :] if cell.strip()]
        # A label may lack its header; a number there is the half of one that a decimal comma cut.
        if len(beyond) > 1 or (beyond and (len(names) > 3 or _is_number(beyond[0]))):
            raise InputError(
                f"{path}, line {number} has {len(row)} cells but the header {len(names)}; where commas are decimal "
                "signs, separate the cells by semicolons."
            )
        cells = [row[axis].strip() if axis < len(row) else "" for axis in axes]
        if delimiter != ",":
            cells = [cell.replace(",", ".") for cell in cells]
        positions.append(_position(cells, f"{path}, line {number}"))
        labels.append(row[label].strip() if label is not None and label < len(row) else "")
    return PointSet(np.array(positions).reshape(-1, 3), tuple(labels), source=path)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _position(cells: Sequence[Any], place: str) -> list[float]:
    """Three numbers, or three NaN where all cells are empty; anything else is an error at ``place``."""
    if all(cell == "" for cell in cells):
        return [math.nan] * 3
    try:
        if any("_" in str(cell) for cell in cells):
            raise ValueError
        position = [float(cell) for cell in cells]
    except (TypeError, ValueError):
        position = []
    if len(position) != 3 or any(math.isinf(value) for value in position):
        raise InputError(f"{place}: three coordinates in mm are needed; correct that point.")
    return position


def _read_markups(text: str, path: str) -> PointSet:
    try:
        lists = json.loads(text)["markups"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no Slicer markups file; save the points from Slicer as .mrk.json.") from error
    return markups_points(lists, path)


def markups_points(lists: Sequence[Mapping[str, Any]], path: str) -> PointSet:
    """Control points of the entries of a .mrk.json's list "markups"; ``path`` is for messages.

    Raises:
        InputError: not what Slicer writes.
    """
    try:
        controls = [(markup, point) for markup in lists for point in markup.get("controlPoints", [])]
    except (TypeError, AttributeError) as error:
        raise InputError(f"{path} is no Slicer markups file; save the points from Slicer as .mrk.json.") from error
    positions, orientations, labels = [], [], []
    for number, (markup, point) in enumerate(controls, start=1):
        flip = _flip_to_lps(markup.get("coordinateSystem", "LPS"), path)
        units = markup.get("coordinateUnits", "mm")
        if isinstance(units, list) and len(units) == 3:
            # The schema's other form: code, coding scheme, meaning; ["mm", "UCUM", "millimeter"].
            units = units[0]
        if units not in ("mm", ""):
            raise InputError(f"{path} is in {units}; save the points in millimeters.")
        cells = point.get("position") or ["", "", ""]
        if point.get("positionStatus", "defined") not in ("defined", "preview"):
            cells = ["", "", ""]
        positions.append(np.array(_position(cells, f"{path}, control point {number}")) * flip)
        matrix = np.asarray(point.get("orientation") or np.diag(flip).ravel(), dtype=float)
        if matrix.size != 9:
            raise InputError(f"{path}, control point {number}: the orientation needs nine numbers; correct that point.")
        orientations.append(flip[:, None] * matrix.reshape(3, 3))
        labels.append("" if point.get("label") is None else str(point["label"]))
    return PointSet(np.array(positions).reshape(-1, 3), tuple(labels), np.array(orientations).reshape(-1, 3, 3), path)


def _flip_to_lps(system: Any, path: str) -> np.ndarray:
    """Signs that turn coordinates of ``system`` (name or Slicer's numeric code) into LPS."""
    name = {"0": "RAS", "1": "LPS", "2": "IJK"}.get(str(system).strip(), str(system).strip().upper())
    if name not in ("RAS", "LPS"):
        raise InputError(f"{path} has the coordinate system {name}; save the points in LPS or RAS.")
    return _FLIP if name == "RAS" else np.ones(3)


def _read_fcsv(text: str, path: str) -> PointSet:
    lines = text.splitlines()
    # Slicer takes a file that names no coordinate system as RAS.
    system = "RAS"
    names = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID".split(",")
    for line in lines:
        key, _, value = line.lstrip("#").partition("=")
        if line.startswith("#") and key.strip() == "CoordinateSystem":
            system = value.strip()
        if line.startswith("#") and key.strip() == "columns":
            names = [name.strip() for name in value.split(",")]
    if not {"x", "y", "z"} <= set(names):
        raise InputError(f"{path} names no x, y and z column; save the points from Slicer again.")
    flip = _flip_to_lps(system, path)
    axes = [names.index(axis) for axis in "xyz"]
    label = names.index("label") if "label" in names else None
    positions, labels = [], []
    rows = csv.reader(line for line in lines if line.strip() and not line.startswith("#"))
    for number, row in enumerate(rows, start=1):
        # Recent files append the position status after the named columns: 0 undefined, 1 preview, 2 defined, 3 missing.
        undefined = len(row) > len(names) and row[len(names)].strip() in ("0", "3")
        cells = ["", "", ""] if undefined else [row[axis].strip() if axis < len(row) else "" for axis in axes]
        positions.append(np.array(_position(cells, f"{path}, point {number}")) * flip)
        labels.append(row[label] if label is not None and label < len(row) else "")
    return PointSet(np.array(positions).reshape(-1, 3), tuple(labels), source=path)


def _read_elastix(text: str, path: str, grid: Grid | None) -> PointSet:
    words = text.split()
    # elastix takes a file without a first keyword as voxel indices.
    kind = words.pop(0).lower() if words and words[0].lower() in ("point", "index") else "index"
    try:
        count, numbers = int(words[0]), [float(word) for word in words[1:]]
    except (IndexError, ValueError) as error:
        raise InputError(f"{path} is no elastix point file; it needs 'point', a count, then x y z per line.") from error
    if len(numbers) != 3 * count:
        raise InputError(f"{path} announces {count} points but holds {len(numbers)} numbers; give three per point.")
    positions = np.array(numbers).reshape(-1, 3)
    if kind == "index":
        if grid is None:
            raise InputError(f"{path} holds voxel indices; start it with the word 'point' and give LPS mm.")
        positions = grid.voxels_to_points(positions)
    return PointSet(positions, source=path)


def _markups(points: PointSet, descriptions: Sequence[str] | None) -> dict:
    defaults = np.broadcast_to(np.diag(_FLIP), (len(points), 3, 3))
    orientations = defaults if points.orientations is None else points.orientations
    controls = []
    for row, (position, label) in enumerate(zip(points.positions, points.labels, strict=True)):
        known = bool(np.isfinite(position).all())
        controls.append(
            {
                "id": str(row + 1),
                "label": label,
                "description": descriptions[row] if descriptions else "",
                "associatedNodeID": "",
                # Slicer writes an empty text where there is no position.
                "position": [float(value) for value in position] if known else "",
                "orientation": [float(value) for value in orientations[row].ravel()],
                "selected": True,
                "locked": False,
                "visibility": True,
                "positionStatus": "defined" if known else "undefined",
            }
        )
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": controls,
    }
    return {"@schema": _SCHEMA, "markups": [markup]}
