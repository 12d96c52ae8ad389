"""Training of the network of sides: learns what both sides differ by, stops, goes on, refuses what it cannot use."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from samconvex.errors import InputError
from samconvex.networks.sides import SidesNet
from samconvex.training.data.cases import Case
from samconvex.training.sides import SidesSettings, Source, held_out, train_on
from samconvex.weights.models import load_network

SMALL = SidesSettings(widths=(4, 8, 8), hidden=8, batch=4, dropout=0.0, rotation_deg=5.0, cut_probability=0.0)


def body_of(seed: int, mirrored: bool = False) -> Case:
    """A body with one dense organ, always at the same side."""
    generator = torch.Generator().manual_seed(seed)
    hu = torch.full((1, 1, 24, 20, 28), -1000, dtype=torch.int16)
    hu[..., 3:17, 3:25] = 40
    height, depth = (int(n) for n in torch.randint(0, 3, (2,), generator=generator))
    hu[..., 2 + height : 22, 5 + depth : 13, 5:11] = 200
    hu = hu.flip(-1) if mirrored else hu
    body = (hu[0, 0] > -500).to(torch.uint8)
    return Case(f"body{seed}", "made", hu, hu, body, torch.zeros(1, 3), None)  # type: ignore[arg-type]


def test_it_learns_the_side_and_goes_on_where_it_stopped(tmp_path):
    cases = [body_of(seed) for seed in range(4)]
    settings = replace(SMALL, validation=("body3",), learning_rate=3e-3)
    output = tmp_path / "sides.pt"
    result = train_on(cases, output, settings=settings, steps=25)
    assert result["validation"]["after"]["right"] == 1.0
    network = load_network(SidesNet, output)
    right, wrong = (held_out(network, [body_of(9, mirrored)])["scores"]["body9"] for mirrored in (False, True))
    assert right > 0.2 and wrong < -0.2
    went_on = train_on(cases, output, settings=settings, steps=26, resume=True)
    assert went_on["step"] == 26 and went_on["validation"]["before"] == result["validation"]["before"]
    lines = (tmp_path / "sides.log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["event"] for line in lines if "event" in line] == ["before", "after", "after"]


def test_folders_are_drawn_from_by_their_shares():
    cases = [body_of(0), replace(body_of(1), group="other")]
    source = Source(cases, replace(SMALL, group_shares={"other": 0.0}, batch=6))
    assert source.draw(torch.Generator().manual_seed(0)).shape == (6, 1, *SMALL.shape)
    assert source.shares.tolist() == [1.0, 0.0]
    with pytest.raises(InputError, match="group_shares"):
        Source(cases, replace(SMALL, group_shares={"other": 0.0, "made": 0.0}))


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"shape": (16, 24, 30)}, "shape"), ({"window": (1.0,)}, "window"), ({"validation": ("body0",)}, "held out")],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_is_written(tmp_path, changes, word):
    with pytest.raises(InputError, match=word):
        train_on([body_of(0)], tmp_path / "sides.pt", settings=replace(SMALL, **changes), steps=1)
    assert not list(tmp_path.iterdir())
