"""report.png: what a registration did, on one page for a clinician.

Rows are the three planes through the middle of the fixed body; columns show both images before and after, how they
agree, and where tissue was moved, stretched or squeezed. Drawn with numpy; SimpleITK writes the PNG.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import SimpleITK as sitk
import torch

from .anatomy.body import body_mask
from .errors import InputError
from .io.images import write_image
from .space.field import DisplacementField
from .space.grid import Grid
from .space.sampling import sample
from .space.transforms import AffineTransform, Transform
from .space.volume import Volume
from .stroke_font import draw_text, fit_text, text_width

BACKGROUND = (21, 23, 28)
PANEL = (8, 9, 11)
TEXT = (232, 234, 238)
MUTED = (150, 156, 168)
ACCENT = (255, 196, 84)
GOOD, POOR = (120, 214, 150), (255, 130, 110)
FIXED_COLOR, MOVING_COLOR = (255, 214, 70), (70, 200, 255)
COLUMN, GUTTER, MARGIN = 262, 10, 28
GRID_STEP_MM = 15.0
# (plane, voxel axes across and down in LPS, letters at left, right, top, bottom); heads are up, the patient's right
# is at the left of the page, as radiologists read.
PLANES = (
    ("Axial", (0, 1), (1, 1), "RLAP"),
    ("Coronal", (0, 2), (1, -1), "RLSI"),
    ("Sagittal", (1, 2), (1, -1), "APSI"),
)


class HasTransformAndReport(Protocol):
    """What the picture needs of a registration's result."""

    @property
    def fixed_to_moving(self) -> Transform: ...

    @property
    def report(self) -> Mapping[str, Any]: ...


def write_report_picture(
    path: str | os.PathLike,
    fixed: Volume,
    moving: Volume,
    result: HasTransformAndReport,
    warped: Volume | None = None,
    fixed_labels: Volume | None = None,
    warped_labels: Volume | None = None,
) -> None:
    """Write the picture as PNG (or another format SimpleITK writes).

    Args:
        result: its ``fixed_to_moving`` transform is drawn, its ``report`` gives the figures.
        warped: the registered moving image, where it exists already; else only the slices shown are computed.
        fixed_labels, warped_labels: label maps whose outlines are drawn, the second in the fixed space.

    Raises:
        InputError: unknown file ending. ResourceError: the disk refused.
    """
    write_picture(render_report(fixed, moving, result, warped, fixed_labels, warped_labels), path)


def write_picture(picture: np.ndarray, path: str | os.PathLike) -> None:
    """Write an (H, W, 3) uint8 picture."""
    write_image(sitk.GetImageFromArray(np.ascontiguousarray(picture), isVector=True), path)


def render_report(
    fixed: Volume,
    moving: Volume,
    result: HasTransformAndReport,
    warped: Volume | None = None,
    fixed_labels: Volume | None = None,
    warped_labels: Volume | None = None,
) -> np.ndarray:
    """The picture as an (H, W, 3) uint8 array; arguments as :func:`write_report_picture`."""
    transform = result.fixed_to_moving
    body = _body(fixed)
    slices = [_slice(plane) for plane in _planes(fixed, body)]
    start, start_title = _starting_position(moving, body, slices)
    field = _deformation(fixed, transform)
    gray_fixed, gray_moving = _window(fixed), _window(moving)

    titles = [
        ("Fixed image", "stays as it is"),
        ("Moving image, before", start_title),
        ("Moving image, registered", "aligned and deformed"),
        ("Both, before", "green: fixed, pink: moving"),
        ("Both, after", "gray where they agree"),
        ("Checkerboard, after", "edges should continue"),
        ("Deformation", f"{GRID_STEP_MM:g} mm grid, alignment removed"),
        ("Local volume", "moving relative to fixed"),
    ]
    rows: list[list[np.ndarray]] = []
    for cut in slices:
        a = gray_fixed(_sampled(fixed, cut))
        before = gray_moving(_sampled(moving, cut, start))
        after = gray_moving(_sampled(warped, cut) if warped is not None else _sampled(moving, cut, transform))
        panels = [_rgb(a), _rgb(before), _rgb(after), _overlay(a, before), _overlay(a, after)]
        panels += [_checkerboard(a, after, cut.mm_per_pixel), *_deformation_panels(a, field, cut, body)]
        if fixed_labels is not None:
            outline = _outlines(fixed_labels, cut)
            for index in (0, 2):
                _stain(panels[index], outline, FIXED_COLOR)
        if warped_labels is not None:
            _stain(panels[2], _outlines(warped_labels, cut), MOVING_COLOR)
        rows.append(panels)
    outlined = (fixed_labels is not None, warped_labels is not None)
    return _page(rows, slices, titles, fixed, moving, result.report, outlined)


