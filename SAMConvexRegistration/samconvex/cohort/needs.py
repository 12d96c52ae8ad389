"""What the jobs will need of this machine, from the headers of their images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError, SamConvexError
from ..io.images import read_grid
from ..registration.forecast import forecast
from ..settings.presets import PRESETS
from ..space.grid import Grid
from .commands import REGISTER, Row, options_of


def largest_gib(rows: Sequence[Row]) -> float:
    """Forecast of the memory of the largest job, GiB."""
    known: dict[str, Grid | None] = {}
    return max((_forecast_gib(row, known) for row in rows), default=0.0)


def gpus(rows: Sequence[Row]) -> int:
    """GPUs of this machine that rows may use."""
    if all(row.values.get("device") == "cpu" for row in rows):
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _forecast_gib(row: Row, known: dict[str, Grid | None]) -> float:
    """What the row's job will hold; 0 where its images or options cannot be read, which the check will tell."""
    try:
        settings = PRESETS["affine"]
        if row.command == REGISTER:
            settings = options_of(row).settings()
        grids = [_grid(path, known) for _, kind, path in row.files() if kind in ("image", "slice", "volume", "grid")]
    except InputError:
        return 0.0
    found = sorted((grid for grid in grids if grid is not None), key=lambda grid: grid.voxel_count)
    return forecast(settings, found[-1], found[-2 if len(found) > 1 else -1]).memory_gib if found else 0.0


def _grid(path: str, known: dict[str, Grid | None]) -> Grid | None:
    """From the header alone; of a DICOM folder, a usual grid of so many slices."""
    if path not in known:
        try:
            if Path(path).is_dir():
                slices = sum(1 for _ in Path(path).iterdir())
                known[path] = Grid((512, 512, max(slices, 1)), (0.8, 0.8, 2.0))
            else:
                known[path] = read_grid(path)
        except SamConvexError:
            known[path] = None
    return known[path]
