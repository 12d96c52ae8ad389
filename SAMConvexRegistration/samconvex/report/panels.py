"""The report's picture, panel by panel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ..space.field import DisplacementField
from ..space.sampling import sample
from ..space.volume import Volume
from .colors import FOLDED, error_color
from .slices import Slice, sampled

GRID_STEP_MM = 15.0


# --- colors ---------------------------------------------------------------------------------------------------------
def window(volume: Volume) -> Callable[[torch.Tensor], np.ndarray]:
    """A function from values to gray 0..1. CT: one curve in which lung, soft tissue and bone can all be read."""
    if volume.modality == "ct":
        hounsfield = np.array([-1000.0, -700.0, -250.0, -150.0, 250.0, 1200.0])
        gray = np.array([0.0, 0.20, 0.30, 0.36, 0.80, 1.0])
        return lambda values: np.interp(values.numpy(), hounsfield, gray)
    values = volume.tensor.flatten()
    sparse = values[:: max(1, values.numel() // 500_000)].float()
    low, high = (float(q) for q in torch.quantile(sparse, torch.tensor([0.01, 0.995])))
    return lambda values: np.clip((values.numpy() - low) / max(high - low, 1e-6), 0, 1)


def rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None] * 255.0, 3, axis=2).astype(np.float32)


def overlay(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Fixed in green, moving in pink (its complement): equal values give gray."""
    return np.stack([moving, fixed, moving], -1).astype(np.float32) * 255


def checkerboard(fixed: np.ndarray, moving: np.ndarray, mm_per_pixel: float) -> np.ndarray:
    size = max(8, round(36.0 / mm_per_pixel))
    rows, columns = np.indices(fixed.shape) // size
    odd = (rows + columns) % 2 == 1
    picture = rgb(np.where(odd, moving, fixed))
    # A faint tint tells the two apart where they agree well.
    return np.where(odd[..., None], picture * (0.93, 0.99, 1.07), picture * (1.05, 1.0, 0.93)).astype(np.float32)


def stain(panel: np.ndarray, cover: np.ndarray, color: tuple[int, int, int]) -> None:
    panel += cover[..., None] * (np.asarray(color, dtype=np.float32) - panel)


def outlines(labels: Volume, cut: Slice) -> np.ndarray:
    """Antialiased outlines (rows, columns) of all labels: where neighbors at half a pixel differ."""
    values = sampled(labels, cut, mode="nearest").numpy()
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


def deformation_panel(gray: np.ndarray, field: DisplacementField, cut: Slice) -> np.ndarray:
    """The warped grid over the dimmed fixed image; where the map folds, magenta."""
    u = sample(field.tensor, field.grid, cut.points, reference=cut.reference, fill=None)[0, :, 0]
    moved = (cut.points[0].permute(2, 0, 1) + u).numpy()
    lines = np.zeros(gray.shape, dtype=np.float32)
    for axis in (cut.plane.across, cut.plane.down):
        coordinate = moved[axis] / GRID_STEP_MM
        slope = np.hypot(*np.gradient(coordinate))
        distance = np.abs(coordinate - np.round(coordinate)) / np.maximum(slope, 1e-4)
        lines = np.maximum(lines, np.clip(1.15 - distance, 0, 1))
    panel = rgb(gray * 0.55)
    stain(panel, lines * 0.85, (120, 220, 235))
    local = sample(field.jacobian_determinant(), field.grid, cut.points, reference=cut.reference)[0, 0, 0].numpy()
    stain(panel, (local <= 0).astype(np.float32), FOLDED)
    return panel


def error_panel(gray: np.ndarray, bound: Volume, cut: Slice, body: Volume | None) -> np.ndarray:
    """The expected error in color over the dimmed fixed image, inside the body."""
    values = sample(bound.tensor, bound.grid, cut.points, reference=cut.reference)[0, 0, 0].numpy()
    weight = np.full(values.shape, 0.6, dtype=np.float32)
    if body is not None:
        weight = weight * sampled(body.with_tensor(body.tensor.float()), cut).numpy()
    dimmed = rgb(gray * 0.7)
    return (dimmed + weight[..., None] * (error_color(values) - dimmed)).astype(np.float32)
