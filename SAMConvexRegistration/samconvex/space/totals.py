"""Sums over whole images that come out the same for any number of threads.

torch divides a sum to one number among its threads, each adds up its part, and the rounding of the parts depends on
where the divisions fall: one bit of a mean, which the choice of a displacement then turns into millimeters. Sums along
an axis are each done by one thread.
"""

from __future__ import annotations

import torch

# Of the parts that are added up in order; torch does not divide fewer than 32768.
_PART = 4096


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum of all elements, a scalar tensor of the same type; the same bits for any number of threads."""
    while values.numel() > _PART:
        flat = values.reshape(-1)
        whole = flat.numel() // _PART * _PART
        sums = flat[:whole].view(-1, _PART).sum(1)
        values = torch.cat([sums, flat[whole:].sum()[None]]) if whole < flat.numel() else sums
    return values.sum()


def mean(values: torch.Tensor) -> torch.Tensor:
    """The mean of all elements, see :func:`total`."""
    return total(values) / values.numel()
