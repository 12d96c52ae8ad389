"""The organ of a lesion: lung and bone by what surrounds it, organs by the network, else region and side."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from samconvex.anatomy.level import Anatomy
from samconvex.lesions import sites
from samconvex.lesions.sites import most_likely, propose_organ
from samconvex.space.grid import Grid
from samconvex.space.volume import FeatureMap, Volume

GRID = Grid((80, 60, 50), (4.0, 4.0, 4.0), (-160.0, -120.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


@pytest.fixture(scope="module")
def trunk() -> Volume:
    """An elliptic body with a lung on the right and a spine; its lungs reach from 60 mm upwards."""
    x, y, z = np.moveaxis(GRID.voxel_centers().numpy(), -1, 0)
    values = np.full(x.shape, -1000.0)
    values[(x / 140) ** 2 + (y / 100) ** 2 < 1] = 40.0
    values[((x + 65) / 50) ** 2 + (y / 60) ** 2 + ((z - 140) / 70) ** 2 < 1] = -850.0
    values[(x / 22) ** 2 + ((y - 60) / 22) ** 2 < 1] = 700.0
    values[(x / 14) ** 2 + ((y - 60) / 14) ** 2 < 1] = 180.0
    # The heart, full of contrast medium.
    values[((x - 50) / 40) ** 2 + ((y + 20) / 40) ** 2 + ((z - 140) / 40) ** 2 < 1] = 400.0
    for place in ((-65, 0, 140), (0, 60, 60)):
        near = (x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2 < 6**2
        values[near] = 40.0
    return Volume(torch.from_numpy(values).float()[None, None], GRID, sitk.sitkFloat32)


def seen(monkeypatch, level: float, confidence: float = 1.0) -> object:
    anatomy = Anatomy(True, "", confidence, "upright", (level, 0.0), (0.0, 200.0), (level, level), ("abdomen",))
    monkeypatch.setattr(sites, "anatomy_of", lambda embedding: anatomy)
    return object()


def test_lung_and_bone_need_no_network(trunk):
    assert propose_organ(np.array([-65.0, 0, 140]), trunk, radius_mm=6).organ == "lung"
    assert propose_organ(np.array([0.0, 60, 60]), trunk, radius_mm=6).organ == "bone"
    assert propose_organ(np.array([50.0, -20, 140]), trunk, radius_mm=6).organ == ""
    # Soft tissue under the skin: the air around the patient is no lung.
    assert propose_organ(np.array([-128.0, 0, 30]), trunk).organ == ""


def test_elsewhere_region_and_side(trunk, monkeypatch):
    monkeypatch.setattr(sites, "_by_network", lambda position, volume: "")
    embedding = seen(monkeypatch, 500.0)
    assert propose_organ(np.array([70.0, 0, 30]), trunk, embedding).organ == "abdomen, left"
    assert propose_organ(np.array([-70.0, 0, 30]), trunk, embedding).organ == "abdomen, right"
    assert propose_organ(np.array([5.0, -40, 30]), trunk, embedding).organ == "abdomen"
    found = propose_organ(np.array([70.0, 0, 30]), trunk, seen(monkeypatch, 500.0, 0.2))
    assert found.organ == "" and "not known" in found.reason


def test_the_network_names_organs_of_the_neck(trunk, monkeypatch):
    monkeypatch.setattr(sites, "_by_network", lambda position, volume: "larynx" if position[0] > 0 else "")
    embedding = seen(monkeypatch, 200.0)
    assert propose_organ(np.array([30.0, 0, 30]), trunk, embedding).organ == "larynx"
    assert propose_organ(np.array([-70.0, 0, 30]), trunk, embedding).organ == "neck, right"


def test_the_shipped_network_names_the_liver_of_the_phantom(trunk, monkeypatch):
    embedding = seen(monkeypatch, 500.0)
    assert propose_organ(np.array([-70.0, 0, 30]), trunk, embedding).organ == "liver"


def test_only_a_probable_organ_is_named():
    values = torch.zeros(1, 2, 3, 3, 3)
    values[0, 1, 1, 1, 1], values[0, 0, 1, 1, 2] = 0.6, 0.4
    found = FeatureMap(values, Grid((3, 3, 3), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0), GRID.direction))
    names = ("larynx", "mandible")
    assert most_likely(found, names, np.array([3.4, 3.0, 3.0])) == "mandible"
    assert most_likely(found, names, np.array([6.0, 3.0, 3.0])) == ""
    assert most_likely(found, names, np.array([60.0, 3.0, 3.0])) == ""


def test_outside_the_image_nothing_is_said(trunk):
    assert propose_organ(np.array([900.0, 0, 0]), trunk).organ == ""
