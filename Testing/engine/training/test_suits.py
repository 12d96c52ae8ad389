"""The replicator learns MIND, the end-to-end step reaches both images' features, and runs can stop and go on."""

from __future__ import annotations

import json

import pytest
import torch
from samconvex.errors import Cancelled, InputError
from samconvex.networks.featcnn import FeatCNN
from samconvex.space.grid import Grid
from samconvex.training import suits
from samconvex.training.data.contrast import bezier_table, random_contrast
from samconvex.training.data.images import cropped
from samconvex.training.suits import SuitsSettings, pair_loss, replicator_loss, train
from samconvex.weights.models import load_network

SMALL = SuitsSettings(spacing_mm=12.0, shape=(16, 16, 16), iterations=2, batch=1, threads=1)


def test_contrast_curves_are_monotone_and_keep_the_ends():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        table = bezier_table(generator)
        assert float(table[0]) == pytest.approx(0, abs=1e-3) and float(table[-1]) == pytest.approx(1, abs=1e-3)
        assert float(table.diff().min()) >= -1e-5
    ramp = torch.linspace(0, 1, 50)
    inverted = random_contrast(ramp, generator, inversion=1.0, noise=0.0)
    assert float(inverted.diff().max()) <= 1e-5


def test_crops_outside_are_empty():
    values = torch.ones(1, 1, 4, 4, 4)
    assert float(cropped(values, [-2, 0, 0], (4, 4, 4)).sum()) == 32
    assert float(cropped(values, [9, 0, 0], (4, 4, 4)).sum()) == 0


def test_the_replicator_comes_closer_to_mind():
    torch.manual_seed(0)
    network = FeatCNN()
    image = torch.nn.functional.avg_pool3d(torch.rand(1, 1, 18, 18, 18), 3, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = replicator_loss(network, image, "ct")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("k_back", [0, 2])
def test_the_label_loss_reaches_the_branches_of_both_images(k_back):
    torch.manual_seed(0)
    network = FeatCNN()
    labels = torch.zeros(1, 1, 16, 16, 16, dtype=torch.long)
    labels[..., 4:10, 5:12, 4:11] = 1
    values = labels.float() * 0.6 + 0.2 * torch.rand(1, 1, 16, 16, 16)
    moving = (1 - values.roll(2, 4), labels.roll(2, 4), "mr")
    loss = pair_loss(network, (values, labels, "ct"), moving, k_back, SMALL)
    loss.backward()
    for branch in ("ct", "mr"):
        size = sum(float(p.grad.abs().sum()) for p in network.branches[branch].parameters() if p.grad is not None)
        assert size > 0


def test_a_perfect_match_costs_less_than_a_shifted_one():
    torch.manual_seed(0)
    network = FeatCNN()
    labels = torch.zeros(1, 1, 16, 16, 16, dtype=torch.long)
    labels[..., 4:10, 5:12, 4:11] = 1
    values = labels.float()
    with torch.no_grad():
        same = pair_loss(network, (values, labels, "ct"), (values, labels, "ct"), 0, SMALL)
        moved = pair_loss(network, (values, labels, "ct"), (values, labels.roll(4, 4), "ct"), 0, SMALL)
    assert float(same) < 0.2 * float(moved)


def test_training_end_to_end_writes_weights_log_and_can_go_on(tmp_path):
    first, second = tmp_path / "featcnn.pt", tmp_path / "suits.pt"
    train(None, first, end_to_end=False, settings=SMALL, steps=2)
    result = train(None, second, end_to_end=True, settings=SMALL, steps=2, start_from=first)
    figures = {"l1_to_mind", "dice_start", "dice_same", "dice_other"}
    assert result["step"] == 2 and figures == set(result["validation"]["after"])
    went_on = train(None, second, end_to_end=True, settings=SMALL, steps=3, resume=True)
    assert went_on["step"] == 3 and went_on["validation"]["before"] == result["validation"]["before"]
    events = [
        json.loads(line).get("event")
        for line in (tmp_path / "suits.log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert events.count("before") == 1 and events.count("after") == 2
    assert isinstance(load_network(FeatCNN, second), FeatCNN)


def test_a_canceled_training_keeps_its_weights(tmp_path):
    output = tmp_path / "featcnn.pt"

    def stop(stage: str, fraction: float, message: str) -> None:
        raise Cancelled()

    with pytest.raises(Cancelled, match="--resume"):
        train(None, output, end_to_end=False, settings=SMALL, steps=5, progress=stop)
    assert isinstance(load_network(FeatCNN, output), FeatCNN)


def test_end_to_end_needs_a_replicator(tmp_path):
    with pytest.raises(InputError, match="--start-from"):
        train(None, tmp_path / "x.pt", end_to_end=True, settings=SMALL)
    assert suits.SuitsSettings().iterations == 15


@pytest.mark.parametrize("k_back", [0, 2])
def test_the_published_steps_run_on_the_label_maps(k_back, monkeypatch):
    torch.manual_seed(0)
    network = FeatCNN(2)
    labels = torch.zeros(1, 1, 16, 16, 16, dtype=torch.long)
    labels[..., 4:12, 4:12, 4:12] = 1
    values = labels.float() * 0.6 + 0.2 * torch.rand(1, 1, 16, 16, 16)
    settings = SuitsSettings(shape=(16, 16, 16), spacing_mm=1.0, reductions=2, label_driven=True, regularization=0.1)
    seen = []
    original = suits.described
    monkeypatch.setattr(suits, "described", lambda n, v, branch: (seen.append(v), original(n, v, branch))[1])
    moving = values.roll(2, 4)
    loss = pair_loss(network, (values, labels, "ct"), (moving, labels.roll(2, 4), "mr"), k_back, settings)
    loss.backward()
    assert all(float(network.branches[b][0][0].weight.grad.abs().sum()) > 0 for b in ("ct", "mr"))
    # The network sees each image once: the moving one warped by what the labels found, two voxels along x.
    assert len(seen) == 2
    closer = float((seen[1] - values).abs().mean()) / float((moving - values).abs().mean())
    assert closer < 0.7 if k_back else closer == pytest.approx(1, abs=1e-5)


def test_label_maps_alone_bring_a_shifted_label_back():
    labels = torch.zeros(1, 1, 24, 24, 24, dtype=torch.long)
    labels[..., 8:16, 8:16, 8:16] = 1
    grid = Grid((24, 24, 24), (1.0, 1.0, 1.0))
    settings = SuitsSettings(shape=(24, 24, 24), regularization=0.1)
    shifted = labels.roll(3, 3)
    u = suits.label_descent(labels, shifted, grid.strided(4), grid, settings, 10)
    pulled = suits.warped(shifted.float(), suits.quadratic_spline(u, settings.shape), grid) > 0.5
    before = float((shifted[labels > 0] > 0).float().mean())
    assert float(pulled[labels > 0].float().mean()) > 0.9 > before
