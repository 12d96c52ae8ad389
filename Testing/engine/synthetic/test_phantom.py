"""Promises of the torso phantom: plausible anatomy, exact correspondence between patients, any geometry, repeatable."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from samconvex.synthetic.phantom import LABELS, make_phantom

NUMBER = {name: number for number, name in LABELS.items()}


@pytest.fixture(scope="module")
def patient():
    return make_phantom(3, 5.0)


def organ(phantom, name):
    return (phantom.labels.tensor[0, 0] == NUMBER[name]).numpy()


def centroid(phantom, name):
    voxels = np.argwhere(organ(phantom, name))[:, ::-1]
    return phantom.labels.grid.voxels_to_points(voxels).mean(0)


def test_unpacks_into_ct_labels_and_landmarks(patient):
    ct, labels, landmarks = patient
    assert ct.pixel_id == sitk.sitkInt16 and labels.pixel_id == sitk.sitkUInt8
    assert ct.grid == labels.grid
    assert len(landmarks) >= 25
    assert ct.grid.contains(np.stack(list(landmarks.values()))).all()


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [("right lung", -900, -700), ("left lung", -900, -700), ("liver", 40, 140), ("heart", 40, 200), ("ribs", 100, 500)],
)
def test_organs_have_the_density_of_their_tissue(patient, name, lowest, highest):
    values = patient.ct.tensor[0, 0].numpy()[organ(patient, name)]
    assert lowest < np.median(values) < highest


def test_parenchyma_has_the_fine_texture_of_real_tissue_and_moves_nothing():
    """What lies between a smoothing by 2 and by 4 mm spreads as in chest and abdomen CTs, see draw_parenchyma."""
    right = {"offset": (-60.0, 0.0, -20.0), "noise_hu": 0.0, "couch": False}
    plain, fine = (make_phantom(3, 3.0, (48, 48, 48), parenchyma=on, **right) for on in (False, True))
    assert (plain.labels.tensor == fine.labels.tensor).all() and plain.landmarks.keys() == fine.landmarks.keys()

    def spread(phantom, name):
        image = sitk.GetImageFromArray(phantom.ct.tensor[0, 0].float().numpy())
        band = [sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image, mm / 3.0)) for mm in (2.0, 4.0)]
        inside = sitk.BinaryErode(sitk.GetImageFromArray(organ(phantom, name).astype(np.uint8)), [3, 3, 3])
        # The median's: large vessels are in both.
        return 1.48 * float(np.median(np.abs(band[0] - band[1])[sitk.GetArrayFromImage(inside) > 0]))

    for name, lowest, highest in (("right lung", 18.0, 33.0), ("liver", 2.5, 6.5)):
        assert spread(plain, name) < 0.7 * lowest < lowest < spread(fine, name) < highest, name


def test_organs_lie_where_a_reader_expects_them(patient):
    # LPS: +x left, +y back, +z head.
    assert centroid(patient, "liver")[0] < centroid(patient, "spleen")[0]
    assert centroid(patient, "right lung")[0] < centroid(patient, "heart")[0] < centroid(patient, "left lung")[0]
    assert centroid(patient, "T8")[1] > centroid(patient, "heart")[1]
    assert centroid(patient, "T4")[2] > centroid(patient, "T8")[2] > centroid(patient, "L2")[2]
    assert centroid(patient, "right lung")[2] > centroid(patient, "liver")[2]


def test_lung_volumes_are_those_of_people(patient):
    liters = {side: organ(patient, f"{side} lung").sum() * 0.125e-3 for side in ("right", "left")}
    assert 1.0 < liters["left"] < liters["right"] * 1.1 < 5.0


def test_same_seed_gives_the_same_patient_and_another_seed_another_one():
    first, again, other = make_phantom(1, 10.0), make_phantom(1, 10.0), make_phantom(2, 10.0)
    assert (first.ct.tensor == again.ct.tensor).all()
    assert (first.ct.tensor != other.ct.tensor).float().mean() > 0.3
    moved = [np.linalg.norm(first.landmarks[n] - other.landmarks[n]) for n in first.landmarks if n in other.landmarks]
    assert 5.0 < np.mean(moved) < 60.0


def test_corresponding_points_of_two_patients_are_the_same_anatomy():
    one, two = make_phantom(5, 8.0), make_phantom(6, 8.0)
    names = [name for name in one.landmarks if name in two.landmarks]
    found = one.corresponding_points(np.stack([one.landmarks[n] for n in names]), two)
    assert np.abs(found - np.stack([two.landmarks[n] for n in names])).max() < 1e-6
    # And as drawn: liver voxels of one land in the other's liver.
    voxels = np.argwhere(organ(one, "liver"))[:, ::-1]
    carried = two.labels.grid.points_to_voxels(one.corresponding_points(one.labels.grid.voxels_to_points(voxels), two))
    index = np.clip(np.round(carried).astype(int), 0, np.asarray(two.labels.grid.size) - 1)
    hit = organ(two, "liver")[index[:, 2], index[:, 1], index[:, 0]]
    assert hit.mean() > 0.9


def test_anatomy_does_not_depend_on_the_voxel_grid():
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    flipped = turn @ np.diag([1.0, -1.0, -1.0]) @ np.diag([1.0, 1.0, -1.0])
    plain = make_phantom(2, 6.0, center=(100, -40, 700))
    turned = make_phantom(2, (6.0, 5.0, 7.0), direction=flipped.ravel(), center=(100, -40, 700))
    assert np.linalg.det(flipped) < 0
    for name in ("liver", "heart", "left kidney", "T9"):
        assert np.linalg.norm(centroid(plain, name) - centroid(turned, name)) < 3.0
    for name in ("carina", "spleen"):
        np.testing.assert_allclose(plain.landmarks[name], turned.landmarks[name], atol=1e-6)


def test_landmarks_lie_in_their_organs(patient):
    labels = patient.labels
    for landmark, name in (("spleen", "spleen"), ("left kidney", "left kidney"), ("T8 vertebral body", "T8")):
        x, y, z = np.round(labels.grid.points_to_voxels(patient.landmarks[landmark][None])[0]).astype(int)
        assert int(labels.tensor[0, 0, z, y, x]) == NUMBER[name]


def test_couch_field_of_view_crop_and_nodules_as_asked_for():
    plain = make_phantom(1, 8.0, couch=False, noise_hu=0.0)
    table = make_phantom(1, 8.0, couch=True, noise_hu=0.0)
    drawn = (table.ct.tensor != plain.ct.tensor) & (table.ct.tensor > -960)
    assert 500 < drawn.sum() and (table.labels.tensor[drawn] == 0).all()
    # Behind the patient.
    rows = drawn[0, 0].nonzero()[:, 1].float() * 8.0 + plain.ct.grid.origin[1]
    assert rows.min() > 60
    cut = make_phantom(1, 8.0, field_of_view_mm=240.0)
    assert (cut.ct.tensor[..., 0, 0] == -1024).all()
    part = make_phantom(1, 8.0, size=(40, 36, 20), offset=(0, 0, -90))
    assert part.ct.grid.size == (40, 36, 20) and part.ct.grid.center[2] == pytest.approx(-90)
    assert "carina" not in part.landmarks and "left kidney" in part.landmarks
    sick = make_phantom(1, 4.0, nodules=2)
    assert (sick.labels.tensor == NUMBER["lung nodule"]).sum() > 5
    assert {"nodule 1", "nodule 2"} <= set(sick.landmarks)
