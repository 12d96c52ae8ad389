"""What the papers describe runs under its name, as they describe it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import samconvex as sc
import torch
import torch.nn.functional as F
from engine.sam_fixtures import textured_body
from samconvex.deform.scene import Scene, View, described
from samconvex.features.sam import SamAnew
from samconvex.networks.sam_compact import SAMCompact
from samconvex.registration import solve
from samconvex.registration.finish import finished
from samconvex.settings.presets import PRESETS
from samconvex.settings.registration import AdamSettings, DiffusionSettings, Level, Settings
from samconvex.settings.strength import adjusted, stiffness_numbers
from samconvex.space.field import DisplacementField
from samconvex.space.grid import Grid
from samconvex.space.intensity import CT_RANGE
from samconvex.space.transforms import Transform
from samconvex.space.volume import Volume
from samconvex.weights.models import compact_model

GRID = Grid((24, 20, 28), (4.0, 4.0, 4.0))


def blob(center: tuple[float, float, float]) -> Volume:
    """A soft ellipsoid of MR-like values with a darker core, LPS mm."""
    points = GRID.voxel_centers().numpy() - np.asarray(center)
    distance = np.sqrt((points**2 / np.array([300.0, 200.0, 400.0])).sum(-1))
    values = 900 * np.exp(-(distance**2)) - 500 * np.exp(-((2.5 * distance) ** 2))
    return Volume(torch.from_numpy(values.astype(np.float32) + 10)[None, None], GRID)


@pytest.fixture(scope="module")
def pair() -> tuple[Volume, Volume]:
    middle = GRID.center
    return blob(tuple(middle)), blob(tuple(middle + np.array([6.0, -4.0, 0.0])))


def error_mm(result: sc.RegistrationResult) -> float:
    """How far the ellipsoid's surroundings end from where they belong."""
    points = GRID.center + np.array([[0.0, 0, 0], [8, 0, 0], [-8, 0, 0], [0, 8, 0], [0, 0, 10]])
    moved = result.fixed_to_moving.map_points(points) - points
    return float(np.linalg.norm(moved - [6.0, -4.0, 0.0], axis=1).mean())


# --- SAMConvex -------------------------------------------------------------------------------------------------------


