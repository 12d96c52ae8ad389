"""report.png: what a registration did, on one page for a clinician.

Rows are the three planes through the middle of the fixed body; columns show both images before and after, how they
agree, where tissue was moved, and how far off that may be. Drawn with numpy; SimpleITK writes the PNG.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import SimpleITK as sitk

from ..io.images import write_image
from ..space.transforms import Transform
from ..space.volume import Volume
from .colors import ERROR_STOPS_MM, FOLDED, error_color
from .lettering import draw_text, fit_text, text_width
from .panels import (
    GRID_STEP_MM,
    checkerboard,
    deformation_panel,
    error_panel,
    outlines,
    overlay,
    rgb,
    stain,
    window,
)
from .slices import (
    COLUMN,
    GUTTER,
    MARGIN,
    Slice,
    deformation,
    outlined_body,
    planes,
    sampled,
    slice_of,
    starting_position,
)
from .verdict import CHECK, DO_NOT_USE
from .verdict import GOOD as GOOD_VERDICT

BACKGROUND = (21, 23, 28)
PANEL = (8, 9, 11)
TEXT = (232, 234, 238)
MUTED = (150, 156, 168)
ACCENT = (255, 196, 84)
GOOD, POOR = (120, 214, 150), (255, 130, 110)
VERDICT_COLORS = {GOOD_VERDICT: GOOD, CHECK: (255, 205, 80), DO_NOT_USE: (255, 95, 80)}
# Height of the verdict's banner, pixels.
BANNER = 48
FIXED_COLOR, MOVING_COLOR = (255, 214, 70), (70, 200, 255)


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
    bound: Volume | None = None,
) -> None:
    """Write the picture as PNG (or another format SimpleITK writes).

    Args:
        result: its ``fixed_to_moving`` transform is drawn, its ``report`` gives the figures.
        warped: the registered moving image, where it exists already; else only the slices shown are computed.
        fixed_labels, warped_labels: label maps whose outlines are drawn, the second in the fixed space.
        bound: the expected error, mm in the fixed space; drawn where there is one.

    Raises:
        InputError: unknown file ending. ResourceError: the disk refused.
    """
    write_picture(render_report(fixed, moving, result, warped, fixed_labels, warped_labels, bound), path)


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
    bound: Volume | None = None,
) -> np.ndarray:
    """The picture as an (H, W, 3) uint8 array; arguments as :func:`write_report_picture`."""
    transform = result.fixed_to_moving
    body = outlined_body(fixed)
    slices = [slice_of(plane) for plane in planes(fixed, body)]
    start, start_title = starting_position(moving, body, slices)
    field = deformation(fixed, transform)
    gray_fixed, gray_moving = window(fixed), window(moving)

    titles = [
        ("Fixed image", "stays as it is"),
        ("Moving image, before", start_title),
        ("Moving image, registered", "aligned and deformed"),
        ("Both, before", "green: fixed, pink: moving"),
        ("Both, after", "gray where they agree"),
        ("Checkerboard, after", "edges should continue"),
        ("Deformation", f"{GRID_STEP_MM:g} mm grid, alignment removed"),
    ]
    if bound is not None:
        titles.append(("Expected error", "nine of ten errors are below"))
    rows: list[list[np.ndarray]] = []
    for cut in slices:
        a = gray_fixed(sampled(fixed, cut))
        before = gray_moving(sampled(moving, cut, start))
        after = gray_moving(sampled(warped, cut) if warped is not None else sampled(moving, cut, transform))
        panels = [rgb(a), rgb(before), rgb(after), overlay(a, before), overlay(a, after)]
        panels += [checkerboard(a, after, cut.mm_per_pixel), deformation_panel(a, field, cut)]
        if bound is not None:
            panels.append(error_panel(a, bound, cut, body))
        if fixed_labels is not None:
            outline = outlines(fixed_labels, cut)
            for index in (0, 2):
                stain(panels[index], outline, FIXED_COLOR)
        if warped_labels is not None:
            stain(panels[2], outlines(warped_labels, cut), MOVING_COLOR)
        rows.append(panels)
    outlined = (fixed_labels is not None, warped_labels is not None)
    page = _page(rows, slices, titles, fixed, moving, result.report, outlined)
    judged = result.report.get("verdict")
    return page if judged is None else np.concatenate([verdict_banner(judged, page.shape[1]), page])


# --- page -----------------------------------------------------------------------------------------------------------
def _page(
    rows: Sequence[Sequence[np.ndarray]],
    slices: Sequence[Slice],
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
    _legend(page, left, top - GUTTER + 30, outlined, len(titles) > 7)
    return np.clip(np.round(page), 0, 255).astype(np.uint8)


def verdict_banner(judged: Mapping[str, Any], width: int) -> np.ndarray:
    """(H, W, 3) uint8: the verdict by color and word, and as many of its reasons as fit."""
    banner = np.empty((BANNER, width, 3), dtype=np.float32)
    banner[:] = VERDICT_COLORS[judged["level"]]
    x = draw_text(banner, MARGIN, 0.65 * BANNER, str(judged["level"]).upper(), 16, (0, 0, 0), bold=True)
    reasons = fit_text(" ".join(judged["reasons"]), 11, width - MARGIN - x - 24)
    draw_text(banner, x + 24, 0.65 * BANNER, reasons, 11, (0, 0, 0))
    return np.clip(np.round(banner), 0, 255).astype(np.uint8)


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
    expected = report.get("expected_error_mm", {}).get("median")
    if expected is not None:
        note = f"median; worst {report['expected_error_mm']['max']:.0f} mm"
        figures.append(("Expected error", f"{expected:.1f} mm", note, TEXT))
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


def _row_label(page: np.ndarray, cut: Slice, top: int, height: int) -> None:
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


def _legend(page: np.ndarray, left: int, top: int, outlined: tuple[bool, bool], with_error: bool) -> None:
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
    swatch(left + 6 * (COLUMN + GUTTER), FOLDED, "folded")
    if with_error:
        _error_bar(page, left + 7 * (COLUMN + GUTTER), top)


def _error_bar(page: np.ndarray, left: int, top: int) -> None:
    """The colors of the expected error, in mm, under their column."""
    low, high = np.log(ERROR_STOPS_MM[0]), np.log(ERROR_STOPS_MM[-1])
    page[top - 12 : top + 2, left : left + COLUMN] = error_color(np.exp(np.linspace(low, high, COLUMN)))[None]
    for value in ERROR_STOPS_MM:
        at = left + (np.log(value) - low) / (high - low) * (COLUMN - 1)
        page[top + 2 : top + 6, int(at) : int(at) + 1] = MUTED
        align = "left" if value == ERROR_STOPS_MM[0] else "right" if value == ERROR_STOPS_MM[-1] else "center"
        text = f"{value:g} mm" if align == "right" else f"{value:g}"
        draw_text(page, at, top + 20, text, 9, MUTED, align=align)
