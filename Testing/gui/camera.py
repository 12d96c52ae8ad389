"""What both picture scripts share: the camera, and the demo's pair at a resolution that pictures need."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class Camera:
    """Takes numbered-by-name pictures of the window, the part of the panel in question in view."""

    def __init__(self, window, folder):
        self._window, self.folder = window, folder

    def take(self, name, show=None):
        from harness.pictures import photograph, settle
        from PySide6 import QtWidgets

        settle(0.2)
        if show is not None:
            ancestor = show
            while ancestor is not None and not isinstance(ancestor, QtWidgets.QScrollArea):
                ancestor = ancestor.parent()
            if ancestor is not None:
                ancestor.ensureWidgetVisible(show, 0, 40)
        settle(0.3)
        photograph(self._window, self.folder / f"{name}.png", scale=0.8)
        print(f"{self.folder / name}.png", flush=True)


def coarser(pair, spacing):
    """The pair at another resolution: a picture needs no 0.7 mm, and a run then takes seconds instead of minutes."""
    from dataclasses import replace

    from samconvex.space.volume import resample

    grids = [
        volume.grid.with_spacing([max(spacing, s) for s in volume.grid.spacing]) for volume in (pair.fixed, pair.moving)
    ]
    return replace(
        pair,
        fixed=resample(pair.fixed, grids[0]),
        moving=resample(pair.moving, grids[1]),
        lungs=tuple(resample(labels, grid, mode="nearest") for labels, grid in zip(pair.lungs, grids, strict=True)),
        anatomy=resample(pair.anatomy, grids[1], mode="nearest"),
    )
