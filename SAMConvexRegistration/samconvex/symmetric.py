"""Registration without a preferred direction: both directions are solved and meet halfway.

The mean of two maps, one each way, is chosen so that exchanging the images gives the inverse map.
"""

from __future__ import annotations

from .pyramid import symmetrized
from .space.field import DisplacementField
from .space.transforms import Transform

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
