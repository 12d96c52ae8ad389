"""The mean of many images: no drift, the known mean shape, every voxel over those that saw it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from engine import phantom_fixtures
from samconvex.atlas.averages import averaged, centered, majority, shrinkage_percent
from samconvex.atlas.build import AtlasSettings, build_atlas
from samconvex.atlas.subjects import Facts, Subject, SubjectFaults, copies, inspected, read_subjects
from samconvex.atlas.work import Job, bodies_path, pulled, without_blanks
from samconvex.errors import Cancelled, InputError, ResourceError
from samconvex.io.images import read_labels, read_volume, write_volume
from samconvex.progress import null_progress
from samconvex.report.metrics import dice, mean_dice
from samconvex.space.field import DisplacementField
from samconvex.space.grid import Grid
from samconvex.space.linear import rotation
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume
from samconvex.synthetic.phantom import make_phantom

QUICK = replace(phantom_fixtures.QUICK, working_spacing=6.0)
SHARES = (-1.0, 0.25, 0.75)


def listed(folder: Path, lines: list[str]) -> Path:
    path = folder / "images.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(seed=1, spacing=10.0, couch=False)


@pytest.fixture(scope="module")
def bends(phantom):
    """Maps from the phantom to each of its three shapes; their mean is the identity."""
    grid = phantom.ct.grid
    points = grid.voxel_centers(reference=grid.center)
    bump = torch.exp(-points.square().sum(-1) / (2 * 70.0**2))
    push = torch.stack([14 * bump, -10 * bump, 12 * bump])[None]
    return [Transform((DisplacementField(share * push, grid),)) for share in SHARES]


@pytest.fixture(scope="module")
def images(phantom, bends, tmp_path_factory) -> Path:
    """A list of three shapes of one phantom; the last shows its upper two thirds alone."""
    folder = tmp_path_factory.mktemp("images")
    rows = ["image,labels"]
    for number, bend in enumerate(bends):
        grid = phantom.ct.grid
        if number == 2:
            grid = grid.cropped([0, 0, grid.size[2] // 3], [*grid.size[:2], grid.size[2] - grid.size[2] // 3])
        write_volume(bend.inverse().warp_volume(phantom.ct, grid), folder / f"shape{number}.nii.gz")
        write_volume(bend.inverse().warp_labels(phantom.labels, grid), folder / f"labels{number}.nii.gz")
        rows.append(f"shape{number}.nii.gz,labels{number}.nii.gz")
    return listed(folder, rows)


def built(path: Path, folder: Path, **more):
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    subjects, faults = read_subjects(path)
    assert faults == []
    how = AtlasSettings(**{"settings": QUICK, "iterations": 2, "start": subjects[0].name} | more)
    return build_atlas(subjects, folder, scratch, how, progress=null_progress)


@pytest.fixture(scope="module")
def atlas(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas")
    return folder, built(images, folder)


def inner(phantom, below: float = -60.0) -> np.ndarray:
    """Points of the phantom's body, away from the edges; above ``below`` all three images saw them."""
    points = Volume((phantom.labels.tensor > 0).to(torch.uint8), phantom.ct.grid).points()[::41]
    low, high = phantom.ct.grid.corners().min(0) + 30, phantom.ct.grid.corners().max(0) - 30
    return points[((points > low) & (points < high)).all(1) & (points[:, 2] > below)]


def test_the_maps_average_to_the_identity(atlas, phantom) -> None:
    folder, document = atlas
    points = inner(phantom, -1000.0)
    maps = [Transform.load(folder / f"shape{number}-transform.h5") for number in range(3)]
    drift = np.linalg.norm(np.mean([found.map_points(points) for found in maps], 0) - points, axis=1)
    assert drift.max() < 0.1 and document["mean_displacement_mm"]["max"] < 0.1
    # The first image lies far from the mean: without its removal the drift would be its own displacement.
    assert document["rounds"][0]["mean_displacement_removed_mm"]["max"] > 2.0
    for number, there in enumerate(maps):
        back = Transform.load(folder / f"shape{number}-inverse.h5")
        assert np.linalg.norm(back.map_points(there.map_points(points)) - points, axis=1).mean() < 0.3


