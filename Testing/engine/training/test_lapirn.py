"""LapIRN's recipe: levels one after the other, a loss that falls where images come together, from the command line."""

from __future__ import annotations

import json

import pytest
import torch
from samconvex.cli.main import main
from samconvex.errors import InputError
from samconvex.networks.lapirn import LapIRN, LevelField, identity, warped
from samconvex.space.grid import Grid
from samconvex.training.data.images import Image
from samconvex.training.lapirn import (
    LOSSES,
    Comparison,
    LapirnSettings,
    boxed,
    correlation_loss,
    fields,
    level_at,
    local_correlation,
    roughness,
)
from samconvex.weights.models import load_feed_forward

CPU = torch.device("cpu")


def textured(size: int = 16) -> torch.Tensor:
    torch.manual_seed(0)
    noise = torch.nn.functional.avg_pool3d(torch.rand(1, 1, *(size + 4,) * 3), 5, 1)
    return (noise - noise.min()) / (noise.max() - noise.min())


def test_local_correlation_is_one_for_another_contrast_and_falls_with_a_shift():
    image = textured()
    # Zeros around the images take part in the windows at the edges, as in the reference.
    assert float(local_correlation(image, 0.5 * image, 5)) > 0.99
    assert float(local_correlation(image, -image, 5)) > 0.99
    assert float(local_correlation(image, image.roll(3, -1), 5)) < 0.7
    # Three resolutions count 1, 1/2 and 1/4.
    assert -1.75 < float(correlation_loss(image, image, (7, 5, 3))) < -1.6


def test_local_correlation_sums_over_whole_windows():
    first, second = textured(), textured().roll(1, -2)

    def total(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool3d(values, 3, 1, 1) * 27

    cross = total(first * second) - total(first) * total(second) / 27
    variances = [total(v.square()) - total(v).square() / 27 for v in (first, second)]
    expected = (cross.square() / (variances[0] * variances[1] + 1e-5)).mean()
    assert float(local_correlation(first, second, 3)) == pytest.approx(float(expected), rel=1e-4)


def test_roughness_counts_half_voxels_per_voxel():
    x = identity(torch.zeros(1, 3, 9, 7, 5)).permute(0, 4, 1, 2, 3)
    # A stretch along x: neighbors differ by 0.2 half voxels, on one of three axes and in one of three components.
    stretch = torch.cat([0.1 * x[:, :1], torch.zeros(1, 2, 9, 7, 5)], 1)
    assert float(roughness(stretch)) == pytest.approx(0.2**2 / 9, rel=1e-5)
    assert float(roughness(torch.full((1, 3, 9, 7, 5), 0.3))) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_least_where_the_images_come_together(loss):
    fixed = textured(24)
    settings = LapirnSettings(loss=loss, smoothness=0.0)
    compare = Comparison(settings, CPU)
    shift = torch.zeros(1, 3, 24, 24, 24)
    shift[:, 0] = 2 * 2 / 23  # two voxels
    moving = warped(fixed, -shift)
    maps = [compare.described(image) for image in (fixed, moving)]
    losses = {}
    for name, u in (("right", shift), ("none", torch.zeros_like(shift)), ("wrong", -shift)):
        losses[name] = float(compare(*maps, LevelField(u, u), 2)[0])
    assert losses["right"] < losses["none"] and losses["right"] < losses["wrong"]
    with pytest.raises(InputError, match="no loss 'ssd'"):
        Comparison(LapirnSettings(loss="ssd"), CPU)


def test_levels_are_trained_in_turn_and_the_earlier_ones_stand_still_at_first():
    assert [level_at(share) for share in (0.0, 0.24)] == [(0, False)] * 2
    assert [level_at(share) for share in (0.25, 0.27, 0.5, 0.6, 1.0)] == [
        (1, True),
        (1, False),
        (2, True),
        (2, False),
        (2, False),
    ]


def test_the_box_lies_around_what_is_no_air():
    values = torch.zeros(1, 1, 40, 40, 40)
    values[..., 30:38, 2:10, 10:20] = 0.8
    image = Image("a", "mr", values.half(), (values > 0).to(torch.uint8), Grid((40, 40, 40), (1.0, 1.0, 1.0)))
    box, labels = boxed(image, (16, 16, 16))
    assert labels is not None and int(labels.sum()) == 8 * 8 * 10
    assert box[0, 0, 4:12, 4:12, 3:13].min() > 0.7 and float(box.sum()) == pytest.approx(0.8 * 640, rel=1e-2)
    # Images that lie in one frame keep it: the middle 12 to 28 shows nothing of z 30 to 38.
    assert float(boxed(image, (16, 16, 16), aligned=True)[0].sum()) == 0


def test_fields_keep_all_digits_whatever_the_convolutions_are_computed_in():
    images = torch.rand(2, 1, 1, 16, 16, 16)
    found = fields(LapIRN(start_channels=1), images[0], images[1])
    assert all(field.displacement.dtype == field.velocity.dtype == torch.float32 for field in found)


def test_the_command_trains_and_its_weights_predict_fields(tmp_path):
    config, output = tmp_path / "config.json", tmp_path / "lapirn.pt"
    config.write_text(
        json.dumps({"spacing_mm": 16.0, "shape": [16, 16, 16], "start_channels": 1, "diffeomorphic": True})
    )
    words = ["train", "lapirn", "--data", "phantom", "-o", str(output), "--config", str(config), "--threads", "1"]
    assert main([*words, "--steps", "4", "--progress", "none"]) == 0
    network = load_feed_forward(output)
    assert isinstance(network, LapIRN) and network.diffeomorphic and network.spacing_mm == 16.0
    meta = torch.load(output, weights_only=True)["meta"]
    assert {"loss", "dice_start", "dice"} <= set(meta["validation"]["after"])
    assert main([*words, "--steps", "5", "--resume", "--progress", "none"]) == 0
    config.write_text(json.dumps({"shape": [12, 16, 16]}))
    assert main([*words, "--overwrite", "--progress", "none"]) == 2


def test_training_brings_a_pair_together():
    torch.manual_seed(0)
    network = LapIRN(start_channels=2)
    fixed = textured(16)
    shift = torch.zeros(1, 3, 16, 16, 16)
    shift[:, 1] = 2 * 2 / 15
    moving = warped(fixed, -shift)
    compare = Comparison(LapirnSettings(smoothness=0.01), CPU)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(25):
        loss, _ = compare(fixed, moving, network.fields(moving, fixed)[-1], 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1
