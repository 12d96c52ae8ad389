"""Training cases: the CTs of a folder at one isotropic spacing, with body points and label shapes, in memory."""

from __future__ import annotations

import fnmatch
import hashlib
import logging
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...anatomy.body import body_mask
from ...errors import InputError, SamConvexError
from ...io.files import replaced
from ...io.images import read_labels, read_volume
from ...space.grid import Grid
from ...space.volume import Volume, resample
from .landmarks import LabelShape, describe_label

LOGGER = logging.getLogger(__name__)
AIR = -1000
MAXIMUM_HU = 3000
MAXIMUM_VOXELS = 24_000_000
IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
LABEL_ENDINGS = ("_seg", "_labels", "_label", "-labels", "-label")
_CACHE_VERSION = 2
T = TypeVar("T")
Found = tuple[Path, Path | None]


@dataclass
class Case:
    """One CT ready for sampling.

    Attributes:
        hu: int16 (1, 1, D, H, W) at the working spacing, identity direction.
        masked: the same with everything outside the body set to air.
        body: uint8 (D, H, W).
        points: (n, 3) float voxel coordinates (z, y, x) spread over the body.
        group: the folder; labels of one group mean the same.
        labels: shapes by label value.

    A case of one slice is a radiograph (see radiographs.py): ``hu`` and ``masked`` are then its float pixels, and
    ``points`` and ``labels`` the projections of those of its CT, row by row the same in all radiographs of a patient.
    """

    name: str
    group: str
    hu: Tensor
    masked: Tensor
    body: Tensor
    points: Tensor
    grid: Grid
    labels: dict[int, LabelShape] = field(default_factory=dict)

    @property
    def planar(self) -> bool:
        return self.body.shape[0] == 1

    @property
    def patient(self) -> str:
        """The name without the number of the radiograph."""
        return self.name.split("#")[0]


def case_name(path: Path) -> str:
    """``hn001`` for ``hn001_ct.nii.gz``."""
    name = path.name
    for ending in IMAGE_ENDINGS:
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    return name[:-3] if name.endswith(("_ct", "_mr")) else name


