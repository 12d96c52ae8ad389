"""How good a registration is: overlap, surface and landmark distances, and the regularity of the map.

Every figure the project prints comes from here.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import torch

from ..space.field import DisplacementField
from ..space.sampling import sample
from ..space.transforms import Transform
from ..space.volume import Volume


def dice(fixed_labels: Volume, warped_labels: Volume) -> dict[int, float]:
    """Dice overlap of every label that occurs in both maps' union; both on the same grid.

    A label missing from one of them scores 0, so that lost organs count.
    """
    first = fixed_labels.tensor.flatten().long()
    second = warped_labels.tensor.flatten().long()
    # Ids of an atlas reach 2^32: what is counted is their place among those that occur.
    ids = torch.cat([first.unique(), second.unique()]).unique()
    size = _occurrences(first, ids) + _occurrences(second, ids)
    both = _occurrences(first[first == second], ids)
    return {int(ids[row]): float(2 * both[row] / size[row]) for row in (ids > 0).nonzero().flatten()}


def _occurrences(labels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """(L,) how often each of the sorted ``ids`` occurs."""
    return torch.bincount(torch.searchsorted(ids, labels), minlength=len(ids))


def common_labels(fixed_labels: Volume, moving_labels: Volume) -> list[int]:
    """Labels above 0 that both maps hold: what a registration of the two can be judged by."""
    both = set(fixed_labels.tensor.unique().tolist()) & set(moving_labels.tensor.unique().tolist())
    return sorted(int(label) for label in both if label > 0)


def mean_dice(scores: dict[int, float]) -> float:
    """Mean over labels."""
    return float(np.mean(list(scores.values())))


def hausdorff95(fixed_labels: Volume, warped_labels: Volume, label: int) -> float:
    """95th percentile of the symmetric surface distances of one label in mm; infinite where one is empty."""
    masks = [volume.grid.apply_to_sitk(_mask(volume, label)) for volume in (fixed_labels, warped_labels)]
    if any(not sitk.GetArrayViewFromImage(mask).any() for mask in masks):
        return float("inf")
    surfaces = [sitk.GetArrayFromImage(sitk.LabelContour(mask)) > 0 for mask in masks]
    to_surface = [
        _distance_to(volume.grid.apply_to_sitk(sitk.GetImageFromArray(surface.astype(np.uint8))))
        for volume, surface in zip((fixed_labels, warped_labels), surfaces, strict=True)
    ]
    distances = np.concatenate([to_surface[1][surfaces[0]], to_surface[0][surfaces[1]]])
    return float(np.percentile(distances, 95))


def _distance_to(surface: sitk.Image) -> np.ndarray:
    distance = sitk.SignedMaurerDistanceMap(surface, squaredDistance=False, useImageSpacing=True)
    return np.abs(sitk.GetArrayFromImage(distance))


def _mask(volume: Volume, label: int) -> sitk.Image:
    return sitk.GetImageFromArray((volume.tensor[0, 0] == label).numpy().astype(np.uint8))


def surface_errors(
    transform: Transform, fixed_labels: Volume, moving_labels: Volume
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far the surfaces of the fixed labels, carried to the moving image, lie from those of the same labels there.

    A surface can slide along itself unseen: the distances are lower bounds of the error. Where a label touches an end
    of its image, or is carried beyond the moving one, nothing is known.

    Returns:
        (N, 3) LPS mm in the fixed space, (N,) mm, and (N,) the labels.
    """
    places, distances, names = [np.zeros((0, 3))], [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
    for label in common_labels(fixed_labels, moving_labels):
        contour = sitk.LabelContour(_mask(fixed_labels, label))
        points = _inner_points(sitk.GetArrayFromImage(contour) > 0, fixed_labels)
        target = moving_labels.grid.apply_to_sitk(_mask(moving_labels, label))
        signed = sitk.GetArrayFromImage(
            sitk.SignedMaurerDistanceMap(target, squaredDistance=False, useImageSpacing=True)
        )
        mapped = transform.map_points(points)
        center = moving_labels.grid.center
        relative = torch.as_tensor(mapped - center, dtype=torch.float32)[None, None]
        found = sample(torch.from_numpy(signed).float()[None, None], moving_labels.grid, relative, reference=center)
        known = moving_labels.grid.contains(mapped)
        places.append(points[known])
        distances.append(found.abs().flatten().numpy()[known].astype(float))
        names.append(np.full(int(known.sum()), label))
    return np.concatenate(places), np.concatenate(distances), np.concatenate(names)


def _inner_points(mask: np.ndarray, volume: Volume) -> np.ndarray:
    """(N, 3) LPS mm of a (D, H, W) mask's voxels that are not of the image's outermost two layers."""
    inner = np.zeros_like(mask)
    inner[2:-2, 2:-2, 2:-2] = mask[2:-2, 2:-2, 2:-2]
    return volume.grid.voxels_to_points(np.argwhere(inner)[:, ::-1])


def coverage_percent(bounds: np.ndarray, errors: np.ndarray) -> float:
    """Percentage of (N,) errors that are not above their (N,) bounds."""
    return 100.0 * float((np.asarray(errors) <= np.asarray(bounds)).mean())


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of (N,) values, ties sharing their mean rank; NaN where one of them is constant."""
    ranks = [_ranks(np.asarray(values, dtype=float)) for values in (first, second)]
    if len(ranks[0]) < 2 or any(np.ptp(rank) == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def target_registration_error(transform: Transform, fixed_points: np.ndarray, moving_points: np.ndarray) -> np.ndarray:
    """(N,) mm: how far fixed points, carried to the moving image, land from their counterparts."""
    return np.linalg.norm(transform.map_points(fixed_points) - np.asarray(moving_points, dtype=float), axis=1)


def summary(values: np.ndarray) -> dict[str, float]:
    """Mean, median, 95th percentile and maximum."""
    values = np.asarray(values, dtype=float)
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, 95)),
        "max": float(values.max()),
    }


def sdlogj(determinant: torch.Tensor) -> float:
    """Standard deviation of log det J with folds clipped to 1e-9 (the SAMConvex paper's definition)."""
    return float(determinant.clamp(min=1e-9).log().std())


def sdlogj_learn2reg(determinant: torch.Tensor) -> float:
    """Learn2Reg's standard deviation of log(det J + 3), two voxels cropped from every side."""
    inner = determinant[..., 2:-2, 2:-2, 2:-2] if min(determinant.shape[2:]) > 4 else determinant
    return float((inner + 3).clamp(min=1e-9).log().std())


def folding_percent(determinant: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Percentage of voxels (of ``mask``) where the map folds, det J <= 0."""
    folded = determinant <= 0
    return 100.0 * float(folded[mask].float().mean() if mask is not None else folded.float().mean())


def inverse_consistency(forward: Transform, backward: Transform, points: np.ndarray) -> dict[str, float]:
    """|backward(forward(p)) - p| in mm at fixed-space points (N, 3): mean, p95 and max."""
    residual = np.linalg.norm(backward.map_points(forward.map_points(points)) - points, axis=1)
    numbers = summary(residual)
    return {key: numbers[key] for key in ("mean", "p95", "max")}


def regularity(field: DisplacementField, mask: torch.Tensor | None = None) -> dict[str, float]:
    """Folding and both SDlogJ of a field on its own grid, without the affine part; ``mask`` is bool on that grid."""
    return regularity_of(field.jacobian_determinant(), mask)


def regularity_of(determinant: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, float]:
    """The same from Jacobian determinants (1, 1, D, H, W)."""
    return {
        "folding_percent": folding_percent(determinant, mask),
        "sdlogj": sdlogj(determinant if mask is None else determinant[mask]),
        "sdlogj_learn2reg": sdlogj_learn2reg(determinant),
    }
