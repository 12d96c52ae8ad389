"""ITK's transform files read without ITK, which ends the process where a file is damaged or lacks numbers.

A transform of a file is checked against the counts that its class has before ITK is given it.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError, refusing
from . import hdf5

# How SimpleITK makes a class, how many numbers it has, and how many fixed ones versions of ITK wrote. ITK reads on
# behind shorter lists.
_LINEAR: dict[str, tuple[Callable[[], sitk.Transform], int, tuple[int, ...]]] = {
    "AffineTransform": (lambda: sitk.AffineTransform(3), 12, (3,)),
    "ComposeScaleSkewVersor3DTransform": (sitk.ComposeScaleSkewVersor3DTransform, 12, (3,)),
    "Euler3DTransform": (sitk.Euler3DTransform, 6, (3, 4)),
    "IdentityTransform": (lambda: sitk.Transform(3, sitk.sitkIdentity), 0, (0,)),
    "QuaternionRigidTransform": (lambda: sitk.Transform(3, sitk.sitkQuaternionRigid), 7, (3,)),
    "ScaleLogarithmicTransform": (lambda: sitk.Transform(3, sitk.sitkScaleLogarithmic), 3, (3,)),
    "ScaleSkewVersor3DTransform": (sitk.ScaleSkewVersor3DTransform, 15, (3,)),
    "ScaleTransform": (lambda: sitk.ScaleTransform(3), 3, (3,)),
    "ScaleVersor3DTransform": (sitk.ScaleVersor3DTransform, 9, (3,)),
    "Similarity3DTransform": (sitk.Similarity3DTransform, 7, (3,)),
    "TranslationTransform": (lambda: sitk.TranslationTransform(3), 3, (0,)),
    "VersorRigid3DTransform": (sitk.VersorRigid3DTransform, 6, (3,)),
    "VersorTransform": (sitk.VersorTransform, 3, (3,)),
}
# Written by ANTs; ITK's own type of it is hidden by SimpleITK.
_SAME = {"MatrixOffsetTransformBase": "AffineTransform"}
_FIELD = re.compile(r"(?:(?:BSpline|Gaussian)SmoothingOnUpdate)?DisplacementFieldTransform")
_SPLINE, _COMPOSITE, _INVERSE = "BSplineTransform", "CompositeTransform", "Inverse"
_NAME = re.compile(r"([A-Z]\w*Transform\w*?)_(?:double|float)_(\d+)_(\d+)(?:_(\d+))?")
_TEXT_MARK, _MINC_MARK = b"#Insight Transform File", b"MNI Transform File"
_MATLAB_HEADER = struct.Struct("<5i")
_NUMBER, _MOST_MATRIX = re.compile(rb"[-+]?[0-9.]+([eE][-+]?[0-9]+)?"), 2000
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Record:
    """A transform as a file holds it.

    Attributes:
        name: ITK's class, such as "AffineTransform_double_3_3".
        parameters, fixed: (n,) float64, as ITK orders them.
    """

    name: str
    parameters: np.ndarray
    fixed: np.ndarray


def read_itk(path: str | os.PathLike) -> tuple[sitk.Transform, tuple[bool, ...]]:
    """Read an ITK transform file, with Slicer's ``Inverse...Transform`` classes.

    Returns:
        The transform, and for each of its parts (the parts of a composite in its order) whether the file means the
        part's inverse.

    Raises:
        InputError: unreadable.
    """
    location = Path(path)
    text = location.name.lower().endswith((".txt", ".tfm"))
    hint = " (ITK's text files begin with '#Insight Transform File V1.0')" if text else ""
    with refusing(f"{path} could not be read as a transform; give an ITK .h5, .tfm or .txt file{hint}."):
        content = location.read_bytes()
        _refuse_others(content, path)
        records = _records(content, path)
        if not records:
            raise ValueError("no transform")
        composite = records[0].name.startswith(_COMPOSITE)
        parts = records[1:] if composite else records
        if any(record.name.startswith((_COMPOSITE, _INVERSE + _COMPOSITE)) for record in parts):
            raise InputError(f"{path} nests transforms; harden it in 3D Slicer and save it again.")
        if len(parts) != 1 and not composite:
            raise InputError(f"{path} holds {len(parts)} transforms that are no chain; save the one that is meant.")
        inverses = tuple(record.name.startswith(_INVERSE) for record in parts)
        made = [_made(record, path) for record in parts]
    return sitk.CompositeTransform(made) if composite else made[0], inverses


def _refuse_others(content: bytes, path: str | os.PathLike) -> None:
    """Refuse by name what other programs call a transform and what does not say where its millimeters lie."""
    if content.startswith(_MINC_MARK):
        raise InputError(
            f"{path} is a MINC transform, whose millimeters are RAS or LPS depending on the program that wrote it; "
            "convert it to an ITK .tfm or .h5 file."
        )
    rows = [line.split() for line in content[:_MOST_MATRIX].splitlines() if line.strip()]
    if len(rows) == 4 and all(len(row) == 4 and all(map(_NUMBER.fullmatch, row)) for row in rows):
        raise InputError(
            f"{path} holds the 16 numbers of a matrix (as FSL writes it), which do not say in which coordinates; "
            "convert it to an ITK .tfm or .h5 file."
        )


def read_records(path: str | os.PathLike) -> list[Record]:
    """What a transform file of ITK holds, in its order.

    Raises:
        InputError: unreadable.
    """
    with refusing(f"{path} could not be read as a transform."):
        return _records(Path(path).read_bytes(), path)


def _records(content: bytes, path: str | os.PathLike) -> list[Record]:
    try:
        if content.startswith(hdf5.SIGNATURE):
            return _from_hdf5(hdf5.read_datasets(content))
        if content.startswith(_TEXT_MARK):
            return _from_text(content)
        if Path(path).suffix.lower() == ".mat":
            return _from_matlab(content)
    except (ValueError, KeyError, struct.error) as error:
        raise InputError(f"{path} could not be read as a transform: it is damaged; copy or save it again.") from error
    raise ValueError("no transform file")


def _from_hdf5(datasets: dict[str, hdf5.Values]) -> list[Record]:
    numbers = sorted({int(name.split("/")[1]) for name in datasets if name.startswith("TransformGroup/")})
    if numbers != list(range(len(numbers))):
        raise ValueError("a transform is missing")
    records = []
    for number in numbers:
        group = f"TransformGroup/{number}/"
        (name,) = datasets[group + "TransformType"]
        values = []
        for kind in ("Parameters", "FixedParameters"):
            # ITK misspelt the name before its version 4.8.
            found = datasets.get(f"{group}Transform{kind}", datasets.get(f"{group}Tranform{kind}"))
            if found is None and not name.startswith((_COMPOSITE.encode(), (_INVERSE + _COMPOSITE).encode())):
                raise ValueError("numbers are missing")
            values.append(np.asarray([] if found is None else found, np.float64).ravel())
        records.append(Record(name.decode(), *values))
    return records


def _from_text(content: bytes) -> list[Record]:
    if _CONTROL.search(content):
        raise ValueError("bytes that are no text")
    records: list[dict[str, str]] = []
    for line in content.decode().splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        tag, mark, value = line.partition(":")
        if not mark or not (records or tag == "Transform"):
            raise ValueError("a line without meaning")
        if tag == "Transform":
            records.append({"Transform": value.strip()})
        elif records[-1].setdefault(tag, value) != value:
            raise ValueError("numbers are given twice")
    return [
        Record(record["Transform"], *(_numbers(record.get(kind, "")) for kind in ("Parameters", "FixedParameters")))
        for record in records
    ]


def _numbers(text: str) -> np.ndarray:
    return np.array(text.split(), np.float64)


def _from_matlab(content: bytes) -> list[Record]:
    """MATLAB 4 matrices as ANTs writes them: the class with its numbers, then "fixed"."""
    found: list[tuple[str, np.ndarray]] = []
    at = 0
    while at < len(content):
        kind, rows, columns, imaginary, length = _MATLAB_HEADER.unpack_from(content, at)
        if kind not in (0, 10) or imaginary or min(rows, columns, length) < 0:
            raise ValueError("an unknown matrix")
        name = content[at + 20 : at + 20 + length].rstrip(b"\0").decode("ascii")
        at += 20 + length
        form = np.dtype("<f8" if kind == 0 else "<f4")
        found.append((name, np.frombuffer(content, form, rows * columns, at).astype(np.float64)))
        at += rows * columns * form.itemsize
    (name, parameters), (mark, fixed) = found
    if mark != "fixed" or name.startswith(_COMPOSITE):
        raise ValueError("no transform")
    return [Record(name, parameters, fixed)]


def _made(record: Record, path: str | os.PathLike) -> sitk.Transform:
    """The transform that a record stands for; of an inverse class, the transform whose inverse is meant."""
    match = _NAME.fullmatch(record.name.removeprefix(_INVERSE))
    name = _SAME.get(match[1], match[1]) if match else ""
    known = name in _LINEAR or name == _SPLINE or bool(_FIELD.fullmatch(name))
    if match is None or (not known and match[2] == "3"):
        raise InputError(
            f"{path} holds a transform of the class {record.name[:60]!r}, which is not read; turn it into a "
            "displacement field."
        )
    if match[2] != "3" or match[3] != "3":
        raise InputError(f"{path}: the transform is not 3D; give a 3D transform.")
    if name in _LINEAR:
        return _linear(name, record, path)
    grid = _sampling(record, path)
    if name == _SPLINE:
        order = int(match[4] or 3)
        if order not in (1, 2, 3) or min(grid[0]) <= order:
            raise _damaged(path)
        spline = sitk.BSplineTransform(3, order)
        spline.SetFixedParameters(record.fixed.tolist())
        spline.SetParameters(record.parameters.tolist())
        return spline
    size, origin, spacing, direction = grid
    image = sitk.GetImageFromArray(record.parameters.reshape(*size[::-1], 3), isVector=True)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    return sitk.DisplacementFieldTransform(image)


def _linear(name: str, record: Record, path: str | os.PathLike) -> sitk.Transform:
    make, count, fixed = _LINEAR[name]
    if len(record.parameters) != count or len(record.fixed) not in fixed:
        raise _damaged(path)
    if not (np.isfinite(record.parameters).all() and np.isfinite(record.fixed).all()):
        raise InputError(f"{path} could not be read as a transform: it holds numbers that are not finite.")
    made = make()
    made.SetFixedParameters(record.fixed.tolist())
    made.SetParameters(record.parameters.tolist())
    if name == "AffineTransform":
        return made
    # SimpleITK knows some of the classes only halfway, so all become affine ones.
    start = np.array(made.TransformPoint((0.0, 0.0, 0.0)))
    columns = [made.TransformPoint(tuple(unit)) - start for unit in np.eye(3)]
    return sitk.AffineTransform(np.stack(columns, 1).ravel().tolist(), start.tolist())


def _sampling(record: Record, path: str | os.PathLike) -> tuple[list[int], list[float], list[float], list[float]]:
    """Size, origin (LPS mm), spacing (mm) and direction of the samples of a field or a spline."""
    fixed = record.fixed.tolist()
    if len(fixed) != 18 or not np.isfinite(record.fixed).all():
        raise _damaged(path)
    size = [int(number) for number in fixed[:3]]
    origin, spacing, direction = fixed[3:6], fixed[6:9], fixed[9:]
    if (
        min(size) < 1
        or size != fixed[:3]
        or 3 * math.prod(size) != len(record.parameters)
        or min(spacing) <= 0
        or abs(np.linalg.det(np.reshape(direction, (3, 3)))) < 1e-6
    ):
        raise _damaged(path)
    return size, origin, spacing, direction


def _damaged(path: str | os.PathLike) -> InputError:
    return InputError(
        f"{path} could not be read as a transform: its numbers do not fit its class, so it is damaged; copy or save "
        "it again."
    )
