"""Batches by number, drawn in advance by processes of their own."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")
# Copies nothing: the training images are shared until somebody writes.
_FORK = "fork"


class _Drawn(Dataset, Generic[T]):
    def __init__(self, draw: Callable[[int], T]) -> None:
        self.draw = draw

    def __getitem__(self, number: int) -> T:
        return self.draw(number)


def prepared(draw: Callable[[int], T], start: int, workers: int) -> Generator[T, None, None]:
    """``draw(start)``, ``draw(start + 1)`` and so on for ever, in this order whatever the number of processes.

    Args:
        draw: gives the same for the same number; to be pickled where processes are not forked.
        workers: processes that draw in advance; 0 draws when asked.
    """
    if workers <= 0:
        yield from map(draw, itertools.count(start))
    context = _FORK if _FORK in multiprocessing.get_all_start_methods() else None
    loader: DataLoader[T] = DataLoader(
        _Drawn(draw),
        batch_size=None,
        sampler=itertools.count(start),  # type: ignore[arg-type]
        num_workers=workers,
        multiprocessing_context=context,
    )
    yield from loader
