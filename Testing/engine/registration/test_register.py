"""register() finds the motion that is there, whatever the geometry, and stops or refuses when it should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import samconvex as sc
import torch
from engine.geometry_fixtures import rotation
from engine.phantom_fixtures import QUICK, error
from engine.report_schema import schema_errors
from samconvex.deform.folding import cell_determinants, without_folds
from samconvex.deform.pyramid import run_pyramid
from samconvex.deform.scene import Scene
from samconvex.errors import Cancelled, InputError, ResourceError
from samconvex.features.mind import Mind
from samconvex.registration import solve as solving
from samconvex.registration.forecast import forecast
from samconvex.report import metrics
from samconvex.settings.presets import PRESETS, get_settings
from samconvex.settings.registration import AdamSettings, Level
from samconvex.space.field import DisplacementField
from samconvex.space.filters import smooth
from samconvex.space.grid import Grid
from samconvex.space.linear import rigid_fit
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume, resample
from samconvex.synthetic.phantom import Phantom


def moved_volume(volume: Volume, transform: AffineTransform, grid: Grid) -> Volume:
    """The volume as another scanner position shows it: its content at p appears at transform(p)."""
    return Transform((transform.inverse(),)).warp_volume(volume, grid)


@pytest.mark.slow
def test_a_known_breath_is_recovered_within_half_a_working_voxel(phantom: Phantom, breath, inside: np.ndarray) -> None:
    moving, truth = breath
    settings = replace(
        QUICK,
        levels=(Level(12.0, 3), Level(6.0, 2), Level(6.0, 1, 1)),
        refine="adam",
        adam=AdamSettings(spacing=6.0, iterations=30),
        working_spacing=6.0,
    )
    result = sc.register(phantom.ct, moving, preset=settings)
    assert error(Transform(), truth, inside) > 4.5
    assert error(result.fixed_to_moving, truth, inside) < 3.0
    assert result.report["folding_percent"] == 0.0
    back = result.moving_to_fixed.map_points(truth.map_points(inside))
    assert np.linalg.norm(back - inside, axis=1).mean() < 3.0


def test_oblique_flipped_and_anisotropic_inputs_give_the_same_motion(
    phantom: Phantom, breath, inside: np.ndarray
) -> None:
    moving, truth = breath
    plain = sc.register(phantom.ct, moving, preset=QUICK).fixed_to_moving

    def rescanned(volume: Volume, direction: np.ndarray, spacing: tuple[float, float, float]) -> Volume:
        size = tuple(int(520 / s) for s in spacing)
        grid = Grid(size, spacing, direction=tuple(direction.ravel()))
        shift = volume.grid.center - grid.center
        return resample(volume, replace(grid, origin=tuple(np.asarray(grid.origin) + shift)))

    fixed = rescanned(phantom.ct, rotation(0, 0, 25) @ np.diag([1, -1, -1]), (5.0, 5.0, 8.0))
    other = rescanned(moving, rotation(15, -10, 0), (6.0, 5.0, 6.0))
    result = sc.register(fixed, other, preset=QUICK).fixed_to_moving
    difference = np.linalg.norm(result.map_points(inside) - plain.map_points(inside), axis=1)
    assert difference.mean() < 2.0
    assert error(result, truth, inside) < 0.5 * error(Transform(), truth, inside)


def test_images_far_apart_in_the_scanner_are_found(phantom: Phantom, inside: np.ndarray) -> None:
    away = AffineTransform.about(phantom.ct.grid.center, rotation(4, -3, 6), np.array([900.0, -700.0, 2500.0]))
    corners = away.map_points(phantom.ct.grid.corners())
    moving = moved_volume(phantom.ct, away, Grid.covering(corners, 6.0))
    result = sc.register(phantom.ct, moving, preset=replace(QUICK, affine="moments", levels=()))
    assert error(result.fixed_to_moving, away, inside) < 4.0
    assert result.report["affine"]["confidence"] > 0.5


@pytest.fixture(scope="module")
def tilted(phantom: Phantom) -> tuple[Volume, AffineTransform]:
    """The phantom in another position, and the map there."""
    truth = AffineTransform.about(phantom.ct.grid.center, rotation(5, -4, 6), np.array([60.0, -30.0, 140.0]))
    grid = Grid.covering(truth.map_points(phantom.ct.grid.corners()), 6.0)
    return moved_volume(phantom.ct, truth, grid), truth


def test_ct_starts_from_anatomy_and_images_of_one_patient_refine_it(phantom: Phantom, tilted, inside) -> None:
    moving, truth = tilted
    found = {}
    for polish in ("", "images", "organs"):
        settings = replace(get_settings("ct-inter-patient").linear_part, polish_affine=polish)
        result = sc.register(phantom.ct, moving, preset=settings)
        assert result.report["affine"]["method"] == ("sam, refined by the images" if polish == "images" else "sam")
        assert result.report["affine"]["confidence"] > 0.5
        assert result.report["warnings"] == []
        found[polish] = error(result.fixed_to_moving, truth, inside)
    # The drawn bodies have none of the organs that the network knows.
    assert found["organs"] == found[""] < 12.0
    assert found["images"] < 3.0


def test_a_rigid_preset_gets_a_rigid_start(phantom: Phantom, tilted) -> None:
    settings = replace(get_settings("ct-inter-patient").linear_part, affine_model="rigid")
    (affine,) = sc.register(phantom.ct, tilted[0], preset=settings).fixed_to_moving.parts
    assert np.allclose(affine.matrix @ affine.matrix.T, np.eye(3), atol=1e-9)


def test_what_is_no_ct_starts_without_embeddings_and_the_report_says_so(phantom: Phantom, tilted, inside) -> None:
    moving, truth = tilted
    other = moving.with_tensor((moving.tensor.clamp(-1000, 400) + 1000) / 4)
    settings = get_settings("ct-inter-patient").linear_part
    result = sc.register(phantom.ct, replace(other, source="t1.nii.gz"), preset=settings)
    assert result.report["affine"]["method"] == "moments"
    assert any("t1.nii.gz is no CT" in warning for warning in result.report["warnings"])
    assert error(result.fixed_to_moving, truth, inside) < 6.0


def test_an_initial_transform_is_the_start_and_stays_in_the_result(phantom: Phantom, inside: np.ndarray) -> None:
    away = AffineTransform.about(phantom.ct.grid.center, np.eye(3), np.array([300.0, 0.0, 1000.0]))
    moving = moved_volume(
        phantom.ct,
        away,
        replace(phantom.ct.grid, origin=tuple(np.asarray(phantom.ct.grid.origin) + [300.0, 0.0, 1000.0])),
    )
    with pytest.raises(InputError, match="does not overlap"):
        sc.register(phantom.ct, moving, preset=QUICK)
    result = sc.register(phantom.ct, moving, preset=QUICK, initial_transform=Transform((away,)))
    assert error(result.fixed_to_moving, away, inside) < 1.0


def test_a_fixed_mask_limits_what_is_compared(phantom: Phantom, breath) -> None:
    moving, truth = breath
    mask = phantom.labels.with_tensor((phantom.labels.tensor > 0).to(torch.uint8))
    spoiled = moving.with_tensor(moving.tensor.clone())
    result = sc.register(phantom.ct, spoiled, preset=QUICK, fixed_mask=mask)
    points = mask.grid.voxels_to_points(mask.tensor[0, 0].nonzero().flip(1).numpy())[::53]
    assert error(result.fixed_to_moving, truth, points) < 0.6 * error(Transform(), truth, points)
    empty = mask.with_tensor(mask.tensor * 0)
    with pytest.raises(InputError, match="marks nothing"):
        sc.register(phantom.ct, moving, preset=QUICK, fixed_mask=empty)


def test_tissue_at_the_edge_of_the_moving_mask_still_counts(phantom: Phantom, breath, monkeypatch) -> None:
    moving, _ = breath
    mask = phantom.labels.with_tensor((phantom.labels.tensor > 0).to(torch.uint8))
    seen: list[Scene] = []
    solve = solving.run_pyramid
    monkeypatch.setattr(solving, "run_pyramid", lambda scene, *a, **k: seen.append(scene) or solve(scene, *a, **k))
    sc.register(phantom.ct, moving, preset=QUICK, moving_mask=mask)
    counted = seen[0].moving_mask
    places = counted.grid.voxels_to_points((counted.tensor[0, 0] > 0).nonzero().flip(1).numpy())
    marked = mask.grid.voxels_to_points(mask.tensor[0, 0].nonzero().flip(1).numpy())
    beyond = np.stack([marked.min(0) - places.min(0), places.max(0) - marked.max(0)])
    # The labels fill the image along z.
    assert (beyond[:, :2] > 5.0).all() and (beyond < 15.0).all()


def test_a_protected_organ_stays_rigid_and_the_report_says_how_well(phantom: Phantom, breath) -> None:
    liver = phantom.labels.with_tensor((phantom.labels.tensor == 6).to(torch.uint8))
    result = sc.register(phantom.ct, breath[0], preset=QUICK, protect_mask=liver)
    points = liver.grid.voxels_to_points(liver.tensor[0, 0].nonzero().flip(1).numpy())
    moved = result.fixed_to_moving.map_points(points)
    assert np.linalg.norm(moved - rigid_fit(points, moved).map_points(points), axis=1).max() < 0.1
    (body,) = result.report["protected"]["bodies"]
    assert body["residual_mm"] < 0.1 < body["deformation_removed_mm"]
    assert result.report["folding_percent"] == 0.0
    back = result.moving_to_fixed.map_points(moved)
    assert np.linalg.norm(back - points, axis=1).mean() < 0.05


def test_a_partial_field_of_view_is_measured_said_and_disturbs_only_near_its_edge(
    phantom: Phantom, breath, inside: np.ndarray
) -> None:
    moving, truth = breath
    depth = moving.grid.size[2] // 3
    start = moving.grid.voxels_to_points(np.array([[0, 0, moving.grid.size[2] - depth]]))[0]
    grid = replace(moving.grid, size=(*moving.grid.size[:2], depth), origin=tuple(start))
    upper = Volume(moving.tensor[:, :, -depth:], grid, moving.pixel_id, "upper third")
    settings = replace(QUICK, refine="adam", adam=AdamSettings(spacing=8.0, iterations=15))
    result = sc.register(phantom.ct, upper, preset=settings)
    assert 20.0 < result.report["overlap_percent"] < 45.0
    assert any("upper third shows only" in warning for warning in result.report["warnings"])
    # Within the reach of the coarse levels the cut disturbs; beyond it less than a quarter of a voxel is left of that.
    seen = upper.grid.contains(truth.map_points(inside) - [0.0, 0.0, 56.0])
    assert error(result.fixed_to_moving, truth, inside[seen]) < 1.5
    whole = sc.register(phantom.ct, moving, preset=settings)
    assert whole.report["overlap_percent"] > 90.0 and not whole.report["warnings"]


def test_labels_on_another_grid_are_resampled_by_position_and_said(phantom: Phantom, breath) -> None:
    other = resample(phantom.labels, phantom.ct.grid.with_spacing(4.0), mode="nearest")
    result = sc.register(
        phantom.ct, phantom.ct, preset=replace(QUICK, levels=()), fixed_labels=other, moving_labels=phantom.labels
    )
    assert any("another grid" in warning for warning in result.report["warnings"])
    # The labels of one patient lie on themselves, up to the edges that two grids round differently.
    assert result.report["dice"]["initial_mean"] > 0.85


def test_the_report_has_every_promised_field_and_inputs_stay_untouched(
    phantom: Phantom, breath, tmp_path: Path
) -> None:
    sc.write_volume(phantom.ct, tmp_path / "fixed.nii.gz")
    sc.write_volume(breath[0], tmp_path / "moving.nii.gz")
    fixed, moving = sc.read_volume(tmp_path / "fixed.nii.gz"), sc.read_volume(tmp_path / "moving.nii.gz")
    copies = fixed.tensor.clone(), moving.tensor.clone()
    points = np.array(list(phantom.landmarks.values()))
    result = sc.register(
        fixed,
        moving,
        preset=QUICK,
        fixed_labels=phantom.labels,
        moving_labels=phantom.labels,
        fixed_points=points,
        moving_points=breath[1].map_points(points),
    )
    assert schema_errors(result.report) == []
    assert result.report["tre_mm"]["final"]["mean"] < result.report["tre_mm"]["initial"]["mean"]
    assert torch.equal(fixed.tensor, copies[0])
    assert torch.equal(moving.tensor, copies[1])


def test_the_same_seed_gives_the_same_result(phantom: Phantom, breath, inside: np.ndarray) -> None:
    first = sc.register(phantom.ct, breath[0], preset=QUICK, seed=3).fixed_to_moving.map_points(inside)
    second = sc.register(phantom.ct, breath[0], preset=QUICK, seed=3).fixed_to_moving.map_points(inside)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("stage", ["prepare", "affine", "convex", "refine", "finish", "measure"])
def test_every_stage_can_be_cancelled(phantom: Phantom, breath, stage: str) -> None:
    settings = replace(QUICK, affine="moments", refine="adam", adam=AdamSettings(spacing=12.0, iterations=3, pool=1))
    seen = []

    def progress(name: str, fraction: float, message: str = "") -> None:
        seen.append(name)
        assert 0 <= fraction <= 1
        if name == stage:
            raise Cancelled

    with pytest.raises(Cancelled):
        sc.register(phantom.ct, breath[0], preset=settings, progress=progress)
    assert seen[-1] == stage


def test_a_memory_limit_below_need_is_refused_before_work_starts(phantom: Phantom) -> None:
    with pytest.raises(ResourceError, match="needs about"):
        sc.register(phantom.ct, phantom.ct, preset=QUICK, max_memory_gib=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "nonsense"}, "no preset 'nonsense'"),
        ({"affine": "magic"}, "no affine stage 'magic'"),
        ({"features": "magic"}, "no feature 'magic'"),
        ({"device": "abacus"}, "no device 'abacus'"),
        ({"protect_mode": "soft"}, "no protection 'soft'"),
    ],
)
def test_unknown_names_are_refused_with_the_choices(phantom: Phantom, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sc.register(phantom.ct, phantom.ct, **{"preset": QUICK, **arguments})


def test_unequal_numbers_of_points_are_refused(phantom: Phantom) -> None:
    with pytest.raises(InputError, match="2 fixed points but 3 moving points"):
        sc.register(
            phantom.ct,
            phantom.ct,
            preset=replace(QUICK, levels=()),
            fixed_points=np.zeros((2, 3)),
            moving_points=np.zeros((3, 3)),
        )


def test_a_folded_field_is_unfolded_and_stays_close_elsewhere() -> None:
    torch.manual_seed(0)
    grid = Grid((24, 24, 24), (4.0, 4.0, 4.0))
    tensor = smooth(torch.randn(1, 3, *grid.shape) * 2, 2)
    tensor[:, 0, 12, 12, 12] += 12
    assert float(cell_determinants(tensor, grid).min()) < 0
    unfolded = without_folds(DisplacementField(tensor, grid))
    assert float(cell_determinants(unfolded.tensor, grid).min()) >= 0.05
    assert metrics.regularity(unfolded)["folding_percent"] == 0.0
    change = (unfolded.tensor - tensor).abs().amax(1)[0]
    assert float(change[:4, :4, :4].max()) == 0.0


def test_every_preset_has_a_forecast_that_grows_with_the_image() -> None:
    small, large = Grid((128, 128, 100), (2.0, 2.0, 3.0)), Grid((512, 512, 300), (0.8, 0.8, 1.5))
    for name in PRESETS:
        less, more = (forecast(get_settings(name), grid, grid) for grid in (small, large))
        assert 0 < less.seconds < more.seconds
        assert 0.3 < less.memory_gib < more.memory_gib


def test_the_mean_motion_of_the_reference_convexadam_is_found(shared_data: Path) -> None:
    recorded = shared_data.parent / "parity" / "convexadam_full.npz"
    if not recorded.is_file():
        pytest.skip(f"{recorded} is absent")
    with np.load(recorded) as file:
        # Recorded along the array axes z, y, x.
        expected = file["disp"].reshape(-1, 3).mean(0)[::-1]
        shape = file["img"].shape
        grid = Grid(shape[::-1], (1.0, 1.0, 1.0))
        fixed, moving = (Volume(torch.from_numpy(file[name])[None, None] + 0.5, grid) for name in ("img", "mov"))
    scene = Scene(fixed, moving, Transform(), grid.corners())
    levels = (Level(3.0, 3, 3), Level(2.0, 1, 2))
    field = run_pyramid(scene, lambda name: Mind(dilation=1), levels, coupling=0.1)
    found = field.tensor.mean((0, 2, 3, 4)).numpy()
    assert np.linalg.norm(found - expected) < 0.2 * np.linalg.norm(expected)
