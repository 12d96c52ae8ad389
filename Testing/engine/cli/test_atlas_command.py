"""`samconvex atlas`: everything at the end or nothing, on workers, and every fault in one table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import SimpleITK as sitk
from samconvex.cli import main
from samconvex.io.images import write_volume
from samconvex.synthetic.phantom import make_phantom


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for seed in (1, 2):
        phantom = make_phantom(seed, 12.0, (22, 18, 16), couch=False)
        write_volume(phantom.ct, folder / f"p{seed}.nii.gz")
    (folder / "images.csv").write_text("image,name\np1.nii.gz,first\np2.nii.gz,second\n")
    return folder / "images.csv"


@pytest.mark.slow
def test_it_writes_everything_at_once(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "out"
    # Nothing is aligned and nothing deformed: what counts here is what is written, and where.
    words = ["atlas", str(images), "-o", str(folder), "--preset", "affine", "--affine", "none", "--iterations", "1"]
    assert main([*words, "--workers", "1", "--progress", "json"]) == 0
    names = {path.name for path in folder.iterdir()}
    maps = {f"{name}-{kind}.h5" for name in ("first", "second") for kind in ("transform", "inverse")}
    assert names == {"template.nii.gz", "std.nii.gz", "coverage.nii.gz", "atlas.json"} | maps
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    document = json.loads((folder / "atlas.json").read_text())
    assert set(document["outputs"]) == names and document["mean_displacement_mm"]["max"] < 0.1
    assert [image["verdict"] in ("good", "check", "do not use") for image in document["images"]] == [True, True]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["percent"] == 100 and {"read", "round 1", "maps"} <= {line["stage"] for line in lines}
    # Readable by ITK alone, without anything of ours.
    assert sitk.ReadTransform(str(folder / "first-transform.h5")).GetDimension() == 3
    assert main(words) == 2 and "is not empty" in capsys.readouterr().err


def test_faults_come_as_a_table_and_nothing_is_written(images: Path, tmp_path: Path, capsys) -> None:
    listing = tmp_path / "images.csv"
    listing.write_text(f"image\n{images.parent / 'p1.nii.gz'}\ngone.nii.gz\n{images}\n")
    assert main(["atlas", str(listing), "-o", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "gone.nii.gz does not exist" in told and "2 rows of" in told and len(told.splitlines()) == 4
    assert not (tmp_path / "out").exists()
    both = ["atlas", str(images), "-o", str(tmp_path / "out"), "--workers", "1", "--scheduler", "tcp://a:1"]
    assert main(both) == 2 and "give one of them" in capsys.readouterr().err
