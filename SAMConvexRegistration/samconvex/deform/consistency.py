"""Registration without a preferred direction: both directions are solved and meet halfway.

The mean of two maps, one each way, is chosen so that exchanging the images gives the inverse map.
"""

from __future__ import annotations

import torch

from ..space.field import DisplacementField
from ..space.transforms import Transform

_ROUNDS = 10


def inverse_consistent(
    forward: DisplacementField, backward: DisplacementField, initial: Transform
) -> DisplacementField:
    """The forward field u of the pair that agrees with both directions and is inverted by the other.

    Args:
        forward: u of T(p) = A(p + u(p)), A = ``initial``; zero at the border of its grid.
        backward: w of S(q) = A^-1(q + w(q)), in the moving image's frame, zero at the border of its grid.

    Returns:
        u on ``forward``'s grid, after the mutual correction of u and of w carried to the fixed frame, A^-1 (id + w) A.
    """
    carried = Transform((*initial.parts, backward, *initial.inverse().parts)).displacement_field(forward.grid)
    return symmetrized(forward, carried, _ROUNDS)


def symmetrized(forward: DisplacementField, backward: DisplacementField, iterations: int = 5) -> DisplacementField:
    """The forward map of a pair made each other's inverse: u <- (u - w(. + u)) / 2 and likewise w, by turns.

    The mutual correction of ConvexAdam's inverse consistency (Siebert et al., 2021).
    """
    grid = forward.grid
    for _ in range(iterations):
        u = DisplacementField(0.5 * (forward.tensor - _pulled(backward, forward)), grid)
        w = DisplacementField(0.5 * (backward.tensor - _pulled(forward, backward)), grid)
        forward, backward = u, w
    return forward


def _pulled(field: DisplacementField, by: DisplacementField) -> torch.Tensor:
    """field(p + by(p)) on the common grid, edge values continued."""
    return field.after(by).tensor - by.tensor
