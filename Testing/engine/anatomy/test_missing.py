"""What was blanked out of an image neither pulls nor is stretched over what the other image shows there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import samconvex as sc
import torch
from engine.phantom_fixtures import QUICK, error
from samconvex.anatomy.body import body_mask
from samconvex.anatomy.missing import missing_part
from samconvex.errors import InputError
from samconvex.registration import prepare, regions
from samconvex.registration.pair import Pair
from samconvex.registration.regions import filling_note, regions_of
from samconvex.space.filling import as_air
from samconvex.space.transforms import Transform
from samconvex.space.volume import Volume
from samconvex.synthetic.phantom import Phantom, make_phantom
from samconvex.synthetic.warps import breathing_warp

AIR_HU = -1000.0


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(seed=1, spacing=6.0, couch=False)


def masked(volume: Volume) -> Volume:
    """Everything around the body set to one value, as planning systems do."""
    body = Transform().warp_labels(body_mask(volume), volume.grid).tensor > 0
    return volume.with_tensor(volume.as_float().masked_fill(~body, AIR_HU))


def without_side(volume: Volume) -> tuple[Volume, float]:
    """The image blanked beyond a sagittal plane through the body's side, and the plane's x in mm."""
    mask = body_mask(volume)
    x = mask.grid.voxels_to_points(mask.tensor[0, 0].nonzero().flip(1).numpy())[:, 0]
    plane = float(np.quantile(x, 0.7))
    places = volume.grid.voxel_centers(reference=volume.grid.center)[..., 0] + volume.grid.center[0]
    return volume.with_tensor(volume.as_float().masked_fill((places > plane)[None, None], AIR_HU)), plane


def test_the_missing_part_is_what_was_blanked(phantom: Phantom) -> None:
    whole = masked(phantom.ct)
    cut, plane = without_side(whole)
    body = body_mask(whole)
    missing = missing_part(cut, body_mask(cut), body, Transform())
    assert missing is not None
    points = body.grid.voxels_to_points(body.tensor[0, 0].nonzero().flip(1).numpy())
    found = missing.tensor[body.tensor > 0].bool().numpy()
    assert found[points[:, 0] > plane + 12].mean() > 0.9
    assert not found[points[:, 0] < plane - 12].any()
    assert missing_part(whole, body, body, Transform()) is None


def test_the_air_around_a_patient_in_a_scanner_is_no_missing_part(phantom: Phantom) -> None:
    whole = masked(phantom.ct)
    cut, _ = without_side(whole)
    noise = torch.rand(cut.tensor.shape, generator=torch.Generator().manual_seed(0)) * 20
    assert missing_part(cut.with_tensor(cut.tensor + noise), body_mask(cut), body_mask(whole), Transform()) is None


def test_filled_corners_are_neither_body_nor_missing_from_the_other_image(phantom: Phantom) -> None:
    whole = masked(phantom.ct)
    body = body_mask(whole)
    places = whole.grid.voxel_centers(reference=whole.grid.center)
    far = (places[..., 0] + places[..., 1] > 0.25 * float(whole.grid.extent[:2].sum()))[None, None]
    filled = whole.with_tensor(whole.as_float().masked_fill(far, 0.0))
    found = body_mask(filled)
    assert float(found.tensor.sum()) <= float(body.tensor.sum())
    warnings: list[str] = []
    images = replace(as_air(filled), source="turned"), replace(whole, source="healthy")
    scanned = replace(filled, source="turned"), images[1]
    regions_of(Pair(*images), found, Transform(), False, warnings, scanned)
    assert not any(warning.startswith("healthy") for warning in warnings)
    missing = missing_part(images[0], found, body, Transform(), scanned[0])
    hidden = Transform().warp_labels(filled.with_tensor(far.to(torch.uint8)), body.grid).tensor > 0
    assert missing is None or bool(hidden[missing.tensor > 0].float().mean() > 0.9)
    assert "filled up with 0 HU" in (filling_note(scanned[0]) or "") and filling_note(whole) is None


def test_a_body_beyond_the_scanners_circle_is_missing_from_that_image(phantom: Phantom) -> None:
    whole = phantom.ct
    places = whole.grid.voxel_centers(reference=whole.grid.center)
    body = body_mask(whole)
    beyond = (places[..., 0] > 60)[None, None]
    cut = whole.with_tensor(whole.as_float().masked_fill(beyond, -3024.0))
    missing = missing_part(as_air(cut), body_mask(cut), body, Transform(), cut)
    assert missing is not None
    hidden = Transform().warp_labels(cut.with_tensor(beyond.to(torch.uint8)), body.grid).tensor > 0
    lost = missing.tensor[hidden & (body.tensor > 0)].bool()
    assert float(lost.float().mean()) > 0.8 and not bool((missing.tensor[~hidden] > 0).any())


@pytest.mark.slow
def test_tissue_is_not_stretched_over_a_blanked_side(phantom: Phantom, monkeypatch) -> None:
    whole = masked(phantom.ct)
    moving, truth = breathing_warp(whole, 20.0)
    cut, plane = without_side(moving)
    mask = body_mask(whole)
    points = mask.grid.voxels_to_points(mask.tensor[0, 0].nonzero().flip(1).numpy())[::31]
    near = points[(points[:, 0] < plane) & (points[:, 0] > plane - 60)]
    result = sc.register(whole, cut, preset=QUICK)
    assert any("is blank over" in warning for warning in result.report["warnings"])
    monkeypatch.setattr(regions, "missing_part", lambda *_: None)
    unaware = sc.register(whole, cut, preset=QUICK)
    assert not any("is blank over" in warning for warning in unaware.report["warnings"])
    assert error(result.fixed_to_moving, truth, near) < 0.8 * error(unaware.fixed_to_moving, truth, near)


@pytest.mark.slow
def test_a_moving_image_without_a_body_outline_is_registered_all_the_same(phantom: Phantom, monkeypatch) -> None:
    moving = phantom.ct.with_tensor(phantom.ct.tensor.clone())
    find = regions.body_mask

    def only_the_fixed(volume: Volume) -> Volume:
        if volume.name == moving.name and volume.tensor is not phantom.ct.tensor:
            raise InputError("No body was found.")
        return find(volume)

    monkeypatch.setattr(prepare, "average_to", lambda volume, _: volume)
    monkeypatch.setattr(regions, "body_mask", only_the_fixed)
    result = sc.register(phantom.ct, moving, preset=QUICK)
    assert not result.report["warnings"]
    with pytest.raises(InputError, match="No body"):
        sc.register(phantom.ct, moving, preset=QUICK, symmetric=True)


def test_an_affine_alone_says_nothing_of_blank_parts(phantom: Phantom) -> None:
    whole = masked(phantom.ct)
    result = sc.register(whole, without_side(whole)[0], preset=replace(QUICK, levels=()))
    assert not any("is blank over" in warning for warning in result.report["warnings"])
