"""Quantile regression with rising functions, and its calibration on patients held out in turn."""

from __future__ import annotations

import numpy as np
import torch
from samconvex.registration.error_model import ErrorModel, Rise, quantile_with_weights

SHARE = 0.9
# Quantiles of an input at which its function may bend.
BENDS = (0.02, 0.25, 0.5, 0.75, 0.9, 0.98)
FOLDS = 4
# Pulls heights to zero: inputs that add nothing stay out. Errors below the floor are as good as none.
SPARSENESS, FLOOR_MM = 0.004, 0.3
STEPS, RATE = 700, 0.05
# So many places of a pair are fitted; all of them calibrate.
PLACES = 400

# Group, evidence by name and errors in mm of one pair.
Row = tuple[str, dict[str, np.ndarray], np.ndarray]


def weights_of(rows: list[Row]) -> list[np.ndarray]:
    """Every group of truth counts alike, and every pair alike within it."""
    groups = [group for group, *_ in rows]
    return [np.full(len(errors), 1.0 / (groups.count(group) * len(errors))) for group, _, errors in rows]


def fitted(rows: list[Row]) -> ErrorModel:
    """The model whose bound nine of ten errors are below, by the pinball loss of the logarithms; not yet calibrated."""
    rows = [_thinned(row) for row in rows]
    names = list(rows[0][1])
    inputs = {name: np.concatenate([maps[name] for _, maps, _ in rows]) for name in names}
    target = torch.from_numpy(np.log(np.maximum(np.concatenate([e for *_, e in rows]), FLOOR_MM))).float()
    weight = torch.from_numpy(np.concatenate(weights_of(rows))).float()
    weight /= weight.sum()
    knots, columns, owner = {}, [], []
    for name in names:
        ends = np.unique(np.quantile(inputs[name], BENDS).round(6))
        if len(ends) < 2:
            continue
        knots[name] = ends
        values = torch.from_numpy(inputs[name]).float()
        for low, high in zip(ends, ends[1:], strict=False):
            columns.append(((values - float(low)) / float(high - low)).clamp(0, 1))
            owner.append(name)
    basis = torch.stack(columns, 1)
    heights, intercept = _descended(basis, target, weight)
    rises = {
        name: Rise(
            tuple(float(k) for k in ends),
            tuple(round(float(h), 5) for h, o in zip(heights, owner, strict=True) if o == name),
        )
        for name, ends in knots.items()
    }
    return ErrorModel(intercept, {name: rise for name, rise in rises.items() if sum(rise.heights) > 1e-3})


def _thinned(row: Row) -> Row:
    group, maps, errors = row
    chosen = np.linspace(0, len(errors) - 1, min(PLACES, len(errors))).astype(int)
    return group, {name: values[chosen] for name, values in maps.items()}, errors[chosen]


def _descended(basis: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> tuple[np.ndarray, float]:
    """Heights (not negative) and intercept that minimize the weighted pinball loss plus the sparseness."""
    raw = torch.full((basis.shape[1],), 0.05, requires_grad=True)
    intercept = torch.tensor(float(target.median()), requires_grad=True)
    optimizer = torch.optim.Adam([raw, intercept], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        residual = target - basis @ raw - intercept
        loss = (weight * torch.maximum(SHARE * residual, (SHARE - 1) * residual)).sum() + SPARSENESS * raw.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            raw.clamp_(min=0)
    return raw.detach().numpy(), float(intercept.detach())


def calibrated(rows: list[Row], seed: int) -> tuple[ErrorModel, list[tuple[np.ndarray, np.ndarray]]]:
    """The model of all pairs, scaled by what models without a pair would have needed for it.

    Returns:
        The model, and for every pair (bounds, errors) as it was held out, scaled likewise.
    """
    folds = _folds(rows, seed)
    held_out: list[np.ndarray] = [np.zeros(0)] * len(rows)
    for fold in sorted(set(folds)):
        others = [row for row, f in zip(rows, folds, strict=True) if f != fold]
        model = fitted(others) if others else fitted(rows)
        for n in (n for n, f in enumerate(folds) if f == fold):
            held_out[n] = bounds_of(model, rows[n][1])
    ratios = [errors / bounds for bounds, (*_, errors) in zip(held_out, rows, strict=True)]
    scale = quantile_with_weights(np.concatenate(ratios), np.concatenate(weights_of(rows)), SHARE)
    model = fitted(rows)
    pairs = [(scale * bounds, errors) for bounds, (*_, errors) in zip(held_out, rows, strict=True)]
    return ErrorModel(model.intercept, model.rises, scale), pairs


def _folds(rows: list[Row], seed: int) -> list[int]:
    """A fold for every pair; the pairs of a group are spread over all folds. No patient is in two pairs."""
    random = np.random.default_rng(seed)
    folds = [0] * len(rows)
    for group in sorted({row[0] for row in rows}):
        members = [n for n, row in enumerate(rows) if row[0] == group]
        for place, n in enumerate(random.permutation(members)):
            folds[n] = place % FOLDS
    return folds


def bounds_of(model: ErrorModel, maps: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) mm."""
    return model.bound({name: torch.from_numpy(values) for name, values in maps.items()}).numpy()
