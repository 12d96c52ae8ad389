"""Batches drawn in advance: the same ones in the same order, whoever draws them, and errors that arrive."""

from __future__ import annotations

import itertools
import os

import pytest
import torch
from samconvex.training.data.prepared import prepared


def drawn(number: int) -> tuple[torch.Tensor, int]:
    if number == 13:
        raise ValueError("unlucky")
    return torch.full((2,), number), os.getpid()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_from_the_number_asked_for(workers):
    batches = prepared(drawn, 4, workers)
    found = list(itertools.islice(batches, 5))
    batches.close()
    assert [int(values[0]) for values, _ in found] == [4, 5, 6, 7, 8]
    processes = {process for _, process in found}
    assert processes == {os.getpid()} if workers == 0 else len(processes) == 2 and os.getpid() not in processes


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_draw_arrives(workers):
    batches = prepared(drawn, 12, workers)
    next(batches)
    with pytest.raises(ValueError, match="unlucky"):
        next(batches)
    batches.close()
