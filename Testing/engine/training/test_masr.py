"""The contrastive recipe of MASR-Net makes places findable in another contrast, from the command line too."""

from __future__ import annotations

import json

import pytest
import torch
from samconvex.cli.main import main
from samconvex.errors import InputError
from samconvex.networks.masr import MASRNet
from samconvex.training.loop import read_settings
from samconvex.training.masr import Draw, MasrSettings, Places, contrastive_loss, draw_views, neighbors, views_loss
from samconvex.weights.models import load_network


def test_the_loss_is_small_where_places_agree_and_nothing_else_does():
    vectors = torch.eye(6)
    low, found = contrastive_loss(vectors, vectors, 0.07)
    high, lost = contrastive_loss(vectors, vectors.roll(1, 0), 0.07)
    assert float(low) < 0.01 < float(high) and (found, lost) == (1.0, 0.0)


def test_places_next_to_each_other_in_two_modalities_are_not_told_apart():
    shape = (8, 8, 8)
    positions = torch.tensor([0, 2, 3, 64 * 7])  # x = 0, 2, 3, and z = 7
    ignored = neighbors(positions, shape, 2)
    assert ignored.tolist() == [
        [False, True, False, False],
        [True, False, True, False],
        [False, True, False, False],
        [False] * 4,
    ]
    vectors = torch.eye(4)[[1, 0, 2, 3]]  # the first two places have each other's descriptors
    strict, lost = contrastive_loss(torch.eye(4), vectors, 0.07)
    lenient, _ = contrastive_loss(torch.eye(4), vectors, 0.07, ignored)
    assert float(lenient) < float(strict) and lost == 0.5


def test_a_few_steps_lower_the_loss():
    torch.manual_seed(0)
    settings = MasrSettings(samples=200)
    network = MASRNet((4, 4, 4, 4), 2, 8)
    crop = torch.nn.functional.avg_pool3d(torch.rand(1, 1, 18, 18, 18), 3, 1)
    crop = (crop - crop.min()) / (crop.max() - crop.min())
    drawn = Draw(crop, crop, torch.randperm(16**3)[:200].repeat(2, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(25):
        loss, _ = views_loss(network, drawn, settings, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_views_are_cut_apart_and_their_places_are_the_same():
    values = torch.rand(1, 1, 40, 40, 40).half() / 2 + 0.5
    settings = MasrSettings(shape=(16, 16, 16), shift=6, samples=100)
    generator = torch.Generator().manual_seed(0)
    drawn = draw_views([Places(values)], settings, generator, paired=True)
    assert drawn is not None and not drawn.paired and not torch.equal(drawn.first, drawn.second)
    seen = [view.flatten()[places] for view, places in zip((drawn.first, drawn.second), drawn.positions, strict=True)]
    assert torch.equal(*seen) and not torch.equal(*drawn.positions)
    drawn = draw_views([Places(values, -values)], settings, generator, paired=True)
    assert drawn is None  # nothing of the other modality is foreground
    drawn = draw_views([Places(values, 1.5 - values)], settings, generator, paired=True)
    assert drawn is not None and drawn.paired
    first, second = (v.flatten()[p] for v, p in zip((drawn.first, drawn.second), drawn.positions, strict=True))
    torch.testing.assert_close(first, 1.5 - second, atol=2e-3, rtol=0)


def test_descriptors_do_not_tell_where_a_voxel_lies_in_the_image():
    torch.manual_seed(0)
    network = MASRNet((4, 4, 4, 4), 2, 8).eval()
    described = network(torch.full((1, 1, 24, 24, 24), 0.5))
    torch.testing.assert_close(described, described[..., 12:13, 12:13, 12:13].expand_as(described), atol=1e-3, rtol=0)


def test_the_command_trains_and_writes_loadable_weights(tmp_path):
    config, output = tmp_path / "config.json", tmp_path / "masr.pt"
    small = {
        "spacing_mm": 12.0,
        "shape": [16, 16, 16],
        "shift": 4,
        "widths": [4, 4, 4, 4],
        "maps": 2,
        "channels": 6,
        "samples": 64,
    }
    config.write_text(json.dumps(small))
    words = ["train", "masr", "--data", "phantom", "-o", str(output), "--steps", "2", "--config", str(config)]
    assert main([*words, "--progress", "none", "--threads", "1"]) == 0
    assert load_network(MASRNet, output).config["channels"] == 6
    assert main([*words, "--progress", "none"]) == 2


def test_unknown_settings_are_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"speed": 3}')
    with pytest.raises(InputError, match="speed"):
        read_settings(MasrSettings, path)
