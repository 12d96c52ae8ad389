"""commission.png: the tests, their figures and the verdict on one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..report.lettering import draw_text, fit_text
from ..report.picture import BACKGROUND, GOOD, MUTED, POOR, TEXT

# Landscape, the proportions of A4.
_WIDTH, _HEIGHT, _MARGIN = 1500, 1060, 48
_TOP, _ROW = 262, 56
_STRIPE = (31, 34, 41)
# Right edges of the columns of figures, pixels.
_COLUMNS = (
    ("motion", "mean, mm", 570),
    ("error", "mean, mm", 665),
    ("error", "95 %, mm", 760),
    ("error", "largest, mm", 865),
    ("there and back", "95 %, mm", 990),
    ("folded", "%", 1060),
    ("expected error", "median, mm", 1175),
    ("error below it", "% of points", 1280),
)


def commission_page(document: Mapping[str, Any]) -> np.ndarray:
    """The page of a document of :func:`samconvex.commissioning.run.commission`, (H, W, 3) uint8."""
    page = np.empty((_HEIGHT, _WIDTH, 3), dtype=np.float32)
    page[:] = BACKGROUND
    _header(page, document)
    limits = document["limits"]
    for title, unit, right in _COLUMNS:
        draw_text(page, right, _TOP - 40, title, 10, TEXT, bold=True, align="right")
        draw_text(page, right, _TOP - 20, unit, 9.5, MUTED, align="right")
    for row, test in enumerate(document["tests"]):
        _test(page, _TOP + row * _ROW, test, limits, striped=row % 2 == 0)
    _footer(page, document)
    return np.clip(np.round(page), 0, 255).astype(np.uint8)


def _header(page: np.ndarray, document: Mapping[str, Any]) -> None:
    draw_text(page, _MARGIN, 72, "Commissioning report", 22, TEXT, bold=True)
    color = GOOD if document["passed"] else POOR
    right = _WIDTH - _MARGIN
    draw_text(page, right, 74, document["verdict"].upper(), 26, color, bold=True, align="right")
    results = [outcome(test) for test in document["tests"]]
    kind = "short run, " if document["quick"] else ""
    told = f", {results.count('told')} told" if "told" in results else ""
    note = f"{kind}{results.count('passed')} of {len(results) - results.count('told')} tests passed{told}"
    draw_text(page, right, 104, note, 11, TEXT, align="right")
    where = document["environment"]
    lines = (
        f"samconvex {document['version']}, {document['date']} (UTC), {document['seconds']:.0f} s",
        f"{document['device']}, {document['threads']} threads, {where['processor']}",
        f"{where['system']}, Python {where['python']}, torch {where['torch']}, SimpleITK {where['simpleitk']}",
    )
    for number, line in enumerate(lines):
        draw_text(page, _MARGIN, 108 + 24 * number, fit_text(line, 10.5, 1050), 10.5, MUTED)


def _test(page: np.ndarray, top: int, test: Mapping[str, Any], limits: Mapping[str, float], *, striped: bool) -> None:
    if striped:
        page[top : top + _ROW, _MARGIN - 16 : _WIDTH - _MARGIN + 16] = _STRIPE
    line = top + 25
    draw_text(page, _MARGIN, line, test["title"], 11.5, TEXT, bold=True)
    draw_text(page, _MARGIN, line + 22, fit_text(f"{test['what']} ({test['preset']})", 9, 460), 9, MUTED)
    error, inverse = test["error_mm"], test["inverse_consistency_mm"]
    expected, below = test.get("expected_error_mm", {}).get("median"), test.get("below_expected_percent")
    error_limits = [limits[key] if test["judged"] else None for key in ("mean_mm", "p95_mm", "max_mm")]
    # Figure, its limit (None: told only).
    figures = (
        (test["motion_mm"]["mean"], None),
        *zip((error["mean"], error["p95"], error["max"]), error_limits, strict=True),
        (inverse["p95"], limits["inverse_p95_mm"]),
        (test["folding_percent"], limits["folding_percent"]),
        (expected, None),
        (below, None),
    )
    for (_, _, right), (value, limit) in zip(_COLUMNS, figures, strict=True):
        color = TEXT if limit is None else GOOD if value <= limit else POOR
        text = "-" if value is None else f"{value:.2f}"
        draw_text(page, right, line + 8, text, 11.5, MUTED if value is None else color, align="right")
    word, color = outcome(test), GOOD if test["passed"] else POOR
    draw_text(page, _WIDTH - _MARGIN, line, word, 12, color, bold=True, align="right")
    draw_text(page, _WIDTH - _MARGIN, line + 22, _aside(test), 8.5, MUTED, align="right")


def outcome(test: Mapping[str, Any]) -> str:
    """One word for a test; "told" where the limits of the error do not count and nothing else was broken."""
    if not test["passed"]:
        return "FAILED"
    return "passed" if test["judged"] else "told"


def _aside(test: Mapping[str, Any]) -> str:
    """What this test alone has measured."""
    if "carried_dice" in test:
        return f"Dice {test['carried_dice']:.2f}, points {test['carried_points_mm']['max']:.1f} mm"
    if "error_at_torn_surface_mm" in test:
        return f"at the wall {test['error_at_torn_surface_mm']['p95']:.1f} mm at 95 %"
    return f"{test['points']} points, {test['seconds']:.0f} s"


def _footer(page: np.ndarray, document: Mapping[str, Any]) -> None:
    limits = document["limits"]
    first = (
        f"Limits: error {limits['mean_mm']:g} mm on average, {limits['p95_mm']:g} mm at 95 % of the points and "
        f"{limits['max_mm']:g} mm at most; there and back {limits['inverse_p95_mm']:g} mm at 95 %; labels Dice "
        f"{limits['dice']:g}; no folding (after AAPM TG-132, digital phantoms)."
    )
    second = (
        "Told: the error has no limit but half of the motion. Expected error: the bound below which nine of ten errors "
        "should lie (error.nii.gz)."
    )
    checksums = ", ".join(f"{name} {entry['sha256'][:12]}" for name, entry in document["weights"].items())
    lines = [first, second, f"Weights (SHA-256): {checksums}"]
    lines += [f"Failed: {'; '.join(document['failures'])}"] if document["failures"] else []
    for number, line in enumerate(lines):
        color = POOR if number == 3 else MUTED
        text = fit_text(line, 9.5, _WIDTH - 2 * _MARGIN)
        draw_text(page, _MARGIN, _HEIGHT - 100 + 24 * number, text, 9.5, color)
