"""Views of a volume: image and points go through the same geometry."""

from __future__ import annotations

import pytest
import torch
from samconvex.training.data.augmentation import (
    augment_curve,
    augment_hu,
    augment_window,
    beyond_window,
    cut_to_window,
)
from samconvex.training.data.views import random_view, rotation_matrix

SHAPE = (32, 48, 40)


def _view(seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    return random_view(torch.tensor([40.0, 45.0, 50.0]), SHAPE, generator, **changes)


@pytest.mark.parametrize("seed", range(5))
def test_points_go_to_the_view_and_back(seed):
    view = _view(seed, cut_probability=0.0)
    inside = torch.rand(200, 3) * (torch.tensor(SHAPE) - 1)
    places, found = view.locate(view.to_volume(inside))
    assert found.float().mean() > 0.99
    assert (places - inside)[found].norm(dim=1).max() < 0.1


def test_the_image_shows_what_the_points_say():
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in (80, 90, 100)), indexing="ij")
    volume = (z * 3 + y * 5 - x * 4).round().to(torch.int16)[None, None]
    view = _view(3, cut_probability=0.0)
    image = view.sample(volume, -1000.0)[0, 0]
    index = torch.stack([torch.randint(4, n - 4, (300,)) for n in SHAPE], 1)
    at = view.to_volume(index.float())
    within = ((at > 1) & (at < torch.tensor([78.0, 88.0, 98.0]))).all(1)
    assert within.sum() > 200
    shown = image[tuple(index[within].T)]
    expected = (at[within] * torch.tensor([3.0, 5.0, -4.0])).sum(1)
    assert (shown - expected).abs().max() < 0.2


def test_outside_the_volume_is_air():
    view = _view(1, cut_probability=0.0)
    view.center = torch.tensor([500.0, 500.0, 500.0])
    assert (view.sample(torch.zeros(1, 1, 20, 20, 20, dtype=torch.int16), -1000.0) == -1000).all()


def test_a_cut_field_of_view_hides_image_and_points():
    view = _view(2, cut_probability=1.0)
    image = view.sample(torch.full((1, 1, 200, 200, 200), 50, dtype=torch.int16), -1000.0)[0, 0]
    cut = [k for k in range(3) if view.low[k] > 0 or view.high[k] < SHAPE[k] - 1]
    assert len(cut) == 1
    index = torch.nonzero(image == -1000).float()
    assert 0.02 * image.numel() < len(index) < 0.5 * image.numel()
    sample = index[:: len(index) // 50]
    assert not view.locate(view.to_volume(sample))[1].any()


def test_the_same_seed_gives_the_same_view():
    torch.testing.assert_close(_view(5).field, _view(5).field)
    assert not torch.equal(_view(5).matrix, _view(6).matrix)


def test_rotations_are_rotations():
    matrix = rotation_matrix(torch.tensor([0.3, -0.2, 0.5]))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3))
    assert float(torch.linalg.det(matrix)) == pytest.approx(1.0)


def test_appearance_changes_can_be_switched_off_and_keep_air():
    image = torch.randn(1, 1, 16, 16, 16) * 100
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(augment_hu(image, generator, 0.0), image)
    for _ in range(10):
        changed = augment_hu(image, generator)
        assert changed.shape == image.shape and bool(torch.isfinite(changed).all())
        assert (augment_curve(torch.zeros(4), generator) == 0).all()


def test_a_window_leaves_tissue_and_puts_one_value_for_air_and_one_for_gas():
    image = torch.full((1, 1, 20, 20, 20), -1000.0)
    image[..., 2:18] = torch.linspace(-120, 260, 16)  # tissue
    image[..., 1] = -600.0  # the blurred rim of the skin
    image[:, :, 6:14, 6:14, 6:14] = -780.0
    image[:, :, 0, :, 10] = 900.0
    cut = cut_to_window(image, -125.0, 275.0)
    tissue = (image > -125) & (image < 275)
    assert torch.equal(cut[tissue], image[tissue])
    assert (
        (cut[image == -780.0] == -850).all() and (cut[image < -900] == -1000).all() and (cut[image > 275] == 275).all()
    )
    assert (cut[image == -600.0] == -1000).all()


def test_what_a_window_cut_off_is_put_back_and_only_that():
    image = torch.full((1, 1, 20, 20, 20), 40.0)
    image[:, :, :6], image[:, :, 14:] = -850.0, 275.0
    more = beyond_window(image, 275.0, torch.Generator().manual_seed(0))
    assert torch.equal(more[:, :, 6:14], image[:, :, 6:14])
    assert float(more[:, :, :6].std()) > 10 and float(more[:, :, 14:].min()) >= 275 and float(more.max()) > 375


def test_half_of_the_views_get_the_other_range_of_grey_values():
    generator = torch.Generator().manual_seed(0)
    image = torch.full((1, 1, 8, 8, 8), 600.0)
    highest = [float(augment_window(image, (-125, 275), False, generator).max()) for _ in range(100)]
    assert set(highest) == {600.0, 275.0} and 30 < highest.count(275.0) < 70
    image.fill_(275.0)
    assert {float(augment_window(image, (-125, 275), True, generator).max()) > 300 for _ in range(20)} == {True, False}