# --- slices ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Plane:
    name: str
    letters: str
    across: int
    down: int
    signs: tuple[int, int]
    low: np.ndarray
    high: np.ndarray
    position: np.ndarray


@dataclass(frozen=True)
class _Slice:
    """Pixels of one plane: LPS positions relative to ``reference``, shape (1, rows, columns, 3)."""

    plane: _Plane
    points: torch.Tensor
    reference: np.ndarray
    mm_per_pixel: float


def _body(volume: Volume) -> Volume | None:
    """The body, coarsely; None where nothing looks like one."""
    try:
        return body_mask(volume, max(4.0, float(volume.grid.extent.max()) / 128))
    except InputError:
        return None


def _points(mask: Volume) -> np.ndarray:
    """(N, 3) LPS mm of a mask's voxels."""
    return mask.grid.voxels_to_points(mask.tensor[0, 0].nonzero().flip(-1).numpy())


def _planes(fixed: Volume, body: Volume | None) -> list[_Plane]:
    """The three planes through the body's center, cropped to the body (to the image, where none is found)."""
    if body is not None:
        points = _points(body)
        low, high, position = points.min(0) - 8, points.max(0) + 8, np.median(points, axis=0)
    else:
        corners = fixed.grid.corners()
        low, high = corners.min(0), corners.max(0)
        position = (low + high) / 2
    return [
        _Plane(name, letters, axes[0], axes[1], signs, low, high, position)  # type: ignore[arg-type]
        for name, axes, signs, letters in PLANES
    ]


def _slice(plane: _Plane) -> _Slice:
    """Square pixels: a plane fills the column's width unless it would be more than 1.6 times as tall."""
    extent = plane.high - plane.low
    step = max(extent[plane.across] / COLUMN, extent[plane.down] / (1.6 * COLUMN))
    columns, rows = (max(8, round(extent[axis] / step)) for axis in (plane.across, plane.down))
    points = torch.zeros(1, rows, columns, 3)
    middle = (plane.low + plane.high) / 2
    for axis, sign, count, shape in (
        (plane.across, plane.signs[0], columns, (1, 1, columns)),
        (plane.down, plane.signs[1], rows, (1, rows, 1)),
    ):
        points[..., axis] = (sign * step * (torch.arange(count) - (count - 1) / 2)).view(shape)
    reference = middle.copy()
    through = 3 - plane.across - plane.down
    reference[through] = plane.position[through]
    return _Slice(plane, points, reference, float(step))


def _sampled(volume: Volume, cut: _Slice, transform: Transform | None = None, mode: str = "linear") -> torch.Tensor:
    """(rows, columns) values of a volume at a slice's points, or where the transform carries them."""
    points, reference = cut.points, cut.reference
    if transform is not None:
        points, reference = transform.map_relative(points, reference)
    fill = 0.0 if mode == "nearest" else volume.background
    grid, tensor = _around(volume, points, reference)
    return sample(tensor.float(), grid, points, reference=reference, mode=mode, fill=fill)[0, 0, 0]


def _around(volume: Volume, points: torch.Tensor, reference: np.ndarray) -> tuple[Grid, torch.Tensor]:
    """The part of a volume that holds the points: a large image need not become floating point as a whole."""
    voxels = volume.grid.points_to_voxels(points.reshape(-1, 3).double().numpy() + reference)
    size = np.asarray(volume.grid.size)
    first = np.clip(np.floor(voxels.min(0)).astype(int) - 2, 0, size - 1)
    last = np.clip(np.ceil(voxels.max(0)).astype(int) + 3, first + 1, size)
    (x0, y0, z0), (x1, y1, z1) = first, last
    # Its border is the image's border wherever points lie beyond it, so the outside stays outside.
    return volume.grid.cropped(first, last - first), volume.tensor[:, :, z0:z1, y0:y1, x0:x1]


