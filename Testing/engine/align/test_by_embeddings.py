"""SAM-affine: recovers known affine maps from matches, resists wrong ones, and says when it does not know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from engine.sam_fixtures import GRID, body_points, random_model, textured_body
from samconvex.align import by_embeddings
from samconvex.align.by_embeddings import CONFIDENT, sam_affine
from samconvex.align.consensus import ransac_similarity, reweighted_affine
from samconvex.align.pairs import PointPairs
from samconvex.anatomy.embed import embed
from samconvex.space.grid import Grid
from samconvex.space.linear import axis_rotations, similarity_from_points
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.turning import Turn
from samconvex.space.volume import Volume


def rotation(degrees: float, axis: int = 2) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    i, j = [k for k in range(3) if k != axis]
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def pairs_of(transform: AffineTransform, outliers: float, noise: float = 1.0, count: int = 300) -> PointPairs:
    random = np.random.default_rng(0)
    fixed = random.uniform(-150, 150, (count, 3)) + [10, 200, -900]
    moving = transform.map_points(fixed) + random.normal(0, noise, (count, 3))
    wrong = random.random(count) < outliers
    moving[wrong] = random.uniform(-200, 200, (int(wrong.sum()), 3)) + [10, 200, -900]
    return PointPairs(fixed, moving, np.ones(count))


def test_similarity_is_exact_without_noise():
    truth = AffineTransform.about(np.array([5.0, 6, 7]), 1.2 * rotation(30, 1), np.array([3.0, -40, 8]))
    points = np.random.default_rng(1).normal(size=(20, 3)) * 50
    matrix, translation = similarity_from_points(points, truth.map_points(points))
    np.testing.assert_allclose(matrix, truth.matrix, atol=1e-9)
    np.testing.assert_allclose(translation, truth.translation, atol=1e-7)


def test_similarity_never_mirrors():
    points = np.random.default_rng(1).normal(size=(20, 3)) * 50
    matrix, _ = similarity_from_points(points, points * [-1, 1, 1])
    assert np.linalg.det(matrix) > 0


@pytest.mark.parametrize("outliers", [0.0, 0.4, 0.7])
def test_robust_fit_survives_wrong_pairs(outliers):
    matrix = rotation(12) @ np.diag([1.1, 0.95, 1.2])
    truth = AffineTransform.about(np.array([0.0, 200, -900]), matrix, np.array([25.0, -60, 130]))
    pairs = pairs_of(truth, outliers)
    start, inlier = ransac_similarity(pairs, np.random.default_rng(0), limit_mm=25.0)
    assert start is not None
    found = reweighted_affine(pairs.where(inlier), start)
    found = reweighted_affine(pairs, found)
    test = np.random.default_rng(5).uniform(-100, 100, (50, 3)) + [10, 200, -900]
    assert np.linalg.norm(found.map_points(test) - truth.map_points(test), axis=1).max() < 2.0


def test_flat_point_clouds_keep_the_starting_scale():
    truth = AffineTransform(np.eye(3), np.array([5.0, 0, 0]))
    random = np.random.default_rng(0)
    fixed = random.uniform(-100, 100, (80, 3)) * [1, 1, 0.01]
    pairs = PointPairs(fixed, truth.map_points(fixed) + random.normal(0, 2, (80, 3)), np.ones(80))
    found = reweighted_affine(pairs, AffineTransform.identity())
    assert abs(found.matrix[2, 2] - 1) < 0.1


def test_random_pairs_are_no_similarity_or_have_few_inliers():
    pairs = pairs_of(AffineTransform.identity(), outliers=1.0)
    _, inlier = ransac_similarity(pairs, np.random.default_rng(0))
    assert inlier.mean() < 0.15
    nothing, _ = ransac_similarity(pairs.where(np.arange(300) < 4), np.random.default_rng(0))
    assert nothing is None


@pytest.fixture(scope="module")
def model():
    return random_model()


def test_known_affine_between_images_is_recovered(model):
    body = textured_body()
    fixed_embedding = embed(body, model)
    truth = AffineTransform.about(body.grid.center, 1.04 * rotation(3), np.array([30.0, -20, 55]))
    grid = Grid.covering(truth.map_points(body.grid.corners()), 4.0)
    moving = Transform((truth.inverse(),)).warp_volume(body, grid)
    found, details = sam_affine(fixed_embedding, embed(moving, model))
    points = body_points(body, 50)
    errors = np.linalg.norm(found.map_points(points) - truth.map_points(points), axis=1)
    assert errors.max() < 4.0
    assert details["confidence"] >= CONFIDENT and details["reason"] == ""


def textured_block() -> Volume:
    """Structure up to the borders: a small random network knows an ellipsoid by its surface, whichever way it lies."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randn(1, 1, 12, 10, 12, generator=generator)
    texture = 40 + 150 * torch.nn.functional.interpolate(cells, size=GRID.shape, mode="trilinear", align_corners=True)
    texture = texture.clamp(-250, 900)
    texture[..., :2] = -1000
    return Volume(texture.round().to(torch.int16), GRID, sitk.sitkInt16, "block")


