"""Training on X-ray images computed from CTs: the same points from several sides, weights that the product loads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from samconvex.errors import InputError
from samconvex.synthetic.phantom import make_phantom
from samconvex.training.data.cases import make_case
from samconvex.training.sam.batches import BatchSource, Renderer
from samconvex.training.sam.radiographs import make_radiographs, view_errors
from samconvex.training.sam.recipe import build_network, train
from samconvex.training.sam.settings import SamSettings
from samconvex.weights import models as weights

TINY = SamSettings.from_dict(
    {
        "dimension": 2,
        "spacing_mm": 6.0,
        "widths": [8, 16, 16, 16],
        "blocks": [1, 1, 1, 1],
        "fine_channels": 24,
        "coarse_channels": 16,
        "shapes": [[1, 48, 64]],
        "candidates": 200,
        "queries": 40,
        "label_points": 40,
        "radiographs": 2,
        "threads": 1,
        "workers": 0,
        "validation": ["p2"],
    }
)


@pytest.fixture(scope="module")
def cases():
    phantoms = [make_phantom(seed, 8.0) for seed in range(3)]
    return [
        make_case(p.ct, p.labels, name=f"p{seed}", group="phantom", spacing=TINY.spacing_mm)
        for seed, p in enumerate(phantoms)
    ]


@pytest.fixture(scope="module")
def planar(cases):
    return make_radiographs(cases, TINY, lambda fraction: None)


def test_radiographs_show_the_same_points_of_a_patient_from_several_sides(cases, planar):
    assert [case.name for case in planar[:4]] == ["p0#0 front", "p0#1 front", "p0#0 side", "p0#1 side"]
    assert {case.group for case in planar} == {"phantom front", "phantom side"}
    for case in planar[:4]:
        row = case.points.round().long()
        assert case.planar and case.patient == "p0" and bool(case.body[0, row[:, 1], row[:, 2]].float().mean() > 0.97)
    # The height in the body does not depend on the side, up to what perspective does; the place across it does.
    front, side = planar[0], planar[2]
    down, across = ([case.points[:, axis] - case.points[:, axis].mean() for case in (front, side)] for axis in (1, 2))
    assert bool(((down[0] - down[1]).abs() < 0.15 * down[0].abs() + 1.0).all())
    assert float(torch.corrcoef(torch.stack(across))[0, 1].abs()) < 0.5
    compact = [value for value, shape in cases[0].labels.items() if shape.axis is None]
    assert sorted(front.labels) == sorted(compact)


def test_a_step_compares_two_radiographs_of_a_patient_point_by_point(planar):
    settings = replace(TINY, same_share=1.0)
    batch = BatchSource(planar, settings, 0).draw(0)
    images = Renderer(planar, settings, torch.device("cpu")).images(batch)
    assert images.shape == (4, 1, 1, 48, 64) and batch.labeled is not None
    first, second = (next(case for case in planar if case.name == name) for name in batch.names)
    assert first is not second and first.patient == second.patient and first.group == second.group
    row = int((first.points - batch.labeled[0].points[0]).norm(dim=1).argmin())
    torch.testing.assert_close(second.points[row], batch.labeled[1].points[0])
    assert all(bool((points.points[:, 0] == 0).all()) for points in batch.candidates)


def test_training_on_radiographs_writes_weights_for_images_and_learns(tmp_path, cases, planar):
    torch.manual_seed(TINY.seed)
    held_out = [case for case in planar if case.patient == "p2"]
    before = np.median(view_errors(build_network(TINY), held_out)[0])
    result = train(cases, tmp_path / "xray.pt", settings=replace(TINY, learning_rate=3e-3, warmup_steps=5), steps=40)
    model = weights.load_sam_file(tmp_path / "xray.pt")
    assert model.planar and model.modality == "xray" and model.kind == "sam-2d"
    assert set(result["validation"]) == {"landmarks_front", "landmarks_side", "views"}
    assert np.median(view_errors(model.network, held_out)[0]) < 0.7 * before


def test_settings_of_images_have_flat_views():
    assert SamSettings.from_dict({"dimension": 2}).shapes[0] == (1, 96, 96)
    with pytest.raises(InputError, match="dimension"):
        SamSettings.from_dict({"dimension": 4})
