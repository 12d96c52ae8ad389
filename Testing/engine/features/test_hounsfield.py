"""CT intensities as features."""

from __future__ import annotations

import pytest
import torch
from samconvex.features.hounsfield import Hounsfield
from samconvex.space.grid import Grid
from samconvex.space.intensity import ct_window
from samconvex.space.volume import Volume

GRID = Grid((5, 1, 1), (1.0, 1.0, 1.0))


def test_each_ramp_tells_its_own_tissues_apart() -> None:
    hounsfield = torch.tensor([-1000.0, -525.0, 0.0, 525.0, 1000.0]).view(1, 1, 1, 1, 5)
    ramps = Hounsfield()(Volume(ct_window(hounsfield), GRID)).tensor[0, :, 0, 0]
    assert ramps[0].tolist() == pytest.approx([0.0, 0.5, 1.0, 1.0, 1.0])
    assert ramps[1].tolist() == pytest.approx([0.0, 0.0, 0.5, 1.0, 1.0])
    assert ramps[2].tolist() == pytest.approx([0.0, 0.0, 0.0, 0.5, 1.0])