@pytest.mark.parametrize("degrees", [(0, 0, 180), (0, 90, 0)])
def test_a_header_that_turns_the_patient_is_found_in_volumes_and_doubted_in_embeddings(model, degrees):
    body = textured_block()
    turn = Turn(axis_rotations()[degrees], body.grid.center)
    moving = body.with_tensor(body.tensor, body.grid.turned(turn.matrix, turn.center))
    truth = turn.map_back(AffineTransform.identity())
    found, details = sam_affine(body, moving, weights=model)
    corners = body.grid.corners()
    assert np.linalg.norm(found.map_points(corners) - truth.map_points(corners), axis=1).max() < 2.0
    assert details["confidence"] >= CONFIDENT and details["turned_deg"] == list(degrees)
    _, unaware = sam_affine(embed(body, model), embed(moving, model))
    assert unaware["confidence"] < CONFIDENT and unaware["reason"]


def test_a_small_corner_that_agrees_upright_does_not_hide_a_turn(model, monkeypatch):
    body = textured_block()
    turn = Turn(axis_rotations()[(0, 0, 180)], body.grid.center)
    moving = body.with_tensor(body.tensor, body.grid.turned(turn.matrix, turn.center))
    aligned, calls = by_embeddings._aligned, []

    def corner_first(*arguments):
        transform, details = aligned(*arguments)
        calls.append(details)
        corner = {"confidence": 0.83, "agreement": 0.134, "agreed": 0.119, "reason": ""}
        return transform, {**details, **corner} if len(calls) == 1 else details

    monkeypatch.setattr(by_embeddings, "_aligned", corner_first)
    found, details = sam_affine(body, moving, weights=model)
    corners = body.grid.corners()
    truth = turn.map_back(AffineTransform.identity())
    assert np.linalg.norm(found.map_points(corners) - truth.map_points(corners), axis=1).max() < 2.0
    assert details["turned_deg"] == [0, 0, 180] and len(calls) == 2
    # Where the images fit best upright, no turn is embedded.
    calls.clear()
    sam_affine(body, body, weights=model)
    assert len(calls) == 1


def test_many_pairs_that_agree_on_a_wrong_map_give_no_confidence(model, monkeypatch):
    body = embed(textured_body(), model)
    wrong = AffineTransform(rotation(0), np.array([20.0, 30.0, 0]))
    fixed = body_points(textured_body(), 60)
    agreed = PointPairs(fixed, wrong.map_points(fixed), np.ones(len(fixed)))
    elsewhere = agreed.where(np.arange(len(fixed)) < 12)
    monkeypatch.setattr(
        by_embeddings, "matched_pairs", lambda *_, near=None, **__: (agreed if near is None else elsewhere, 1000)
    )
    _, details = sam_affine(body, body)
    assert details["inliers"] == len(fixed) and details["agreement"] < 0.05
    assert details["confidence"] < CONFIDENT and "little of the bodies agrees" in details["reason"]


def test_masks_restrict_which_points_count(model):
    body = textured_body()
    embedding = embed(body, model)
    half = body.tensor.clone().zero_().to(torch.uint8)
    half[:, :, : half.shape[2] // 2] = 1
    _, details = sam_affine(embedding, embedding, fixed_mask=Volume(half, body.grid))
    _, whole = sam_affine(embedding, embedding)
    assert details["points"] < 0.7 * whole["points"]


def test_meaningless_features_give_no_confidence(model):
    body = embed(textured_body(), model)
    generator = torch.Generator().manual_seed(0)
    noise = [
        replace(part, tensor=torch.randn(part.tensor.shape, generator=generator).half())
        for part in (body.fine, body.coarse)
    ]
    transform, details = sam_affine(body, replace(body, fine=noise[0], coarse=noise[1]))
    assert details["confidence"] < CONFIDENT and details["reason"]
    assert np.isfinite(transform.matrix).all()
