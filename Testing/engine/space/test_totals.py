"""Sums over whole images are the same bits for any number of threads, and as exact as torch's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from samconvex.features.mind import mind_ssc
from samconvex.space.totals import mean, total

THREADS = (1, 2, 3, 4, 8)


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def images() -> list[torch.Tensor]:
    """Sizes that divide in many ways, values whose sums round."""
    made = torch.Generator().manual_seed(1)
    return [torch.rand(1, 1, 40 + 7 * n, 50, 70, generator=made).square() for n in range(6)]


def kinds(work: Callable[[torch.Tensor], torch.Tensor]) -> int:
    """How many different answers numbers of threads give to ``work`` on the images."""
    answers = set()
    for threads in THREADS:
        torch.set_num_threads(threads)
        answers.add(torch.stack([work(image) for image in images()]).numpy().tobytes())
    return len(answers)


def test_totals_do_not_depend_on_threads_where_torchs_sums_do():
    assert kinds(total) == 1 and kinds(mean) == 1
    assert kinds(lambda image: total(image.double())) == 1
    # Were torch's own sums alike, the module would be needless.
    assert kinds(torch.sum) > 1


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 5_000_003])
def test_totals_are_sums(count: int):
    values = torch.rand(count, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert float(total(values)) == pytest.approx(float(values.sum()), rel=1e-13)
    assert float(total(values.float())) == pytest.approx(float(values.sum()), rel=1e-5)


def test_a_descriptor_of_a_whole_image_does_not_depend_on_threads():
    def described(image: torch.Tensor) -> torch.Tensor:
        # Where an image is nearly flat, the mean over all of it decides.
        faint = image.clone()
        faint[..., :40] *= 1e-4
        return mind_ssc(faint)[..., :20:3, :20:3, :20:3]

    assert kinds(described) == 1