def find_cases(folder: Path, include: list[str], exclude: list[str]) -> list[Found]:
    """Images under ``folder``, sorted, with their label maps: ``NAME_seg`` or ``NAME_labels`` next to ``NAME_ct``.

    Args:
        include: patterns of paths relative to the folder; empty takes every image.
        exclude: patterns of case names.

    Raises:
        InputError: no folder, or no image left.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; --data needs a folder of CT images.")
    files = sorted(p for p in folder.rglob("*") if p.name.lower().endswith(IMAGE_ENDINGS))
    stems = {p: p.name[: -len(next(e for e in IMAGE_ENDINGS if p.name.lower().endswith(e)))] for p in files}
    labels = {(p.parent, stem): p for p, stem in stems.items() if stem.endswith(LABEL_ENDINGS)}
    found: list[Found] = []
    for path in files:
        if (path.parent, stems[path]) in labels:
            continue
        relative = path.relative_to(folder).as_posix()
        if include and not any(fnmatch.fnmatch(relative, pattern) for pattern in include):
            continue
        name = case_name(path)
        if any(fnmatch.fnmatch(name, pattern) for pattern in exclude):
            continue
        candidates = (labels.get((path.parent, name + ending)) for ending in LABEL_ENDINGS)
        found.append((path, next((c for c in candidates if c is not None), None)))
    if not found:
        raise InputError(f"{folder} holds no image that the configuration lets in; look at 'include' and 'exclude'.")
    return found


def load_each(
    found: Sequence[Found], build: Callable[[Path, Path | None], T], progress: Callable[[float, str], None]
) -> list[T]:
    """What ``build`` makes of every image and its label map, on all processors, in their order.

    Those that it refuses are left out with a log line.
    """

    def built(entry: Found) -> T | SamConvexError:
        try:
            return build(*entry)
        except SamConvexError as error:
            return error

    results: list[T] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for number, result in enumerate(pool.map(built, found)):
                if isinstance(result, SamConvexError):
                    LOGGER.warning("left out: %s", result)
                else:
                    results.append(result)
                progress((number + 1) / len(found), found[number][0].name)
        finally:
            pool.shutdown(cancel_futures=True)
    return results


def make_case(
    volume: Volume, labels: Volume | None, *, name: str, group: str, spacing: float, tubular: tuple[int, ...] = ()
) -> Case:
    """A case from a CT and an optional label map in any geometry.

    Raises:
        InputError: no body in the image.
    """
    grid = volume.grid.canonical(spacing)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    hu = resample(volume, grid).tensor.clamp(AIR, MAXIMUM_HU).round().to(torch.int16)
    body = resample(body_mask(volume), grid, mode="nearest").tensor.to(torch.uint8)
    masked = hu.clone()
    near = F.max_pool3d(body.float(), 3, 1, 1) > 0  # keep the skin
    masked[~near] = AIR
    # Crop to the body: views look at nothing else.
    where = torch.nonzero(near[0, 0])
    low = (where.amin(0) - 4).clamp(min=0)
    high = torch.minimum(where.amax(0) + 5, torch.tensor(hu.shape[2:]))
    window = (..., slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    hu, masked, body = (t[window].contiguous() for t in (hu, masked, body))
    sizes = [int(n) for n in (high - low).flip(0)]
    grid = grid.cropped([int(n) for n in low.flip(0)], sizes)
    inside = torch.nonzero(body[0, 0]).numpy()
    chosen = rng.choice(len(inside), min(len(inside), 40_000), replace=False)
    points = torch.from_numpy(inside[chosen] + rng.uniform(-0.5, 0.5, (len(chosen), 3))).float()
    shapes: dict[int, LabelShape] = {}
    if labels is not None:
        array = labels.tensor[0, 0].numpy()
        for value in np.unique(array):
            if value <= 0:
                continue
            index = np.argwhere(array == value)
            lps = labels.grid.voxels_to_points(index[:, ::-1].astype(float))
            voxels = grid.points_to_voxels(lps)[:, ::-1]
            cut = bool((index[:, 0] == 0).any() or (index[:, 0] == array.shape[0] - 1).any())
            shape = describe_label(np.ascontiguousarray(voxels), not cut, int(value) in tubular, rng)
            if shape is not None:
                shapes[int(value)] = shape
    return Case(name, group, hu, masked, body[0, 0], points, grid, shapes)


def _cached(
    path: Path,
    labels: Path | None,
    spacing: float,
    tubular: tuple[int, ...],
    cache: Path | None,
    build: Callable[[], Case],
) -> Case:
    if cache is None:
        return build()
    stamp = [str(p) + str(p.stat().st_size) + str(p.stat().st_mtime_ns) for p in (path, labels) if p is not None]
    key = hashlib.sha256("|".join([*stamp, str(spacing), str(tubular), str(_CACHE_VERSION)]).encode()).hexdigest()[:24]
    file = cache / f"{key}.npz"
    if file.exists():
        with np.load(file, allow_pickle=False) as data:
            (nx, ny, nz), (sx, sy, sz), (ox, oy, oz) = (data[key].tolist() for key in ("size", "spacing", "origin"))
            grid = Grid((nx, ny, nz), (sx, sy, sz), (ox, oy, oz))
            shapes = {}
            for value in data["label_values"]:
                axis = data[f"axis{value}"]
                shapes[int(value)] = LabelShape(
                    data[f"centroid{value}"],
                    data[f"covariance{value}"],
                    data[f"points{value}"],
                    data[f"extremes{value}"],
                    bool(data[f"whole{value}"]),
                    axis if len(axis) else None,
                )
            hu, masked, body, points = (torch.from_numpy(data[k]) for k in ("hu", "masked", "body", "points"))
            return Case(case_name(path), path.parent.name, hu, masked, body, points, grid, shapes)
    case = build()
    arrays: dict[str, np.ndarray] = {
        "hu": case.hu.numpy(),
        "masked": case.masked.numpy(),
        "body": case.body.numpy(),
        "points": case.points.numpy(),
        "size": np.array(case.grid.size),
        "spacing": np.array(case.grid.spacing),
        "origin": np.array(case.grid.origin),
        "label_values": np.array(sorted(case.labels), dtype=int),
    }
    for value, shape in case.labels.items():
        arrays.update(
            {
                f"centroid{value}": shape.centroid,
                f"covariance{value}": shape.covariance,
                f"points{value}": shape.points,
                f"extremes{value}": shape.extremes,
                f"whole{value}": np.array(shape.whole),
                f"axis{value}": shape.axis if shape.axis is not None else np.zeros((0, 3)),
            }
        )
    cache.mkdir(parents=True, exist_ok=True)
    # A stream: given a path, numpy would append ".npz".
    with replaced(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    return case


def load_cases(
    folder: Path,
    *,
    spacing: float,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    tubular: Sequence[int] | Mapping[str, Sequence[int]] = (),
    cache: Path | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> list[Case]:
    """Every usable CT of a folder; images without a body or that are no CT are left out with a log line.

    Args:
        tubular: label values whose ends are arbitrary, the same in every group or group by group.

    Raises:
        InputError: nothing usable.
    """
    found = find_cases(folder, include or [], exclude or [])

    def build(path: Path, label_path: Path | None) -> Case:
        of_group = tubular.get(path.parent.name, ()) if isinstance(tubular, Mapping) else tubular
        ends = tuple(int(value) for value in of_group)

        def made() -> Case:
            volume = read_volume(path)
            if volume.modality != "ct":
                raise InputError(f"{path} is no CT in Hounsfield units.")
            if volume.grid.canonical(spacing).voxel_count > MAXIMUM_VOXELS:
                raise InputError(f"{path} is larger than {MAXIMUM_VOXELS} voxels at {spacing} mm; crop it.")
            labels = read_labels(label_path) if label_path is not None else None
            name, group = case_name(path), path.parent.name
            return make_case(volume, labels, name=name, group=group, spacing=spacing, tubular=ends)

        return _cached(path, label_path, spacing, ends, cache, made)

    cases = load_each(found, build, progress or (lambda fraction, message: None))
    if not cases:
        raise InputError(f"{folder} holds no usable CT.")
    return cases
