"""A training step that is not finite leaves the network as it was; weights that are not finite are never kept."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from samconvex.errors import InputError
from samconvex.networks.featcnn import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, FeatCNN
from samconvex.training.loop import run_loop, save_checkpoint
from samconvex.training.steps import MOST_IN_A_ROW, Steps
from samconvex.weights.models import load_network
from torch import nn


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def _finite(network: nn.Module) -> bool:
    return all(bool(torch.isfinite(v).all()) for v in network.state_dict().values())


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(bad) -> None:
    network = _network()
    steps = Steps(network, torch.optim.Adam(network.parameters(), 0.1))
    assert steps.take(network(torch.randn(8, 4)).square().mean()) is not None
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inputs = torch.randn(8, 4)
    if bad == "loss":
        inputs[0, 0] = torch.nan
        loss = network(inputs).square().mean()
    else:
        # The root of zero has a finite value and an infinite slope.
        loss = (network(inputs) * 0).abs().sqrt().sum()
        assert bool(torch.isfinite(loss))
    assert steps.take(loss) is None
    assert steps.left_out == 1
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert steps.take(network(torch.randn(8, 4)).square().mean()) is not None and _finite(network)


def test_several_in_a_row_end_the_run() -> None:
    network = _network()
    steps = Steps(network, torch.optim.Adam(network.parameters(), 0.1))
    nothing = torch.full((8, 4), torch.nan)
    for _ in range(MOST_IN_A_ROW - 1):
        steps.take(network(nothing).mean())
    steps.take(network(torch.randn(8, 4)).mean())
    for _ in range(MOST_IN_A_ROW - 1):
        steps.take(network(nothing).mean())
    with pytest.raises(InputError, match="5 steps in a row.*learning_rate"):
        steps.take(network(nothing).mean())
    assert _finite(network)


@dataclass
class _Settings:
    seed: int = 0


def test_a_run_that_fails_writes_no_weights(tmp_path) -> None:
    network = FeatCNN()
    with pytest.raises(InputError, match="in a row"):
        run_loop(
            network,
            lambda generator: (sum(p.sum() for p in network.parameters()) * torch.nan, {}),
            tmp_path / "w.pt",
            form=CHECKPOINT_FORMAT,
            version=CHECKPOINT_VERSION,
            settings=_Settings(),
            learning_rate=0.1,
            minutes=None,
            steps=50,
            resume=False,
            validate=lambda: {"error": 1.0},
            progress=lambda stage, fraction, message: None,
        )
    assert not list(tmp_path.glob("*.pt"))


def test_weights_that_are_not_finite_are_neither_written_nor_loaded(tmp_path) -> None:
    network = FeatCNN()
    save_checkpoint(tmp_path / "good.pt", network, CHECKPOINT_FORMAT, CHECKPOINT_VERSION, {})
    load_network(FeatCNN, tmp_path / "good.pt")
    with torch.no_grad():
        # Finite as it computes, infinite in the half precision of the file.
        next(network.parameters()).view(-1)[0] = 1e6
    with pytest.raises(InputError, match=r"bad\.pt was not written"):
        save_checkpoint(tmp_path / "bad.pt", network, CHECKPOINT_FORMAT, CHECKPOINT_VERSION, {})
    assert not (tmp_path / "bad.pt").exists()
    content = torch.load(tmp_path / "good.pt", weights_only=True)
    next(iter(content["state_dict"].values())).view(-1)[0] = torch.nan
    torch.save(content, tmp_path / "nan.pt")
    with pytest.raises(InputError, match=r"nan\.pt holds weights that are not finite"):
        load_network(FeatCNN, tmp_path / "nan.pt")