def _starting_position(moving: Volume, body: Volume | None, slices: Sequence[_Slice]) -> tuple[Transform, str]:
    """Where the moving image is shown before registration: as scanned, or centered where little of it would be seen."""
    moving_body = _body(moving)
    if body is None or moving_body is None:
        seen = float(np.mean([moving.grid.contains(_flat(cut)).mean() for cut in slices]))
        center = moving.grid.center
    else:
        points = _points(body)
        index = np.round(moving_body.grid.points_to_voxels(points)).astype(int)
        inside = ((index >= 0) & (index < moving_body.grid.size)).all(1)
        x, y, z = index[inside].T
        seen = float(moving_body.tensor[0, 0].numpy()[z, y, x].sum()) / len(points)
        center = np.median(_points(moving_body), axis=0)
    if seen >= 0.4:
        return Transform(()), "as scanned"
    centered = AffineTransform(np.eye(3), center - slices[0].plane.position)
    return Transform((centered,)), "scanned elsewhere; centered here"


def _flat(cut: _Slice) -> np.ndarray:
    return cut.points.reshape(-1, 3).double().numpy() + cut.reference


def _deformation(fixed: Volume, transform: Transform) -> DisplacementField:
    """The transform without its linear parts, on a lattice of a few millimeters over the fixed image."""
    parts = tuple(part for part in transform.parts if not isinstance(part, AffineTransform))
    spacing = max(4.0, float(fixed.grid.extent.max()) / 160)
    return Transform(parts).displacement_field(fixed.grid.canonical(spacing))


# --- colors ---------------------------------------------------------------------------------------------------------
def _window(volume: Volume) -> Callable[[torch.Tensor], np.ndarray]:
    """A function from values to gray 0..1. CT: one curve in which lung, soft tissue and bone can all be read."""
    if volume.modality == "ct":
        hounsfield = np.array([-1000.0, -700.0, -250.0, -150.0, 250.0, 1200.0])
        gray = np.array([0.0, 0.20, 0.30, 0.36, 0.80, 1.0])
        return lambda values: np.interp(values.numpy(), hounsfield, gray)
    values = volume.tensor.flatten()
    sparse = values[:: max(1, values.numel() // 500_000)].float()
    low, high = (float(q) for q in torch.quantile(sparse, torch.tensor([0.01, 0.995])))
    return lambda values: np.clip((values.numpy() - low) / max(high - low, 1e-6), 0, 1)


def _rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None] * 255.0, 3, axis=2).astype(np.float32)


