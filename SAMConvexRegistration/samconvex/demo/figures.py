"""The demo's figures and their table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..registration.register import RegistrationResult
    from ..space.volume import Volume
    from .pairs import DemoPair


@dataclass(frozen=True)
class Stage:
    """How well the images agree with the transform up to here.

    Attributes:
        correlation: normalized cross-correlation of the CT-windowed images in the fixed body.
        dice: overlap by label of the lungs.
        warped: the moving image on the fixed grid.
    """

    correlation: float
    dice: dict[int, float]
    warped: Volume


def stages(pair: DemoPair, result: RegistrationResult) -> tuple[Stage, Stage]:
    """After the linear alignment, and after the deformation."""
    from ..space.transforms import AffineTransform, Transform

    linear = tuple(part for part in result.fixed_to_moving.parts if isinstance(part, AffineTransform))
    return _stage(pair, Transform(linear)), _stage(pair, result.fixed_to_moving)


def _stage(pair: DemoPair, transform) -> Stage:
    from ..report import metrics

    return Stage(
        correlation(pair, transform),
        metrics.dice(pair.lungs[0], transform.warp_labels(pair.lungs[1], pair.fixed)),
        transform.warp_volume(pair.moving, pair.fixed),
    )


def correlation(pair: DemoPair, transform) -> float:
    """Normalized cross-correlation of windowed Hounsfield units over the fixed body, on a 4 mm grid."""
    import torch

    from ..anatomy.body import body_mask
    from ..space.intensity import ct_window
    from ..space.volume import average_to, resample

    body = body_mask(pair.fixed)
    moving = transform.warp_volume(average_to(pair.moving, 4.0), body.grid)
    inside = body.tensor > 0
    images = (resample(pair.fixed, body.grid), moving)
    values = torch.stack([ct_window(image.tensor, -1000, 300)[inside] for image in images])
    return float(torch.corrcoef(values)[0, 1])


def figures_table(
    pair: DemoPair, report: dict[str, Any], aligned: Stage, registered: Stage
) -> list[tuple[str, str, str, str]]:
    """Rows (quantity, before, aligned, registered)."""
    from ..space.transforms import Transform
    from .pairs import LUNG_NAMES

    before_dice = report.get("dice", {}).get("initial", {})
    rows = [("", "before", "aligned", "registered")]
    before = correlation(pair, Transform())
    rows.append(_row("Similarity in the body (correlation)", before, aligned.correlation, registered.correlation))
    for label, name in LUNG_NAMES.items():
        scores = (before_dice.get(str(label), 0.0), aligned.dice.get(label, 0.0), registered.dice.get(label, 0.0))
        rows.append(_row(f"{name}, overlap (Dice)", *scores))
    if "tre_mm" in report:
        tre = report["tre_mm"]
        rows.append(
            (
                f"Landmark error, mean of {tre['n']}",
                f"{tre['initial']['mean']:.1f} mm",
                "",
                f"{tre['final']['mean']:.1f} mm",
            )
        )
    rows.append(("Folded voxels", "", "", f"{report['folding_percent']:.3f} %"))
    rows.append(("There and back, mean error", "", "", f"{report['inverse_consistency_mm']['mean']:.2f} mm"))
    rows.append(("Time", "", "", f"{report['seconds']['total']:.1f} s"))
    rows.append(("Peak memory", "", "", f"{report['peak_memory_mib']:.0f} MiB"))
    rows.append(("Device", "", "", f"{report['device']}, {report['threads']} threads"))
    return rows


def _row(name: str, before: float, aligned: float, registered: float) -> tuple[str, str, str, str]:
    return name, f"{before:.3f}", f"{aligned:.3f}", f"{registered:.3f}"


def format_table(rows: list[tuple[str, str, str, str]]) -> list[str]:
    """Lines of a plain text table, figures right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for name, *cells in rows:
        aligned_right = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *aligned_right]))
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
