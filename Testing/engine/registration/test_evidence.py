"""The evidence tells a right map from a wrong one without knowing which is which."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine.geometry_fixtures import rotation
from engine.sam_fixtures import random_model, textured_body
from samconvex.anatomy.body import body_mask
from samconvex.anatomy.embed import embed
from samconvex.registration.evidence import anatomy_figures, gathered, other_modality, stack_figures, told
from samconvex.registration.finish import Maps
from samconvex.registration.pair import Pair
from samconvex.report.verdict import GOOD, verdict
from samconvex.settings.presets import PRESETS
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume


def maps_of(forward: Transform) -> Maps:
    return Maps(Transform(), forward, forward.inverse())


def affine(volume: Volume, matrix: np.ndarray, shift: tuple[float, float, float]) -> Transform:
    return Transform((AffineTransform.about(volume.grid.center, matrix, np.array(shift)),))


@pytest.fixture(scope="module")
def figures(phantom, breath) -> dict[str, dict[str, float]]:
    """Evidence on the phantom and its breath under the true map and under wrong ones."""
    moving, truth = breath
    body = body_mask(phantom.ct)
    pair = Pair(phantom.ct, moving)
    wrong = {
        "true": Transform((truth.displacement_field(phantom.ct.grid),)),
        "shifted": affine(phantom.ct, np.eye(3), (35.0, -30.0, 45.0)),
        "turned": affine(phantom.ct, rotation(0, 0, 90), (0.0, 0.0, 0.0)),
        "mirrored": affine(phantom.ct, np.diag([-1.0, 1.0, 1.0]), (0.0, 0.0, 0.0)),
        "stretched": affine(phantom.ct, np.diag([1.5, 1.0, 1.0]), (0.0, 0.0, 0.0)),
    }
    return {name: gathered(pair, maps_of(forward), body) for name, forward in wrong.items()}


@pytest.mark.parametrize("name", ["near_percent", "near_gain", "bone_agreement", "correlation", "shared_information"])
def test_every_comparison_is_better_under_the_true_map(figures, name) -> None:
    for wrong in ("shifted", "turned"):
        assert figures["true"][name] > 1.3 * figures[wrong][name]


def test_the_verdict_on_known_maps(figures) -> None:
    levels = {name: verdict(found)["level"] for name, found in figures.items()}
    assert levels.pop("true") == GOOD
    assert GOOD not in levels.values(), levels


def test_the_shape_of_the_linear_part_is_read_off_any_map(figures) -> None:
    assert figures["turned"]["turn_deg"] == pytest.approx(90, abs=0.5)
    assert figures["stretched"]["stretch"] == pytest.approx(1.5, rel=0.01)
    assert figures["stretched"]["scale"] == pytest.approx(1.5 ** (1 / 3), rel=0.01)
    assert [figures[name]["mirrored"] for name in ("true", "mirrored")] == [0.0, 1.0]


def test_identical_images_are_good_with_and_without_hounsfield_units(phantom) -> None:
    for volume in (phantom.ct, phantom.ct.with_tensor((phantom.ct.as_float() + 1000.0) / 3)):
        found = gathered(Pair(volume, volume), maps_of(Transform()), body_mask(phantom.ct), same_patient=True)
        assert found["near_percent"] > 95
        assert verdict(found, same_patient=True)["level"] == GOOD
    assert "bone_agreement" not in found, "no CT has no bone"


def test_a_removed_lesion_is_measured(phantom) -> None:
    inside = phantom.ct.with_tensor((phantom.ct.tensor > -100).to(torch.uint8))
    center = inside.points()[len(inside.points()) // 2]
    distance = torch.from_numpy(
        np.linalg.norm(np.stack(phantom.ct.grid.voxel_centers(reference=center).unbind(-1), -1), axis=-1)
    )
    hole = phantom.ct.with_tensor(
        torch.where(distance < 20, torch.tensor(-1000.0), phantom.ct.as_float()[0, 0])[None, None]
    )
    found = gathered(Pair(phantom.ct, hole), maps_of(Transform()), body_mask(phantom.ct), same_patient=True)
    assert found["changed_ml"] > 8
    judged = verdict(found, same_patient=True)
    assert judged["level"] != GOOD and any("ml" in reason for reason in judged["reasons"])


def test_anatomy_is_found_again_only_where_it_lies() -> None:
    body = textured_body()
    known = embed(body, random_model())
    there = anatomy_figures(known, known, Transform())
    away = anatomy_figures(known, known, affine(body, np.eye(3), (30.0, 0.0, 0.0)))
    assert there["anatomy_near_percent"] > 95 and there["anatomy_similarity"] > 0.99
    assert away["anatomy_near_percent"] < 30 and away["anatomy_there_percent"] < 60


def test_slices_out_of_order_and_invented_ones_are_told_from_a_plain_stack(phantom) -> None:
    values = (
        phantom.ct.as_float() + torch.randn(phantom.ct.tensor.shape, generator=torch.Generator().manual_seed(3)) * 20
    )
    plain = stack_figures(phantom.ct.with_tensor(values))
    order = np.random.default_rng(0).permutation(values.shape[2])
    shuffled = stack_figures(phantom.ct.with_tensor(values[:, :, order]))
    bridged = values.clone()
    share = torch.linspace(0, 1, 11).view(1, 1, -1, 1, 1)
    bridged[:, :, 20:31] = torch.lerp(values[:, :, 20:21], values[:, :, 30:31], share)
    invented = stack_figures(phantom.ct.with_tensor(bridged))
    assert plain["slices_disorder"] < 0.9 < shuffled["slices_disorder"]
    assert plain["slices_invented_mm"] == 0.0 and invented["slices_invented_mm"] == pytest.approx(9 * 6.0)


def test_the_preset_says_what_the_images_must_be(phantom) -> None:
    mr = replace(phantom.ct, tensor=phantom.ct.as_float() + 1000.0)
    pairs = {"ct": Pair(phantom.ct, phantom.ct), "mr": Pair(mr, mr), "mr and ct": Pair(phantom.ct, mr)}
    for given, pair in pairs.items():
        assert [wanted for wanted in ("", *pairs) if not other_modality(pair, wanted)] == ["", given]
    found = told(pairs["mr"], PRESETS["ct-follow-up"], {"affine": {"turned_deg": [90, 0, 0], "confidence": 0.4}}, {})
    assert found == {"start_confidence": 0.4, "turned": 1.0, "other_modality": 1.0}
    assert all(settings.modality in ("", *pairs) for settings in PRESETS.values())


def test_the_record_of_the_body_parts_is_evidence_where_there_is_one(phantom) -> None:
    def of(**record) -> dict[str, float]:
        found = told(Pair(phantom.ct, phantom.ct), PRESETS["ct-follow-up"], {"anatomy": record}, {})
        return {name: found[name] for name in ("common_percent", "lies_otherwise", "mirrored_image") if name in found}

    upright = {"orientation": "upright", "mirrored": False}
    assert of() == of(common_percent=None, fixed={"recognised": False}) == {}
    assert of(common_percent=64, fixed=upright) == {"common_percent": 64.0, "lies_otherwise": 0.0}
    assert of(fixed=upright, moving={"orientation": "feet first"}) == {"lies_otherwise": 1.0}
    assert of(moving=upright | {"mirrored": True}) == {"lies_otherwise": 0.0, "mirrored_image": 1.0}
    assert of(moving=upright | {"mirrored": "cannot be told here"}) == {"lies_otherwise": 0.0}


def test_labels_and_points_that_were_given_are_evidence(phantom) -> None:
    measured = {
        "dice_initial": {1: 0.5, 2: 0.5},
        "dice_final": {1: 0.9, 2: 0.1},
        "tre_final_mm": np.array([1.0, 3.0, 9.0]),
    }
    found = told(Pair(phantom.ct, phantom.ct), PRESETS["ct-follow-up"], {}, measured)
    assert (found["dice"], found["worst_dice"], found["point_error_mm"]) == (0.5, 0.1, 3.0)
    assert found["dice_gain"] == pytest.approx(0.0)