def _overlay(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Fixed in green, moving in pink (its complement): equal values give gray."""
    return np.stack([moving, fixed, moving], -1).astype(np.float32) * 255


def _checkerboard(fixed: np.ndarray, moving: np.ndarray, mm_per_pixel: float) -> np.ndarray:
    size = max(8, round(36.0 / mm_per_pixel))
    rows, columns = np.indices(fixed.shape) // size
    odd = (rows + columns) % 2 == 1
    picture = _rgb(np.where(odd, moving, fixed))
    # A faint tint tells the two apart where they agree well.
    return np.where(odd[..., None], picture * (0.93, 0.99, 1.07), picture * (1.05, 1.0, 0.93)).astype(np.float32)


def _stain(panel: np.ndarray, cover: np.ndarray, color: tuple[int, int, int]) -> None:
    panel += cover[..., None] * (np.asarray(color, dtype=np.float32) - panel)


def _outlines(labels: Volume, cut: _Slice) -> np.ndarray:
    """Antialiased outlines (rows, columns) of all labels: where neighbors at half a pixel differ."""
    values = _sampled(labels, cut, mode="nearest").numpy()
    edge = np.zeros(values.shape, dtype=np.float32)
    for axis in (0, 1):
        differs = np.diff(values, axis=axis) != 0
        first = [slice(None), slice(None)]
        second = [slice(None), slice(None)]
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        # The line lies on the labeled side.
        edge[tuple(first)] = np.maximum(edge[tuple(first)], differs & (values[tuple(first)] > 0))
        edge[tuple(second)] = np.maximum(edge[tuple(second)], differs & (values[tuple(second)] > 0))
    return edge * 0.9


def _deformation_panels(
    gray: np.ndarray, field: DisplacementField, cut: _Slice, body: Volume | None
) -> tuple[np.ndarray, np.ndarray]:
    """The warped grid over the dimmed fixed image, and the Jacobian determinant in color over it."""
    u = sample(field.tensor, field.grid, cut.points, reference=cut.reference, fill=None)[0, :, 0]
    moved = (cut.points[0].permute(2, 0, 1) + u).numpy()
    lines = np.zeros(gray.shape, dtype=np.float32)
    for axis in (cut.plane.across, cut.plane.down):
        coordinate = moved[axis] / GRID_STEP_MM
        slope = np.hypot(*np.gradient(coordinate))
        distance = np.abs(coordinate - np.round(coordinate)) / np.maximum(slope, 1e-4)
        lines = np.maximum(lines, np.clip(1.15 - distance, 0, 1))
    dimmed = _rgb(gray * 0.55)
    grid_panel = dimmed.copy()
    _stain(grid_panel, lines * 0.85, (120, 220, 235))
    determinant = field.jacobian_determinant()
    local = sample(determinant, field.grid, cut.points, reference=cut.reference, fill=None)[0, 0, 0].numpy()
    weight = np.clip(np.abs(np.log2(np.maximum(local, 1e-3))) / 0.6, 0, 1) * 0.75
    weight = np.where(local <= 0, 1.0, weight)
    if body is not None:
        # What air does is of no interest.
        weight = weight * _sampled(body.with_tensor(body.tensor.float()), cut).numpy()
    color = volume_change_color(local)
    jacobian_panel = dimmed + weight[..., None] * (color - dimmed)
    return grid_panel, jacobian_panel.astype(np.float32)


def volume_change_color(determinant: np.ndarray) -> np.ndarray:
    """Blue where the moving image holds less tissue volume, orange where it holds more, magenta where it folds.

    A doubling or halving is the full color; (...,) to (..., 3) in 0..255.
    """
    strength = np.clip(np.log2(np.maximum(determinant, 1e-3)), -1, 1)[..., None]
    neutral = np.array([118.0, 120.0, 124.0])
    less, more = np.array([44.0, 123.0, 255.0]), np.array([255.0, 142.0, 24.0])
    color = neutral + np.abs(strength) * (np.where(strength < 0, less, more) - neutral)
    return np.where((determinant <= 0)[..., None], np.array([255.0, 0.0, 220.0]), color).astype(np.float32)


# --- page -----------------------------------------------------------------------------------------------------------
def _page(
    rows: Sequence[Sequence[np.ndarray]],
    slices: Sequence[_Slice],
    titles: Sequence[tuple[str, str]],
    fixed: Volume,
    moving: Volume,
    report: Mapping[str, Any],
    outlined: tuple[bool, bool],
) -> np.ndarray:
    heights = [max(panel.shape[0] for panel in panels) for panels in rows]
    label_width, header, legend = 40, 178, 76
    width = 2 * MARGIN + label_width + len(titles) * COLUMN + (len(titles) - 1) * GUTTER
    height = header + sum(heights) + (len(heights) - 1) * GUTTER + legend
    page = np.empty((height, width, 3), dtype=np.float32)
    page[:] = BACKGROUND
    _header(page, fixed, moving, report)
    left = MARGIN + label_width
    for index, (title, note) in enumerate(titles):
        x = left + index * (COLUMN + GUTTER)
        draw_text(page, x, header - 32, title, 11.5, TEXT, bold=True)
        draw_text(page, x, header - 12, fit_text(note, 9.5, COLUMN), 9.5, MUTED)
    top = header
    for panels, cut, row_height in zip(rows, slices, heights, strict=True):
        _row_label(page, cut, top, row_height)
        for index, panel in enumerate(panels):
            x = left + index * (COLUMN + GUTTER)
            page[top : top + row_height, x : x + COLUMN] = PANEL
            y0, x0 = top + (row_height - panel.shape[0]) // 2, x + (COLUMN - panel.shape[1]) // 2
            page[y0 : y0 + panel.shape[0], x0 : x0 + panel.shape[1]] = panel
            if index == 0:
                _orientation_letters(page, x, top, row_height, cut.plane.letters)
                _scale_bar(page, x + COLUMN - 12, top + row_height - 14, cut.mm_per_pixel)
        top += row_height + GUTTER
    _legend(page, left, top - GUTTER + 30, outlined)
    return np.clip(np.round(page), 0, 255).astype(np.uint8)


def _header(page: np.ndarray, fixed: Volume, moving: Volume, report: Mapping[str, Any]) -> None:
    right = page.shape[1] - MARGIN
    x = draw_text(page, MARGIN, 46, "Registration report", 19, TEXT, bold=True)
    preset = report.get("preset")
    if preset:
        draw_text(page, x + 18, 46, str(preset), 12, ACCENT)
    room = 0.36 * page.shape[1]
    for line, (role, volume) in enumerate((("Fixed", fixed), ("Moving", moving))):
        size = " × ".join(str(n) for n in volume.grid.size)
        spacing = " × ".join(f"{s:.3g}" for s in volume.grid.spacing)
        baseline = 76 + 22 * line
        draw_text(page, MARGIN, baseline, role, 10.5, MUTED)
        details = f"{size} voxels of {spacing} mm"
        name = fit_text(Path(str(volume.source or "unnamed")).name, 10.5, room - text_width(details, 10.5))
        end = draw_text(page, MARGIN + 66, baseline, name, 10.5, TEXT)
        draw_text(page, end + 18, baseline, details, 10.5, MUTED)
    figures = key_figures(report)
    tile, gap = 178, 12
    x = right - len(figures) * tile - (len(figures) - 1) * gap
    for title, value, note, color in figures:
        page[24:108, x : x + tile] = (31, 34, 41)
        draw_text(page, x + 14, 45, title, 9.5, MUTED)
        draw_text(page, x + 14, 76, fit_text(value, 17, tile - 24), 17, color, bold=True)
        draw_text(page, x + 14, 97, fit_text(note, 9, tile - 24), 9, MUTED)
        x += tile + gap


def key_figures(report: Mapping[str, Any]) -> list[tuple[str, str, str, tuple[int, int, int]]]:
    """(title, value, note, color) of the figures that the report holds, most telling last."""
    figures: list[tuple[str, str, str, tuple[int, int, int]]] = []
    seconds = report.get("seconds", {}).get("total")
    if seconds is not None:
        clock = f"{seconds:.1f} s" if seconds < 90 else f"{int(seconds // 60)} min {int(seconds % 60)} s"
        memory = report.get("peak_memory_mib")
        figures.append(("Time", clock, f"peak memory {memory / 1024:.1f} GiB" if memory else "", TEXT))
    folding = report.get("folding_percent")
    if folding is not None:
        digits = 0 if folding == 0 else 2 if folding >= 0.01 else 4
        color = GOOD if folding < 0.1 else POOR
        figures.append(("Folded voxels", f"{folding:.{digits}f} %", "of the image; aim at 0", color))
    inverse = report.get("inverse_consistency_mm", {}).get("mean")
    if inverse is not None:
        figures.append(("There and back", f"{inverse:.2f} mm", "mean inverse error", TEXT))
    dice = report.get("dice", {})
    if "final_mean" in dice:
        before = f"before {dice['initial_mean']:.2f}" if "initial_mean" in dice else ""
        color = GOOD if dice["final_mean"] >= dice.get("initial_mean", 0.0) else POOR
        count = len(dice.get("final", {}))
        note = f"{before}, {count} label{'s' * (count != 1)}".lstrip(", ")
        figures.append(("Label overlap (Dice)", f"{dice['final_mean']:.2f}", note, color))
    tre = report.get("tre_mm", {})
    if "final" in tre:
        initial = tre.get("initial", {}).get("mean")
        color = GOOD if initial is None or tre["final"]["mean"] <= initial else POOR
        before = f"before {initial:.1f} mm, " if initial is not None else ""
        note = f"{before}{tre.get('n', 0)} points"
        figures.append(("Landmark error", f"{tre['final']['mean']:.1f} mm", note, color))
    return figures


def _row_label(page: np.ndarray, cut: _Slice, top: int, height: int) -> None:
    """The plane's name and position, reading upwards along the row."""
    through = 3 - cut.plane.across - cut.plane.down
    position = cut.reference[through]
    # Said as patients' directions: LPS is positive towards left, back and head.
    letter = ("LPS" if position >= 0 else "RAI")[through]
    name = cut.plane.name
    note = f"{letter} {abs(position):.0f} mm"
    strip = np.empty((40, max(height, 120), 3), dtype=np.float32)
    strip[:] = BACKGROUND
    end = draw_text(strip, 2, 18, name, 11.5, TEXT, bold=True)
    draw_text(strip, end + 12, 18, note, 9.5, MUTED)
    turned = np.rot90(strip)
    page[top : top + height, MARGIN : MARGIN + 40] = turned[-height:]


def _orientation_letters(page: np.ndarray, x: int, top: int, height: int, letters: str) -> None:
    middle = top + height / 2
    size = 11.0
    draw_text(page, x + 7, middle + size / 2, letters[0], size, ACCENT, bold=True, halo=True)
    draw_text(page, x + COLUMN - 7, middle + size / 2, letters[1], size, ACCENT, bold=True, halo=True, align="right")
    draw_text(page, x + COLUMN / 2, top + size + 6, letters[2], size, ACCENT, bold=True, halo=True, align="center")
    draw_text(page, x + COLUMN / 2, top + height - 7, letters[3], size, ACCENT, bold=True, halo=True, align="center")


def _scale_bar(page: np.ndarray, right: int, bottom: int, mm_per_pixel: float) -> None:
    length_mm = 50 if 50 / mm_per_pixel < 0.5 * COLUMN else 10
    length = round(length_mm / mm_per_pixel)
    page[bottom - 1 : bottom + 3, right - length - 1 : right + 1] = (0, 0, 0)
    page[bottom : bottom + 2, right - length : right] = TEXT
    draw_text(page, right, bottom - 6, f"{length_mm} mm", 8, TEXT, halo=True, align="right")


def _legend(page: np.ndarray, left: int, top: int, outlined: tuple[bool, bool]) -> None:
    def swatch(x: float, color: tuple[int, int, int], text: str) -> float:
        page[top - 9 : top + 1, int(x) : int(x) + 14] = color
        return draw_text(page, x + 22, top, text, 9.5, MUTED) + 28

    x: float = left
    if outlined[0]:
        x = swatch(x, FIXED_COLOR, "outlines of the fixed labels")
    if outlined[1]:
        x = swatch(x, MOVING_COLOR, "outlines of the moving labels, registered")
    overlay = left + 3 * (COLUMN + GUTTER)
    x = swatch(max(x, overlay), (0, 200, 0), "only fixed")
    x = swatch(x, (200, 0, 200), "only moving")
    swatch(x, (150, 150, 150), "both alike")
    # The color bar stands under its column.
    bar_left, bar_width = left + 7 * (COLUMN + GUTTER), COLUMN
    exponents = np.linspace(-1, 1, bar_width)
    page[top - 12 : top + 2, bar_left : bar_left + bar_width] = volume_change_color(2.0**exponents)[None]
    for value, text in ((0.5, "half"), (0.75, "0.75"), (1.0, "same"), (4 / 3, "1.33"), (2.0, "double")):
        at = bar_left + (np.log2(value) + 1) / 2 * (bar_width - 1)
        page[top + 2 : top + 6, int(at) : int(at) + 1] = MUTED
        align = "left" if value == 0.5 else "right" if value == 2.0 else "center"
        draw_text(page, at, top + 20, text, 9, MUTED, align=align)
    note = "magenta: folded"
    draw_text(page, bar_left - 2 * GUTTER, top, note, 9.5, MUTED, align="right")
    fold = bar_left - 2 * GUTTER - text_width(note, 9.5) - 22
    page[top - 9 : top + 1, int(fold) : int(fold) + 14] = (255, 0, 220)
