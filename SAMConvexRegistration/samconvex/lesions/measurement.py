"""Size of a lesion from its mask: longest diameter and short axis in the image's axial slices, and volume.

The diameters follow RECIST 1.1 (Eisenhauer et al., Eur J Cancer 45, 2009, section 3): the longest diameter lies in a
slice of the image, the short axis is the longest line perpendicular to it in the same slice. All lengths are physical;
the slices are those of the voxel axis nearest to the patient's head-foot axis, oblique or not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch

from ..space.grid import Grid
from ..space.volume import Volume, resample


@dataclass(frozen=True)
class Measurement:
    """What a lesion measures.

    Attributes:
        longest_mm: longest diameter in an axial slice.
        short_axis_mm: longest line perpendicular to it in that slice.
        volume_ml: volume of the mask.
        longest_points, short_axis_points: (2, 3) end points, LPS mm.
    """

    longest_mm: float
    short_axis_mm: float
    volume_ml: float
    longest_points: np.ndarray
    short_axis_points: np.ndarray

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        return {
            "longest_mm": round(self.longest_mm, 3),
            "short_axis_mm": round(self.short_axis_mm, 3),
            "volume_ml": round(self.volume_ml, 5),
            "longest_points": np.round(self.longest_points, 3).tolist(),
            "short_axis_points": np.round(self.short_axis_points, 3).tolist(),
        }


def measure_lesion(mask: Volume, image: Grid | None = None) -> Measurement | None:
    """Measure a binary mask; None where it is empty.

    Args:
        mask: any grid; voxels above 0.5 count, and values between 0 and 1 place the border between voxels.
        image: the image in whose slices to measure, where the mask was drawn on differently oriented axes.
    """
    cut = trimmed(mask)
    if cut is None:
        return None
    if image is not None and not np.allclose(image.direction, cut.grid.direction, atol=1e-4):
        cut = resample(cut.with_tensor(cut.as_float()), _in_axes_of(image, cut.grid), fill=0.0)
    values = cut.tensor[0, 0].float().cpu().numpy()
    inside = values > 0.5
    if not inside.any():
        return None
    volume = float(inside.sum()) * float(np.prod(cut.grid.spacing)) / 1000.0
    longest, short = _diameters(values, cut.grid)
    return Measurement(
        float(np.linalg.norm(longest[1] - longest[0])),
        float(np.linalg.norm(short[1] - short[0])),
        volume,
        longest,
        short,
    )


def size_in(mask: Volume, image: Grid) -> Measurement:
    """:func:`measure_lesion` of a mask that is not empty; in its own slices where the image's miss it."""
    size = measure_lesion(mask, image) or measure_lesion(mask)
    assert size is not None
    return size


def centroid(mask: Volume) -> np.ndarray:
    """(3,) LPS mm of the middle of a nonempty mask's voxels."""
    voxels = (mask.tensor[0, 0] > 0.5).nonzero().flip(1).double().mean(0).cpu().numpy()
    return mask.grid.voxels_to_points(voxels[None])[0]


def trimmed(mask: Volume, margin: int = 1) -> Volume | None:
    """The mask cut (and padded with 0) to its voxels above 0.5 and ``margin`` voxels around; None where it is empty."""
    values = mask.tensor[0, 0]
    inside = values > 0.5
    ranges = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        where = (inside.sum(others) > 0).nonzero()[:, 0]
        if not len(where):
            return None
        ranges.append((int(where[0]) - margin, int(where[-1]) + margin + 1))
    lower = [r[0] for r in ranges]
    size = [r[1] - r[0] for r in ranges]
    cut = torch.zeros(size, dtype=values.dtype, device=values.device)
    sources, targets = [], []
    for (low, high), count in zip(ranges, values.shape, strict=True):
        first, last = max(low, 0), min(high, count)
        sources.append(slice(first, last))
        targets.append(slice(first - low, last - low))
    cut[tuple(targets)] = values[tuple(sources)]
    return mask.with_tensor(cut[None, None], mask.grid.cropped(lower[::-1], size[::-1]))


def _in_axes_of(image: Grid, covered: Grid) -> Grid:
    """A grid with the image's axes over ``covered``, as fine as the finer of both."""
    axes = np.reshape(image.direction, (3, 3))
    spacing = np.minimum(image.spacing, min(covered.spacing))
    along = (covered.corners() - covered.center) @ axes
    size = np.ceil((along.max(0) - along.min(0)) / spacing).astype(int)
    origin = covered.center + axes @ ((along.max(0) + along.min(0)) / 2 - (size - 1) / 2 * spacing)
    return Grid(tuple(size.tolist()), tuple(spacing.tolist()), tuple(origin.tolist()), image.direction)