def test_the_papers_levels_are_those_of_the_paper():
    paper = PRESETS["paper"]
    # Features at 16, 8 and 4 mm of images of 8, 4 and 2 mm: the working image, averaged over 4^3, 2^3 and 1 voxels.
    assert [(level.spacing, level.radius) for level in paper.levels] == [(16.0, 2), (8.0, 3), (4.0, 3)]
    assert [level.spacing / level.subdivision for level in paper.levels] == [paper.working_spacing] * 3
    assert [level.features for level in paper.levels] == [("sam-anew",), ("sam-anew",), ("sam-anew-fine",)]
    assert paper.couplings == (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    assert (paper.refine, paper.adam.iterations, paper.adam.anew) == ("adam", 50, True)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return compact_model(SAMCompact((8, 8, 8, 8), (1, 1, 1, 1), 8, 8), "small", "0")


def test_features_of_a_level_are_those_of_its_averaged_image(model):
    lower, upper = CT_RANGE
    image = torch.rand(1, 1, 32, 32, 64)
    volume = Volume(image, Grid((64, 32, 32), (2.0, 2.0, 2.0)))
    extractor = SamAnew(model, "fine", torch.device("cpu"))
    found = extractor.pooled(volume, 4)
    assert found.grid == volume.grid.strided(4) and found.tensor.shape == (1, 8, 8, 8, 16)
    cosines = []
    for seen in (F.avg_pool3d(image, 2), image[:, :, ::2, ::2, ::2]):
        with torch.inference_mode():
            expected = model.network(model.prepare(seen * (upper - lower) + lower))["fine"]
        cosines.append(float((found.tensor * expected).sum(1).mean()))
    # Reduced precision aside; an image of every second voxel is another one.
    assert cosines[0] > 0.98 > cosines[1]


def test_joined_features_cost_the_mean_of_both_cosines_and_any_size_is_padded(model):
    volume = Volume(torch.rand(1, 1, 12, 20, 28), Grid((28, 20, 12), (2.0, 2.0, 2.0)))
    found = SamAnew(model, "both", torch.device("cpu")).pooled(volume, 2)
    assert found.tensor.shape == (1, 16, 6, 10, 14)
    torch.testing.assert_close(found.tensor.square().sum(1), torch.ones(1, 6, 10, 14), atol=2e-2, rtol=0)
    halves = found.tensor[:, :8].square().sum(1)
    torch.testing.assert_close(halves, torch.full((1, 6, 10, 14), 0.5), atol=2e-2, rtol=0)
    assert SamAnew(model, "both", torch.device("cpu"))(volume).tensor.shape == (1, 16, 12, 20, 28)


def test_embeddings_are_made_anew_of_the_image_that_is_warped_so_far(monkeypatch):
    """Every level, and the refinement, describes the moving image pulled through the field so far."""
    seen: list[tuple[str, bool]] = []
    original = described

    def watched(view, extractor, names, *rest, **options):
        seen.append((view.side, view.field is not None))
        return original(view, extractor, names, *rest, **options)

    monkeypatch.setattr(solve, "described", watched)
    monkeypatch.setattr("samconvex.deform.pyramid.described", watched)
    body = textured_body(grid=Grid((28, 26, 28), (5.0, 5.0, 5.0)))
    small = replace(
        PRESETS["paper"],
        affine="none",
        levels=(Level(20.0, 1, 2, ("sam-anew",)), Level(20.0, 1, 2, ("sam-anew-fine",))),
        working_spacing=5.0,
        field_spacing=20.0,
        adam=replace(PRESETS["paper"].adam, spacing=20.0, iterations=1),
    )
    result = sc.register(body, body, preset=small, device="cpu")
    assert seen == [("fixed", False), ("moving", False), ("fixed", False), ("moving", True)] + [
        ("fixed", False),
        ("moving", True),
    ]
    assert error_between(result) < 2.0


def error_between(result: sc.RegistrationResult) -> float:
    """How far an image registered to itself moves, mm."""
    points = np.array([[60.0, 60.0, 60.0], [70.0, 60.0, 80.0]])
    return float(np.abs(result.fixed_to_moving.map_points(points) - points).max())


# --- MASR-Net --------------------------------------------------------------------------------------------------------


def test_masr_has_the_papers_three_levels():
    masr = PRESETS["masr"]
    assert masr.levels == () and masr.refine_features == ("dns",) and masr.affine != "none"
    assert [step.iterations for step in masr.refinements] == [100, 80, 50]
    assert [step.regularization for step in masr.stages] == [0.6, 0.5, 0.4]
    # 0.01, 0.005 and 0.003 of half of a 400 mm image; grids from half the working image's to its own.
    assert [round(step.step_mm / 200, 4) for step in masr.stages] == [0.01, 0.005, 0.003]
    assert (masr.stages[0].spacing, masr.stages[-1].spacing) == (2 * masr.working_spacing, masr.working_spacing)
    assert adjusted(masr, "stiff").stages[0].regularization == 4 * 0.6
    assert adjusted(masr, quality="fast").stages[0].iterations == 50
    assert stiffness_numbers(masr)["regularization"] == 0.4


def test_levels_of_instance_optimization_start_where_the_one_before_ended(pair):
    stages = (
        AdamSettings(spacing=12.0, pool=3, iterations=25, step_mm=1.0, regularization=0.3),
        AdamSettings(spacing=8.0, pool=2, iterations=15, step_mm=0.5, regularization=0.2),
    )
    several = Settings("several", "", affine="none", levels=(), refine="adam", stages=stages, working_spacing=4.0)
    start = float(np.linalg.norm([6.0, -4.0, 0.0]))
    found = error_mm(sc.register(*pair, preset=several, device="cpu"))
    last_alone = error_mm(sc.register(*pair, preset=replace(several, stages=stages[1:]), device="cpu"))
    assert found < 0.5 * start and found < last_alone


# --- SUITS -----------------------------------------------------------------------------------------------------------


def test_suits_has_the_papers_descent():
    suits = PRESETS["suits"]
    assert suits.levels == () and suits.refine_features == ("featcnn",)
    assert (suits.diffusion.iterations, suits.diffusion.regularization, suits.diffusion.step) == (15, 10.0, 1.0)
    assert suits.diffusion.spacing == 4 * suits.working_spacing == suits.diffusion.pool * suits.working_spacing
    assert suits.diffusion.anew


def test_every_step_of_the_descent_describes_the_image_warped_anew(pair, monkeypatch):
    seen: list[DisplacementField] = []
    fields: list[DisplacementField] = []
    original = View.image

    def watched(view, grid, parts):
        if view.field is not None:
            seen.append(view.field)
        return original(view, grid, parts)

    def ending(*arguments):
        fields.extend(seen)  # what follows looks at the result, for its expected error
        return finished(*arguments)

    monkeypatch.setattr(View, "image", watched)
    monkeypatch.setattr("samconvex.registration.register.finished", ending)
    descent = DiffusionSettings(spacing=8.0, pool=2, iterations=4, regularization=0.5, anew=True)
    settings = Settings("s", "", affine="none", levels=(), refine="diffusion", diffusion=descent, working_spacing=4.0)
    result = sc.register(*pair, preset=settings, device="cpu")
    assert len(fields) == 4 and float(fields[0].tensor.abs().max()) == 0
    assert all(float((later.tensor - field.tensor).abs().max()) > 0.05 for field, later in pairwise(fields))
    # The spline lies on the image's voxels, two along each of the control field's.
    assert fields[-1].grid.spacing == (4.0, 4.0, 4.0)
    assert error_mm(result) < 0.75 * float(np.linalg.norm([6.0, -4.0, 0.0]))


def test_places_of_a_field_finer_than_the_level_are_computed_each():
    volume = blob(tuple(GRID.center))
    scene = Scene(volume, volume, Transform(), GRID.corners())
    control = GRID.strided(2)
    tensor = torch.zeros(1, 3, *GRID.shape)
    tensor[:, 0, :, :, ::2] = 4.0  # every other voxel moves: invisible on the control grid
    view = View(scene, "moving", DisplacementField(tensor, GRID))

    class Bright:
        def __call__(self, image):
            from samconvex.space.volume import FeatureMap

            return FeatureMap(image.as_float(), image.grid)

    maps = [described(view, lambda name: Bright(), ("x",), (), control, 2, spread=spread).tensor for spread in (0, 1)]
    exact = F.avg_pool3d(view.image(GRID, 1).as_float(), 2)
    torch.testing.assert_close(maps[0], exact)
    assert float((maps[1] - exact).abs().max()) > 1.0
