"""The expected error: rises with what speaks for it, lies on the field's grid, and is there for every preset."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import samconvex as sc
import torch
from engine.phantom_fixtures import QUICK
from samconvex.registration.error_model import (
    BETWEEN_PATIENTS,
    LINEAR,
    PREVIEW,
    SAME_PATIENT,
    ErrorModel,
    Rise,
    calibration_for,
    family_of,
    model_for,
    quantile_with_weights,
)
from samconvex.registration.error_models import FAMILIES
from samconvex.registration.expected_error import of_labels
from samconvex.settings.presets import PRESETS, get_settings
from samconvex.settings.registration import Settings, with_overrides
from samconvex.settings.strength import adjusted
from samconvex.space.grid import Grid
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume

EVERY_REGISTRATION_HAS = {
    *(f"mind_{name}" for name in ("cost", "flatness", "rank", "bluntness", "rival", "entropy", "spread_mm")),
    *("mind_shift_mm", "mind_inconsistency_mm", "mind_rank_whole", "mind_inconsistency_mm_whole"),
    *("displacement_mm", "displacement_mm_whole", "gradient", "volume_change", "unseen_mm", "featureless_mm"),
}


@pytest.fixture(scope="module")
def result(phantom, breath) -> sc.RegistrationResult:
    return sc.register(phantom.ct, breath[0], preset=QUICK)


def test_a_rise_is_flat_outside_its_knots_and_straight_between() -> None:
    rise = Rise((1.0, 3.0, 4.0), (0.5, 0.25))
    values = torch.tensor([-9.0, 1.0, 2.0, 3.0, 3.5, 4.0, 99.0])
    assert rise(values).tolist() == pytest.approx([0.0, 0.0, 0.25, 0.5, 0.625, 0.75, 0.75])


def test_the_bound_is_the_exponential_of_the_sum_and_comes_back_from_plain_numbers() -> None:
    model = ErrorModel(np.log(2.0), {"a": Rise((0.0, 1.0), (np.log(3.0),))}, 1.5)
    bound = model.bound({"a": torch.tensor([0.0, 1.0]), "unused": torch.zeros(2)})
    assert bound.tolist() == pytest.approx([3.0, 9.0], rel=1e-5)
    assert ErrorModel.of(model.plain()) == model


def test_the_richest_model_that_can_be_used_is_used() -> None:
    rich = ErrorModel(1.0, {"a": Rise((0.0, 1.0), (1.0,)), "b": Rise((0.0, 1.0), (1.0,))}).plain()
    poor = ErrorModel(2.0, {"a": Rise((0.0, 1.0), (1.0,))}).plain()
    assert model_for([rich, poor], ["a", "b", "c"]).intercept == 1.0
    assert model_for([rich, poor], ["a", "c"]).intercept == 2.0


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_bound_whatever_evidence_there_is(name: str) -> None:
    for settings in (get_settings(name), get_settings(name).linear_part):
        calibration = calibration_for(settings, EVERY_REGISTRATION_HAS)
        nothing = {key: torch.zeros(1) for key in calibration.model.rises}
        assert 0.05 < float(calibration.model.bound(nothing)) < 100.0


def test_shipped_models_can_only_rise() -> None:
    for family in FAMILIES.values():
        for model in family["models"]:
            assert model["scale"] > 0 and model["rises"]
            for rise in model["rises"].values():
                assert all(height >= 0 for height in rise["heights"])
                assert all(np.diff(rise["knots"]) > 0) and len(rise["knots"]) == len(rise["heights"]) + 1


def test_a_preset_without_a_calibration_of_its_own_takes_the_nearest() -> None:
    expected = {
        "ct-inter-patient": (BETWEEN_PATIENTS, True),
        "paper": (BETWEEN_PATIENTS, False),
        "ct-lung-breathing": (SAME_PATIENT, True),
        "ct-multiphase": (SAME_PATIENT, False),
        "mr-ct": (SAME_PATIENT, False),
        "mr-body": (SAME_PATIENT, False),
        "fast-preview": (PREVIEW, True),
        "rigid": (LINEAR, True),
    }
    for name, (family, own) in expected.items():
        found = calibration_for(get_settings(name), EVERY_REGISTRATION_HAS)
        assert (found.family, found.own) == (family, own), name
    best = calibration_for(adjusted(get_settings("ct-inter-patient"), quality="best"), EVERY_REGISTRATION_HAS)
    assert (best.family, best.own) == (BETWEEN_PATIENTS, False)
    for change in ({"coarse": "none"}, {"affine": "moments"}, {"initial_network": "lapirn-ct"}):
        settings = with_overrides(get_settings("ct-inter-patient"), **change)
        assert not calibration_for(settings, EVERY_REGISTRATION_HAS).own
    assert family_of(Settings("my own", "", levels=())) == LINEAR
    for further in ({"initial_network": "lapirn-ct"}, {"coarse": "sam"}):
        found = calibration_for(replace(get_settings("affine"), **further), EVERY_REGISTRATION_HAS)
        assert (found.family, found.own) == (PREVIEW, False)


def test_the_weighted_quantile_leaves_a_tenth_of_the_weight_above() -> None:
    values = np.arange(1.0, 11.0)
    assert quantile_with_weights(values[::-1], np.ones(10), 0.9) == 9.0
    assert quantile_with_weights(values, np.array([9.0, *[1 / 9] * 9]), 0.9) == 1.0


def test_the_bound_lies_on_the_grid_of_the_field(result: sc.RegistrationResult) -> None:
    bound = result.expected_error
    assert bound is not None and result.jacobian is not None
    assert bound.grid == result.jacobian.grid
    assert bound.tensor.dtype == torch.float32 and tuple(bound.tensor.shape) == (1, 1, *bound.grid.shape)
    assert bool(torch.isfinite(bound.tensor).all()) and float(bound.tensor.min()) > 0
    index = np.array([[5, 7, 9], [3, 3, 3]])
    places = bound.grid.voxels_to_points(index)
    expected = [float(bound.tensor[0, 0, z, y, x]) for x, y, z in index]
    assert result.error_at(places) == pytest.approx(expected, rel=1e-4)
    # Beyond the grid that of its edge.
    far = bound.grid.voxels_to_points(np.array([[0, 4, 4], [-50, 4, 4]]))
    assert result.error_at(far)[0] == pytest.approx(result.error_at(far)[1], rel=1e-4)
    with pytest.raises(sc.InputError):
        result.error_at(np.zeros((3, 2)))


def test_the_report_sums_the_bound_up_inside_the_body(result: sc.RegistrationResult, inside: np.ndarray) -> None:
    figures = result.report["expected_error_mm"]
    bounds = result.error_at(inside)
    assert figures["median"] == pytest.approx(np.median(bounds), rel=0.2)
    assert figures["median"] <= figures["p90"] <= figures["max"] <= float(result.expected_error.tensor.max()) + 1e-6
    assert (figures["family"], figures["own_calibration"]) == (PREVIEW, False)
    assert result.report["seconds"]["stages"]["error"] > 0


def test_every_carried_label_has_the_bound_of_its_outline() -> None:
    grid = Grid((20, 20, 20), (4.0, 4.0, 4.0))
    labels = torch.zeros(1, 1, *grid.shape, dtype=torch.uint8)
    labels[..., 2:6, 4:12, 4:12] = 3
    labels[..., 10:16, 4:12, 4:12] = 7
    labels[..., 18:, 4:12, 4:12] = 9  # carried out of the fixed image
    # Three voxels up; uncertain within the first body, above it, and nowhere at its outline.
    carried = Transform((AffineTransform(np.eye(3), np.array([0.0, 0.0, 12.0])),))
    bound = torch.full((1, 1, *grid.shape), 2.0)
    bound[..., 6:8, 5:11, 5:11] = 10.0
    bound[..., 12:, :, :] = 6.0
    found = of_labels(Volume(bound, grid), Volume(labels, grid), carried, grid)
    assert found == {3: pytest.approx(2.0), 7: pytest.approx(6.0)}


def test_carried_labels_are_in_the_report(phantom, breath) -> None:
    preset = replace(QUICK, levels=QUICK.levels[:1])
    found = sc.register(phantom.ct, breath[0], preset=preset, moving_labels=phantom.labels)
    by_label = found.report["expected_error_mm"]["labels"]
    assert set(by_label) == {str(value) for value in np.unique(phantom.labels.tensor.numpy()) if value}
    assert all(0 < value <= float(found.expected_error.tensor.max()) for value in by_label.values())


def test_a_wrong_linear_result_is_expected_to_be_worse_than_a_right_one(phantom) -> None:
    still = replace(QUICK, levels=())
    off = AffineTransform(np.eye(3), np.array([0.0, 14.0, 0.0]))
    medians = []
    for start in (Transform(), Transform((off,))):
        found = sc.register(phantom.ct, phantom.ct, preset=still, initial_transform=start)
        assert found.report["expected_error_mm"]["family"] == LINEAR
        medians.append(found.report["expected_error_mm"]["median"])
    assert medians[1] > 1.3 * medians[0]


def test_a_small_animal_has_small_errors(phantom, breath) -> None:
    def shrunk(volume: Volume) -> Volume:
        return replace(volume, grid=volume.grid.scaled(0.1))

    small = sc.register(shrunk(phantom.ct), shrunk(breath[0]), preset=replace(QUICK, levels=QUICK.levels[:1]))
    large = small.report["magnification"]
    assert small.expected_error.grid.extent.max() < 100.0
    assert small.report["expected_error_mm"]["median"] < 30.0 / large
