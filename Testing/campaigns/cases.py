"""The cases of the fuzz campaign: damaged files by number, and the readers that must cope with them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from . import seeds
from .damage import damaged_bytes, damaged_nifti, damaged_series, damaged_text, damaged_values, pick

Maker = Callable[[np.random.Generator, Path], Path]


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _nifti(random: np.random.Generator, folder: Path, **options: Any) -> Path:
    content = seeds.image_bytes(".nii.gz", **options)
    zipped = random.random() < 0.5
    if random.random() < 0.7:
        content = damaged_nifti(random, content)
    else:
        content = damaged_bytes(random, content, 352)
    if zipped:
        content = gzip.compress(content, 1)
        content = damaged_bytes(random, content) if random.random() < 0.3 else content
    return _write(folder / ("image.nii.gz" if zipped else "image.nii"), content)


def _with_text_header(random: np.random.Generator, folder: Path, ending: str, **options: Any) -> Path:
    """NRRD and MetaImage: a text header, then the voxels."""
    content = seeds.image_bytes(ending, compressed=random.random() < 0.5, **options)
    mark = b"\n\n" if ending == ".nrrd" else b"LOCAL\n"
    header = content.index(mark) + len(mark)
    damaged = damaged_text(random, content, header) if random.random() < 0.7 else damaged_bytes(random, content, header)
    return _write(folder / f"image{ending}", damaged)


def image_file(random: np.random.Generator, folder: Path, **options: Any) -> Path:
    """A damaged NIfTI, NRRD or MetaImage."""
    ending = pick(random, (".nii", ".nrrd", ".mha"))
    return (
        _nifti(random, folder, **options) if ending == ".nii" else _with_text_header(random, folder, ending, **options)
    )


def dicom_folder(random: np.random.Generator, folder: Path) -> Path:
    """A damaged DICOM series."""
    target = folder / "series"
    target.mkdir()
    slices = seeds.dicom_slices()
    fields = random.random() < 0.7
    if fields:
        slices = damaged_series(random, slices)
    spoiled = int(random.integers(len(slices)))
    for number, elements in enumerate(slices):
        content = seeds.dicom_bytes(elements)
        if not fields and (number == spoiled or random.random() < 0.2):
            content = damaged_bytes(random, content, 700)
        _write(target / f"slice{number}.dcm", content)
    return target


def label_map(random: np.random.Generator, folder: Path) -> Path:
    """A damaged label map, or a sound one with odd labels."""
    if random.random() < 0.6:
        return image_file(random, folder, labels=True)
    kinds = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64)
    kind = np.dtype(pick(random, kinds))
    shape = tuple(int(n) for n in random.integers(1, 14, int(random.integers(2, 5))))
    values = random.choice(np.array([0.0, 1.0, 2.0, 3.0]), shape)
    odd: tuple[float, ...] = (-1.0, 1.5, 2.0**24 + 1, 2.0**31, 2.0**53, *((np.nan, np.inf) if kind.kind == "f" else ()))
    for _ in range(int(random.integers(3))):
        values[tuple(int(random.integers(n)) for n in shape)] = pick(random, odd)
    with np.errstate(all="ignore"):
        image = sitk.GetImageFromArray(values.astype(kind), isVector=False)
    path = folder / f"labels{pick(random, ('.nrrd', '.mha'))}"
    sitk.WriteImage(image, str(path))
    return path


def points_file(random: np.random.Generator, folder: Path) -> Path:
    """A damaged point list."""
    ending = pick(random, (*seeds.POINTS, ".mrk.json"))
    if ending == ".mrk.json":
        if random.random() < 0.7:
            return _write(folder / f"p{ending}", seeds.json_bytes(damaged_values(random, seeds.markups())))
        content = seeds.json_bytes(seeds.markups())
    else:
        content = seeds.POINTS[ending].encode()
    return _write(folder / f"p{ending}", (damaged_text if random.random() < 0.7 else damaged_bytes)(random, content))


def lesion_file(random: np.random.Generator, folder: Path) -> Path:
    """A damaged list of lesions."""
    if random.random() < 0.4:
        name = "l.mrk.json"
        content = seeds.markups()
    else:
        name, content = "l.json", seeds.lesions()  # type: ignore[assignment]
        _write(folder / "mask.nii.gz", gzip.compress(seeds.image_bytes(".nii.gz", labels=True)))
    if random.random() < 0.7:
        return _write(folder / name, seeds.json_bytes(damaged_values(random, content)))
    return _write(folder / name, damaged_text(random, seeds.json_bytes(content)))


def transform_file(random: np.random.Generator, folder: Path) -> Path:
    """A damaged transform: ITK's formats, or a field as an image."""
    ending = pick(random, (".h5", ".tfm", ".txt", "field"))
    if ending == "field":
        return image_file(random, folder, components=3)
    kind = pick(random, ("affine", "composite", "bspline"))
    content = seeds.transform_bytes(ending, kind)
    if ending == ".h5" or random.random() < 0.3:
        return _write(folder / f"t{ending}", damaged_bytes(random, content, len(content) // 2))
    return _write(folder / f"t{ending}", damaged_text(random, content))


def checkpoint_file(random: np.random.Generator, folder: Path) -> Path:
    """A damaged weights file."""
    kind = pick(random, ("sam", "masr", "featcnn", "semantic"))
    content: Any = seeds.checkpoint(kind)
    if random.random() < 0.6:
        data = seeds.checkpoint_bytes(damaged_values(random, content))
    else:
        data = damaged_bytes(random, seeds.checkpoint_bytes(content), 4000)
    return _write(folder / f"{kind}.pt", data)


def _use_grid(grid: Any) -> None:
    """What every command asks of a grid that was read."""
    grid.corners()
    grid.points_to_voxels(np.zeros((1, 3)))


def _read_image(path: Path) -> None:
    from samconvex.io.images import read_grid, read_volume, write_volume

    errors: list[Exception] = []
    for attempt in (lambda: read_grid(path), lambda: read_volume(path, slices=True)):
        try:
            attempt()
        except ValueError as error:
            errors.append(error)
    volume = read_volume(path)
    _use_grid(volume.grid)
    for ending in (".nii.gz", ".nrrd"):
        write_volume(volume, path.parent / f"again{ending}")


def _read_series(path: Path) -> None:
    from samconvex.io.images import read_volume, write_volume

    volume = read_volume(path)
    _use_grid(volume.grid)
    write_volume(volume, path.parent / "again.nii.gz")


def _read_labels(path: Path) -> None:
    from samconvex.io.images import read_labels, read_mask
    from samconvex.lesions.files import read_lesions

    _use_grid(read_labels(path).grid)
    read_mask(path)
    read_lesions(path)


def _read_points(path: Path) -> None:
    from samconvex.io.points import read_points, write_points
    from samconvex.space.grid import Grid

    points = read_points(path, Grid.from_sitk(seeds.image()))
    for name in ("again.csv", "again.mrk.json"):
        write_points(points, path.parent / name)
        read_points(path.parent / name)


def _read_lesions(path: Path) -> None:
    from samconvex.lesions.files import read_lesions

    read_lesions(path)


def _read_transform(path: Path) -> None:
    from samconvex.space.grid import Grid
    from samconvex.space.transforms import AffineTransform, Transform

    transform = Transform.load(path, Grid.from_sitk(seeds.image()))
    transform.map_points(np.zeros((2, 3)))
    for part in transform.parts:
        if isinstance(part, AffineTransform):
            part.inverse()
    transform.save(path.parent / "again.h5")


def _read_checkpoint(path: Path) -> None:
    from samconvex.weights.models import FAMILIES, family_of, load_network, load_sam_file

    family = family_of(path)
    kind = next((known.kind for known in FAMILIES if known.name == family), None)
    if kind is None:
        load_sam_file(path)
    else:
        load_network(kind, path)


KINDS: dict[str, tuple[Maker, Callable[[Path], None]]] = {
    "image": (image_file, _read_image),
    "dicom": (dicom_folder, _read_series),
    "labels": (label_map, _read_labels),
    "points": (points_file, _read_points),
    "lesions": (lesion_file, _read_lesions),
    "transform": (transform_file, _read_transform),
    "checkpoint": (checkpoint_file, _read_checkpoint),
}
# Images have the most ways to be odd; of ten cases in a row, three are images.
ORDER = ("image", "dicom", "labels", "points", "transform", "image", "checkpoint", "lesions", "transform", "image")


def make_case(seed: int, number: int, folder: Path) -> tuple[str, Path]:
    """Kind and path of case ``number``, written into the empty ``folder``; the same for the same seed."""
    kind = ORDER[number % len(ORDER)]
    return kind, KINDS[kind][0](np.random.default_rng([seed, number]), folder)
