"""``samconvex verify`` repeats a registration and catches whatever is not as it was."""

from __future__ import annotations

import argparse
import json
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from engine.cli.bad_input import QUICK, contents, make_files
from samconvex import __version__
from samconvex.cli import register
from samconvex.cli.main import main
from samconvex.io.files import file_sha256
from samconvex.networks import lapirn
from samconvex.networks.lapirn import LapIRN
from samconvex.registration.options import Options, unused_weights, weights_used
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.training.loop import save_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with inputs and the results of registering them."""
    folder = tmp_path_factory.mktemp("made")
    make_files(folder)
    moving = sitk.ReadImage(str(folder / "ct.nii.gz"))
    sitk.WriteImage(
        sitk.Resample(moving, moving, sitk.TranslationTransform(3, (3.0, -2.0, 1.0))), folder / "moved.nrrd"
    )
    words = ["register", folder / "ct.nii.gz", folder / "moved.nrrd", "-o", folder / "out", "--reproducible", *QUICK]
    words += ["--moving-labels", folder / "labels.nii.gz", "--fixed-labels", folder / "labels.nii.gz", "--seed", "3"]
    assert main([str(word) for word in words]) == 0
    return folder


@pytest.fixture
def case(made: Path, tmp_path: Path) -> Path:
    """A copy of the results, to be tampered with."""
    shutil.copytree(made / "out", tmp_path / "out")
    return tmp_path / "out"


def edited(folder: Path, **changes: Any) -> Path:
    """The report in ``folder`` with top-level fields replaced."""
    path = folder / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}))
    return path


def test_the_report_holds_all_that_is_needed_to_run_again(made: Path):
    report = json.loads((made / "out" / "report.json").read_text(encoding="utf-8"))
    age = datetime.now(timezone.utc) - datetime.fromisoformat(report["date"])
    assert 0 <= age.total_seconds() < 3600
    assert report["seed"] == 3 and report["reproducible"] is True and report["version"] == __version__
    assert report["options"] == {
        "preset": "fast-preview",
        "strength": "normal",
        "quality": "standard",
        "affine": "none",
        "protect_mode": "rigid",
        "device": "auto",
        "seed": 3,
        "reproducible": True,
    }
    assert set(report["inputs"]) == {"fixed", "moving", "moving_labels", "fixed_labels"}
    assert all(len(entry["sha256"]) == 64 for entry in report["inputs"].values())
    assert {"system", "processor", "python", "torch"} <= set(report["environment"])


def test_every_option_that_decides_a_result_is_kept_for_verify():
    """An option that the report does not keep would make verify repeat another registration."""
    parser = argparse.ArgumentParser()
    register.add_arguments(parser)
    apart = {"help", "fixed", "moving", "output", "overwrite", "progress"}
    assert {action.dest for action in parser._actions} == {*register.OPTIONS, *register.FURTHER, *apart}


def test_a_network_that_begins_is_among_the_weights(tmp_path: Path):
    path = tmp_path / "mine.pt"
    save_checkpoint(path, LapIRN(False, 2), lapirn.CHECKPOINT_FORMAT, lapirn.CHECKPOINT_VERSION, {})
    settings = Options("affine", initial_network=path).settings()
    assert weights_used(None, settings)["lapirn"] == {"name": "mine.pt", "sha256": file_sha256(path)}
    assert unused_weights(path, settings) == []


def test_without_one_the_shipped_weights_are_named():
    used = weights_used(None, Options("ct-inter-patient").settings())
    assert {family: entry["name"] for family, entry in used.items()} == {"sam": "sam-ct", "semantic": "semantic-ct"}


def test_an_untouched_result_is_identical_and_nothing_is_written(made: Path, capsys: pytest.CaptureFixture[str]):
    before = contents(made)
    assert main(["verify", str(made / "out" / "report.json"), "--progress", "none"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[-1] == "Identical."
    assert "4 files, the same as then" in text and "0.0000 mm at most" in text and "0.00 % of the voxels" in text
    assert contents(made) == before


def test_inputs_are_found_in_another_folder(made: Path, case: Path, tmp_path: Path, capsys):
    moved = tmp_path / "inputs"
    moved.mkdir()
    for name in ("ct.nii.gz", "moved.nrrd", "labels.nii.gz"):
        shutil.copy(made / name, moved / name)
    report = json.loads((case / "report.json").read_text(encoding="utf-8"))
    inputs = {name: {**entry, "path": f"gone/{Path(entry['path']).name}"} for name, entry in report["inputs"].items()}
    path = str(edited(case, inputs=inputs))
    assert main(["verify", path]) == 2
    assert "gone/ct.nii.gz (fixed) is missing; put it back, or give its folder" in capsys.readouterr().err
    assert main(["verify", path, "--inputs", str(moved)]) == 0


def test_a_changed_input_is_named_before_the_work(made: Path, case: Path, tmp_path: Path, capsys):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for name in ("ct.nii.gz", "moved.nrrd", "labels.nii.gz"):
        shutil.copy(made / name, inputs / name)
    (inputs / "moved.nrrd").write_bytes((inputs / "moved.nrrd").read_bytes() + b" ")
    assert main(["verify", str(case / "report.json"), "--inputs", str(inputs)]) == 2
    text = capsys.readouterr()
    assert text.out == "" and text.err.startswith(
        f"{inputs / 'moved.nrrd'} (moving) is not the file that was registered"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "0.0.9"}, f"Version:  {__version__}, but 0.0.9 then"),
        ({"folding_percent": 0.5}, "folding_percent: 0.5 in the report, 0 now"),
        ({"dice": {"final_mean": 0.99}}, "dice.final_mean: 0.99 in the report"),
        ({"weights": {"sam": {"name": "sam-ct", "sha256": "0" * 64}}}, "others than then: sam-ct (now sam-ct"),
    ],
    ids=["version", "figure", "nested figure", "weights"],
)
def test_what_is_otherwise_in_the_report_is_caught(case: Path, changes: dict, said: str, capsys):
    assert main(["verify", str(edited(case, **changes))]) == 5
    text = capsys.readouterr().out
    assert said in text
    assert text.splitlines()[-1] in ("Different.", "Identical, but made by another version or with other weights.")


def test_an_edited_map_and_image_are_caught_in_millimeters(made: Path, case: Path, capsys):
    loaded = Transform.load(case / "transform.h5")
    Transform((*loaded.parts, AffineTransform(np.eye(3), np.array([0.0, 0.4, 0.3])))).save(case / "transform.h5")
    assert main(["verify", str(case / "report.json")]) == 5
    assert "0.5000 mm apart on average, 0.5000 mm at most" in capsys.readouterr().out
    assert main(["verify", str(case / "report.json"), "--tolerance", "0.6"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "The same within 0.6 mm."


def test_an_option_of_another_version_is_named(case: Path, capsys):
    options = json.loads((case / "report.json").read_text(encoding="utf-8"))["options"]
    for change, said in (({"warp_drive": 9}, "--warp-drive=9"), ({"threads": "many"}, "many is no whole number")):
        assert main(["verify", str(edited(case, options={**options, **change}))]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "is no report of samconvex register"),
        ("[1, 2]", "is no report of samconvex register"),
        ('{"inputs": {}}', "does not say with which inputs and options"),
        ('{"inputs": {"fixed": {}, "moving": {}}, "options": {}}', "does not say where the fixed was"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: str, said: str, capsys):
    path = tmp_path / "report.json"
    path.write_text(content)
    assert main(["verify", str(path)]) == 2
    assert said in capsys.readouterr().err