def test_the_known_mean_shape_is_found(atlas, phantom, bends) -> None:
    folder, _ = atlas
    points = inner(phantom)
    for number in (0, 2):
        found = Transform.load(folder / f"shape{number}-transform.h5").map_points(points)
        truth = bends[number].map_points(points)
        # Coarse levels on a coarse phantom find a good half of the way, with the right sign.
        assert np.linalg.norm(found - truth, axis=1).mean() < 0.6 * np.linalg.norm(truth - points, axis=1).mean()
    voted = read_labels(folder / "labels.nii.gz")
    scores = mean_dice(dice(phantom.labels, Transform().warp_labels(voted, phantom.ct.grid)))
    first = mean_dice(dice(phantom.labels, read_labels(atlas[1]["images"][0]["labels"])))
    assert scores > 0.95 and scores > first + 0.1


def test_every_voxel_is_the_mean_of_those_that_saw_it(atlas, phantom) -> None:
    folder, _ = atlas
    coverage, template = (read_volume(folder / f"{name}.nii.gz") for name in ("coverage", "template"))
    assert coverage.grid == template.grid and coverage.pixel_id == sitk.sitkUInt16
    lowest = template.grid.points_to_voxels(np.array([[0.0, 0.0, -150.0], [0.0, 0.0, 60.0]])).round().astype(int)
    counts = [int(coverage.tensor[0, 0, z, y, x]) for x, y, z in lowest]
    assert counts == [2, 3]
    # Where an image ends nothing darkens: the mean of tissue stays tissue.
    point = phantom.landmarks["L1 vertebral body"]
    x, y, z = template.grid.points_to_voxels(point[None])[0].round().astype(int)
    assert template.tensor[0, 0, :, y, x][z - 3 : z + 3].min() > -150


def test_what_was_blanked_out_of_an_image_was_not_seen_by_it(phantom, tmp_path) -> None:
    tensor, grid = phantom.ct.tensor.clone(), phantom.ct.grid
    tensor[phantom.labels.tensor == 0] = -1000
    above = int(grid.points_to_voxels(np.array([[0.0, 0.0, 90.0]]))[0, 2])
    tensor[:, :, above:] = -1000
    write_volume(phantom.ct.with_tensor(tensor), tmp_path / "masked.nii.gz")
    subject = Subject(2, "masked", str(tmp_path / "masked.nii.gz"))
    job = Job(subject, inspected(subject), QUICK, {}, AffineTransform.identity(), tmp_path, 0, 1.0, grid, grid)
    pulled(job)
    assert np.load(job.file("seen")).all()
    bodies = Volume((phantom.labels.tensor > 0).to(torch.uint8), grid, sitk.sitkUInt8)
    write_volume(bodies, bodies_path(tmp_path))
    without_blanks(job)
    seen = np.load(job.file("seen"))
    places = [[0.0, 0.0, 130.0], [0.0, 0.0, 60.0], [-195.0, -150.0, 130.0]]
    voxels = grid.points_to_voxels(np.array(places)).round().astype(int)
    # Blank where the others show a body; tissue; air, which is seen as such.
    assert [int(seen[z, y, x]) for x, y, z in voxels] == [0, 1, 1]


def test_averages_leave_out_who_did_not_see() -> None:
    grid = Grid((3, 2, 2), (1.0, 1.0, 1.0))
    values = [np.broadcast_to(row, (2, 2, 3)) for row in ([1.0, 5.0, 7.0], [3.0, 99.0, 99.0])]
    seen = [np.broadcast_to(row, (2, 2, 3)) for row in ([1, 1, 0], [1, 0, 0])]
    mean = averaged(zip(values, seen, strict=True), grid, 1, -1000.0, None)
    assert mean.mean[0, 0].tolist() == [2.0, 5.0, -1000.0]
    assert mean.deviation[0, 0].tolist() == [1.0, 0.0, 0.0]
    assert mean.coverage[0, 0].tolist() == [2, 1, 0]


def test_labels_are_voted_by_those_who_saw() -> None:
    given = [np.array([[[4, 4, 0, 9]]]), np.array([[[4, 2, 0, 9]]]), np.array([[[0, 2, 7, 9]]])]
    seen = [np.array([[[1, 1, 0, 0]]]), np.array([[[1, 1, 0, 0]]]), np.array([[[1, 0, 1, 0]]])]
    assert majority(given, seen, 1).ravel().tolist() == [4, 2, 7, 0]


