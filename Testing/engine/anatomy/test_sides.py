"""Sides of a body: answers change sign with a mirror, only what is sure is said, and it reaches warnings and record."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from samconvex.anatomy import sides
from samconvex.anatomy.level import Anatomy, warnings_about
from samconvex.anatomy.sides import AIR_HU, MIRRORED_BELOW, RIGHT_ABOVE, is_mirrored, sides_score, windows, with_sides
from samconvex.networks.sides import SidesNet, prepare

SHOWN = Anatomy(True, "", 1.0, "upright", (0.0, -1.0), (-600.0, -300.0), (600.0, 300.0), ("chest", "abdomen"))


@pytest.fixture
def network(monkeypatch) -> SidesNet:
    """Untrained; in the place of the shipped one."""
    torch.manual_seed(1)
    made = SidesNet().eval()
    monkeypatch.setattr(sides, "shipped_network", lambda: made)
    return made


def reheaded(volume, matrix):
    return volume.with_tensor(volume.tensor.clone(), volume.grid.turned(np.asarray(matrix), volume.grid.center))


def test_a_mirror_changes_the_sign_and_nothing_else(network):
    window = prepare(torch.rand(2, 1, *network.shape) * 1200 - 1000)
    torch.testing.assert_close(network(window), -network(window.flip(-1)))
    symmetric = window + window.flip(-1)
    assert float(network(symmetric).detach().abs().max()) < 1e-5


def test_a_mirrored_scan_and_one_feet_first_are_seen_for_what_they_are(network, phantom):
    score = sides_score(phantom.ct)
    assert score is not None and abs(score) > 1e-3
    assert sides_score(reheaded(phantom.ct, np.diag([-1.0, 1.0, 1.0]))) == pytest.approx(-score, rel=0.05)
    feet_first = reheaded(phantom.ct, np.diag([-1.0, 1.0, -1.0]))
    assert sides_score(feet_first, feet_first=True) == pytest.approx(score, rel=0.05)
    assert abs(sides_score(feet_first) - score) > 0.05 * abs(score)


def test_windows_follow_the_body_and_stay_on_it():
    hu = torch.full((1, 1, 60, 40, 50), AIR_HU)
    body = torch.zeros(60, 40, 50, dtype=torch.bool)
    body[10:50, 5:25, 8:28] = True
    hu[0, 0][body] = 40.0
    cut = windows(hu, body, (16, 24, 32), 12.0)
    # From 60 mm above its lower end to 60 mm below the upper one, every 48 mm.
    assert cut.shape == (8, 1, 16, 24, 32)
    inside = (cut[1, 0] > 0).nonzero()
    assert ((inside.amin(0) + inside.amax(0)) / 2 - torch.tensor([7.5, 11.5, 15.5])).abs().max() <= 0.5
    assert len(windows(hu[:, :, 10:14], body[10:14], (16, 24, 32), 12.0)) == 1


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (MIRRORED_BELOW - 0.1, True),
        (MIRRORED_BELOW + 0.1, None),
        (0.0, None),
        (RIGHT_ABOVE - 0.1, None),
        (RIGHT_ABOVE + 0.1, False),
        (None, None),
    ],
)
def test_only_what_is_sure_is_said(monkeypatch, phantom, score, said):
    monkeypatch.setattr(sides, "sides_score", lambda volume, feet_first: score)
    assert is_mirrored(phantom.ct) is said
    found = with_sides(SHOWN, phantom.ct)
    assert found.mirrored is said
    assert found.record()["mirrored"] == ("cannot be told" if said is None else said)
    sentences = warnings_about(SHOWN, found, ("the template", "the query"))
    assert len(sentences) == int(said is True)
    assert not said or sentences[0].startswith("the query is mirrored: left and right are swapped")


def test_what_is_not_clear_has_no_sides(monkeypatch, phantom):
    monkeypatch.setattr(sides, "sides_score", lambda volume, feet_first: MIRRORED_BELOW - 5)
    for unclear in (Anatomy(False, "shows too little of a body"), replace(SHOWN, confidence=0.4)):
        assert with_sides(unclear, phantom.ct).mirrored is None
    assert with_sides(replace(SHOWN, orientation="feet first"), phantom.ct).mirrored is True


def test_other_images_and_missing_weights_tell_nothing(network, phantom, monkeypatch):
    mr = phantom.ct.with_tensor(phantom.ct.tensor.clamp(min=0).to(torch.int16))
    assert sides_score(replace(mr, known_modality="mr")) is None
    assert sides_score(phantom.ct.with_tensor(torch.full_like(phantom.ct.tensor, -1000))) is None
    monkeypatch.setattr(sides, "shipped_network", lambda: None)
    assert sides_score(phantom.ct) is None