def _diameters(values: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """End points (2, 3) of the longest diameter over all slices and of the short axis beside it."""
    normal = int(np.argmax(np.abs(np.reshape(grid.direction, (3, 3))[2])))
    planes = np.moveaxis(values, 2 - normal, 0)
    axes = [axis for axis in (2, 1, 0) if axis != normal]  # rows, columns of a plane as voxel axes
    # A lesion's diameter does not bridge gaps: separate parts of a slice are measured one by one. Empty slices in
    # between keep the labels of one 3D call within their slices.
    spaced = np.zeros((2 * len(planes), *planes.shape[1:]), np.uint8)
    spaced[::2] = planes > 0.5
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(spaced), True))[::2]
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for number, (plane, parts) in enumerate(zip(planes, labels, strict=True)):
        for part in np.unique(parts[parts > 0]):
            border = _border(plane, parts == part)
            voxels = np.full((len(border), 3), float(number))
            voxels[:, axes] = border
            # In-plane coordinates in mm; they are exact also where voxel axes are not perpendicular to each other.
            points = grid.voxels_to_points(voxels)
            frame = _frame(grid, axes)
            longest, short = _calipers((points - points[0]) @ frame.T)
            length = float(np.linalg.norm(longest[1] - longest[0]))
            if best is None or length > best[0] + 1e-9:
                best = (length, longest @ frame + points[0], short @ frame + points[0])
    assert best is not None
    return best[1], best[2]


def _frame(grid: Grid, axes: list[int]) -> np.ndarray:
    """(2, 3) orthonormal vectors of the slice plane that the two voxel axes span."""
    first, second = (grid.voxel_to_lps[:3, axis] for axis in axes)
    first = first / np.linalg.norm(first)
    second = second - (second @ first) * first
    return np.stack([first, second / np.linalg.norm(second)])


def _border(plane: np.ndarray, part: np.ndarray) -> np.ndarray:
    """(N, 2) row and column where the value crosses 0.5 between a voxel of the part and a neighbor outside."""
    inner = np.pad(np.where(part, plane, 0.0).astype(float), 1)
    outer = np.pad(plane.astype(float), 1)
    filled = np.pad(part, 1)
    found = []
    for axis in (0, 1):
        for step in (-1, 1):
            neighbor, value = np.roll(filled, -step, axis), np.roll(outer, -step, axis)
            rows = np.argwhere(filled & ~neighbor)
            inside, outside = inner[tuple(rows.T)], np.minimum(value[tuple(rows.T)], 0.5)
            places = rows.astype(float)
            places[:, axis] += step * (inside - 0.5) / np.maximum(inside - outside, 1e-9)
            found.append(places - 1)
    return np.concatenate(found)


def _calipers(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longest diameter (2, 2) of points in the plane, and the longest chord of their hull perpendicular to it."""
    hull = _hull(points)
    distance = np.linalg.norm(hull[:, None] - hull[None], axis=2)
    first, second = np.unravel_index(int(distance.argmax()), distance.shape)
    longest = hull[[first, second]]
    axis = (longest[1] - longest[0]) / max(float(distance.max()), 1e-12)
    across = np.array([-axis[1], axis[0]])
    along, height = (hull - longest[0]) @ axis, (hull - longest[0]) @ across
    # The hull's height above and below the diameter, at every corner; their sum is largest at one of them.
    ends = [np.array([0.0]), np.array([0.0])]
    places = np.unique(along)
    for side, sign in enumerate((1, -1)):
        chosen = (sign * height > 0) | (distance[first] == 0) | (distance[second] == 0)
        order = np.argsort(along[chosen])
        ends[side] = np.interp(places, along[chosen][order], height[chosen][order])
    row = int((ends[0] - ends[1]).argmax())
    foot = longest[0] + places[row] * axis
    return longest, np.stack([foot + ends[1][row] * across, foot + ends[0][row] * across])


def _hull(points: np.ndarray) -> np.ndarray:
    """Corners of the convex hull of points (N, 2), in order (Andrew's monotone chain)."""
    points = np.unique(points, axis=0)
    if len(points) < 3:
        return points
    chains = []
    for ordered in (points, points[::-1]):
        chain: list[np.ndarray] = []
        for point in ordered:
            while len(chain) > 1:
                a, b = chain[-1] - chain[-2], point - chain[-2]
                if a[0] * b[1] - a[1] * b[0] > 0:
                    break
                chain.pop()
            chain.append(point)
        chains.append(chain[:-1])
    return np.array(chains[0] + chains[1])