def test_linear_maps_are_centered_and_turned_ones_are_told() -> None:
    center = np.array([10.0, -20.0, 300.0])
    turned = [
        AffineTransform.about(center, rotation(0, 0, angle), np.array([angle, 5.0, 0.0])) for angle in (-20, 5, 30)
    ]
    points = np.random.default_rng(1).uniform(-100, 100, (50, 3))
    mean = np.mean([affine.map_points(points) for affine in centered(turned)], 0)
    assert np.abs(mean - points).max() < 1e-9
    assert shrinkage_percent([AffineTransform.identity()] * 3) == pytest.approx(0.0, abs=1e-9)
    assert 1.0 < shrinkage_percent(turned) < 10.0


def test_every_fault_is_told_before_the_work(tmp_path, phantom) -> None:
    write_volume(phantom.ct, tmp_path / "a.nii.gz")
    write_volume(phantom.labels, tmp_path / "labels.nii.gz")
    rows = ["image;labels;name;age", "a.nii.gz;;x;", "gone.nii.gz;;y;", "a.nii.gz;;X;", "a.nii.gz;;../z;3"]
    _, faults = read_subjects(listed(tmp_path, rows))
    assert {(fault.row, fault.column) for fault in faults} == {
        (3, "image"),
        (2, "name"),
        (4, "name"),
        (5, "name"),
        (5, "age"),
    }
    subjects, faults = read_subjects(listed(tmp_path, ["image,labels", "a.nii.gz,a.nii.gz", "labels.nii.gz,"]))
    assert faults == []
    with pytest.raises(SubjectFaults, match="2 rows of the list of images cannot be used") as caught:
        build_atlas(subjects, tmp_path / "out", tmp_path / "out", AtlasSettings(QUICK), progress=null_progress)
    assert [(fault.row, fault.column) for fault in caught.value.faults] == [(2, "labels"), (3, "image")]
    with pytest.raises(InputError, match="lists 1 image; an atlas needs at least two"):
        read_subjects(listed(tmp_path, ["image", "a.nii.gz"]))


def test_frames_of_a_4d_image_are_its_images(tmp_path, phantom) -> None:
    frames = [phantom.ct.to_sitk(), phantom.ct.to_sitk() + 7]
    sitk.WriteImage(sitk.JoinSeries(frames), str(tmp_path / "cine.nii.gz"))
    subjects, faults = read_subjects(listed(tmp_path, ["image", "cine.nii.gz"]))
    assert faults == [] and [subject.name for subject in subjects] == ["cine-000", "cine-001"]
    assert torch.equal(subjects[1].volume().tensor, phantom.ct.tensor + 7)
    known = [inspected(subject) for subject in subjects]
    assert known[0].faults == () and known[1].brightness == pytest.approx(known[0].brightness + 7)


def test_it_stops_when_it_is_told_to(images, tmp_path) -> None:
    def stop(stage: str, fraction: float, message: str = "") -> None:
        if stage == "round 1" and fraction > 0.1:
            raise Cancelled()

    subjects, _ = read_subjects(images)
    with pytest.raises(Cancelled):
        build_atlas(subjects, tmp_path, tmp_path, AtlasSettings(QUICK), progress=stop)
    assert not list(tmp_path.glob("*.h5"))


def test_a_list_in_a_cell_is_told_and_the_users_folder_is_known(tmp_path, phantom, monkeypatch) -> None:
    write_volume(phantom.ct, tmp_path / "a.nii.gz")
    path = tmp_path / "images.json"
    path.write_text('[{"image": ["a.nii.gz"]}, {"image": "~/a.nii.gz", "name": "b"}]')
    monkeypatch.setenv("HOME", str(tmp_path))
    subjects, faults = read_subjects(path)
    assert [(fault.row, fault.column) for fault in faults] == [(1, "image")] and "holds a list" in faults[0].sentence
    assert [subject.image for subject in subjects] == [str(tmp_path / "a.nii.gz")]


def test_workers_that_die_are_told_in_one_sentence() -> None:
    distributed = pytest.importorskip("distributed")
    from samconvex.atlas import workers

    class Dead:
        def result(self) -> None:
            raise distributed.KilledWorker("job", None, 3)

    with pytest.raises(ResourceError, match="give fewer --workers"):
        workers._result(Dead())


def test_an_image_that_is_given_twice_is_told_and_frames_of_one_file_are_not() -> None:
    subjects = [
        Subject(2, "a", "a.nii"),
        Subject(3, "b", "b.nii"),
        *(Subject(4, f"c{n}", "c.nii", frame=n) for n in (0, 1)),
    ]
    facts = [Facts(sha256=digest) for digest in ("x", "x", "y", "y")]
    assert [sentence.split(" and")[0] for sentence in copies(facts, subjects)] == ["b is the same image as a"]
