"""The command line keeps its promises: files, statuses, the same answers from register, apply and evaluate."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from engine.cli.bad_input import make_files
from engine.report_schema import schema_errors
from samconvex import __version__
from samconvex.cli.main import COMMANDS, main
from samconvex.io.images import write_volume
from samconvex.io.points import PointSet, read_points, write_points
from samconvex.synthetic.phantom import make_phantom

ENGINE = Path(__file__).resolve().parents[3] / "SAMConvexRegistration"
QUICK = ("--preset", "fast-preview", "--affine", "none")


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ENGINE), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def _samconvex(*words: str | Path, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "samconvex", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False, **options)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small phantom patients: images on an oblique and a plain grid, labels, points."""
    folder = tmp_path_factory.mktemp("pair")
    c, s = np.cos(0.2), np.sin(0.2)
    directions = {"fixed": (c, -s, 0, s, c, 0, 0, 0, 1), "moving": (1, 0, 0, 0, 1, 0, 0, 0, 1)}
    for seed, (name, direction) in enumerate(directions.items()):
        ct, labels, landmarks = make_phantom(seed, 10.0, (30, 25, 24), direction=direction)
        write_volume(ct, folder / f"{name}.nii.gz")
        write_volume(labels, folder / f"{name}_labels.nrrd")
        points = PointSet(np.array(list(landmarks.values())), tuple(landmarks))
        write_points(points, folder / f"{name}.mrk.json")
    return folder


@pytest.fixture(scope="module")
def registered(pair: Path) -> tuple[Path, subprocess.CompletedProcess]:
    """The results of registering the pair, by a process, with progress in JSON."""
    words: list[str | Path] = ["register", pair / "fixed.nii.gz", pair / "moving.nii.gz", "-o", pair / "out", *QUICK]
    for side in ("fixed", "moving"):
        words += [f"--{side}-labels", pair / f"{side}_labels.nrrd", f"--{side}-points", pair / f"{side}.mrk.json"]
    return pair / "out", _samconvex(*words, "--progress", "json", "--threads", "1")


def test_help_is_quick_and_needs_no_torch() -> None:
    code = "import sys; from samconvex.cli.main import main; print(main(['--help']), 'torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=_environment(), check=True
    )
    assert result.stdout.splitlines()[-1] == "0 False"
    assert all(f"  {command.name}" in result.stdout for command in COMMANDS)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"samconvex {__version__}\n"


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: samconvex {name}") and len(text.splitlines()) > 5


def test_register_writes_all_results_and_reports_progress(registered: tuple[Path, subprocess.CompletedProcess]) -> None:
    folder, result = registered
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(path.name for path in folder.iterdir()) == [
        "error.nii.gz",
        "inverse.h5",
        "labels.nii.gz",
        "points.csv",
        "report.json",
        "report.png",
        "transform.h5",
        "valid.nii.gz",
        "warped.nii.gz",
    ]
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    stages = list(dict.fromkeys(line["stage"] for line in lines))
    assert stages[0] == "read" and stages[-2:] == ["write", "done"] and "convex" in stages
    assert lines[-1]["percent"] == 100.0


def test_the_report_follows_the_schema_and_the_registration_helped(
    registered: tuple[Path, subprocess.CompletedProcess],
) -> None:
    report = json.loads((registered[0] / "report.json").read_text(encoding="utf-8"))
    assert schema_errors(report) == []
    assert report["preset"] == "fast-preview"
    assert report["dice"]["final_mean"] > report["dice"]["initial_mean"] + 0.1
    assert report["tre_mm"]["final"]["mean"] < 0.7 * report["tre_mm"]["initial"]["mean"]
    assert report["seconds"]["total"] >= report["seconds"]["stages"]["convex"] > 0


def test_plain_simpleitk_reproduces_the_warped_image(
    pair: Path, registered: tuple[Path, subprocess.CompletedProcess]
) -> None:
    fixed, moving = (sitk.ReadImage(str(pair / f"{name}.nii.gz")) for name in ("fixed", "moving"))
    warped = sitk.ReadImage(str(registered[0] / "warped.nii.gz"))
    assert warped.GetPixelID() == moving.GetPixelID()
    assert np.allclose(warped.GetDirection(), fixed.GetDirection(), atol=1e-5)
    transform = sitk.ReadTransform(str(registered[0] / "transform.h5"))
    background = float(sitk.GetArrayViewFromImage(moving).min())
    expected = sitk.Resample(sitk.Cast(moving, sitk.sitkFloat32), fixed, transform, sitk.sitkLinear, background)
    difference = sitk.GetArrayFromImage(expected) - sitk.GetArrayFromImage(warped)
    # One rounding to whole HU, plus float32 at steep edges; single voxels at the very border may fall on either side.
    assert np.quantile(np.abs(difference), 0.999) <= 1.0


def test_the_validity_mask_marks_where_simpleitk_finds_the_moving_image(
    pair: Path, registered: tuple[Path, subprocess.CompletedProcess]
) -> None:
    fixed, moving = (sitk.ReadImage(str(pair / f"{name}.nii.gz")) for name in ("fixed", "moving"))
    valid = sitk.ReadImage(str(registered[0] / "valid.nii.gz"))
    assert valid.GetPixelID() == sitk.sitkUInt8 and valid.GetSize() == fixed.GetSize()
    ones = sitk.Image(moving.GetSize(), sitk.sitkUInt8) + 1
    ones.CopyInformation(moving)
    transform = sitk.ReadTransform(str(registered[0] / "transform.h5"))
    expected = sitk.GetArrayFromImage(sitk.Resample(ones, fixed, transform, sitk.sitkNearestNeighbor, 0.0))
    assert 0.2 < expected.mean() < 0.95
    assert (sitk.GetArrayFromImage(valid) != expected).mean() < 1e-3
    report = json.loads((registered[0] / "report.json").read_text(encoding="utf-8"))
    assert 50.0 < report["overlap_percent"] < 100.0


def test_points_go_through_the_inverse_transform(
    pair: Path, registered: tuple[Path, subprocess.CompletedProcess]
) -> None:
    moving, carried = read_points(pair / "moving.mrk.json"), read_points(registered[0] / "points.csv")
    assert carried.labels == moving.labels
    transform, inverse = (sitk.ReadTransform(str(registered[0] / f"{name}.h5")) for name in ("transform", "inverse"))
    for before, after in zip(moving.positions, carried.positions, strict=True):
        np.testing.assert_allclose(inverse.TransformPoint(before), after, atol=1e-3)
        np.testing.assert_allclose(transform.TransformPoint(after), before, atol=1.0)


def test_carried_points_have_the_expected_error_of_their_place(
    registered: tuple[Path, subprocess.CompletedProcess],
) -> None:
    with open(registered[0] / "points.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    image = sitk.ReadImage(str(registered[0] / "error.nii.gz"))
    assert image.GetPixelID() == sitk.sitkFloat32
    for row in rows:
        place = [float(row[axis]) for axis in "xyz"]
        index = np.clip(image.TransformPhysicalPointToContinuousIndex(place), 0, np.array(image.GetSize()) - 1)
        assert float(row["error90_mm"]) == pytest.approx(image.EvaluateAtContinuousIndex(index.tolist()), abs=0.05)
    report = json.loads((registered[0] / "report.json").read_text(encoding="utf-8"))
    figures = report["expected_error_mm"]
    assert 0 < figures["median"] <= figures["p90"] <= figures["max"] <= sitk.GetArrayViewFromImage(image).max() + 1e-3


def test_evaluate_compares_the_bound_with_the_truth(
    pair: Path, registered: tuple[Path, subprocess.CompletedProcess], tmp_path: Path
) -> None:
    error = sitk.ReadImage(str(registered[0] / "error.nii.gz"))
    words = ["evaluate", "--transform", str(registered[0] / "transform.h5"), "-o", str(tmp_path / "figures.json")]
    for side in ("fixed", "moving"):
        words += [f"--{side}", str(pair / f"{side}.nii.gz"), f"--{side}-points", str(pair / f"{side}.mrk.json")]
    report = json.loads((registered[0] / "report.json").read_text(encoding="utf-8"))
    for factor, coverage in ((1e-6, 0.0), (1e6, 100.0)):
        sitk.WriteImage(error * factor, str(tmp_path / "error.nii.gz"))
        assert main([*words, "--error", str(tmp_path / "error.nii.gz")]) == 0
        found = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["bound_against_truth"]["points"]
        assert (found["coverage_percent"], found["n"]) == (coverage, report["tre_mm"]["n"])
        assert found["mean_error_mm"] == pytest.approx(report["tre_mm"]["final"]["mean"], abs=1e-3)


def test_evaluate_refuses_a_bound_without_truth_or_of_no_meaning(
    pair: Path, registered: tuple[Path, subprocess.CompletedProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--transform", str(registered[0] / "transform.h5")]
    words += ["--fixed", str(pair / "fixed.nii.gz"), "--moving", str(pair / "moving.nii.gz")]
    assert main([*words, "--error", str(registered[0] / "error.nii.gz")]) == 2
    assert "--error needs a truth" in capsys.readouterr().err
    for side in ("fixed", "moving"):
        words += [f"--{side}-points", str(pair / f"{side}.mrk.json")]
    assert main([*words, "--error", str(pair / "moving.nii.gz")]) == 2
    assert "values below 0" in capsys.readouterr().err


def test_apply_repeats_what_register_wrote(
    pair: Path, registered: tuple[Path, subprocess.CompletedProcess], tmp_path: Path
) -> None:
    out, like = registered[0], ["--like", str(pair / "fixed.nii.gz")]
    cases = (
        (["transform.h5", "moving.nii.gz", "warped.nii.gz", *like], "warped.nii.gz"),
        (["inverse.h5", "moving.nii.gz", "warped.nii.gz", *like, "--inverse"], None),
        (["transform.h5", "moving_labels.nrrd", "labels.nii.gz", *like, "--labels"], "labels.nii.gz"),
    )
    for words, same in cases:
        target = tmp_path / words[2]
        assert main(["apply", str(out / words[0]), str(pair / words[1]), "-o", str(target), *words[3:]]) == 0
        first, second = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(float) for path in (target, out / words[2])
        )
        assert same is None or np.array_equal(first, second)
        # The inverse of the inverse differs by interpolation only.
        assert np.quantile(np.abs(first - second), 0.9) <= 20.0


def test_apply_carries_points_both_ways(
    pair: Path, registered: tuple[Path, subprocess.CompletedProcess], tmp_path: Path
) -> None:
    out = registered[0]
    there, back = tmp_path / "there.mrk.json", tmp_path / "back.csv"
    assert main(["apply", str(out / "transform.h5"), str(pair / "moving.mrk.json"), "-o", str(there)]) == 0
    np.testing.assert_allclose(read_points(there).positions, read_points(out / "points.csv").positions, atol=1e-2)
    assert main(["apply", str(out / "transform.h5"), str(there), "-o", str(back), "--inverse"]) == 0
    start = read_points(pair / "moving.mrk.json")
    np.testing.assert_allclose(read_points(back).positions, start.positions, atol=1.0)
    assert read_points(back).labels == start.labels


def test_evaluate_gives_the_figures_of_the_report(
    pair: Path,
    registered: tuple[Path, subprocess.CompletedProcess],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["evaluate", "--transform", str(registered[0] / "transform.h5"), "-o", str(tmp_path / "figures.json")]
    for side in ("fixed", "moving"):
        words += [f"--{side}", str(pair / f"{side}.nii.gz"), f"--{side}-labels", str(pair / f"{side}_labels.nrrd")]
        words += [f"--{side}-points", str(pair / f"{side}.mrk.json")]
    assert main(words) == 0
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    report = json.loads((registered[0] / "report.json").read_text(encoding="utf-8"))
    scalars = ("folding_percent", "sdlogj", "sdlogj_learn2reg", "overlap_percent")
    for key in ("dice", "tre_mm", "inverse_consistency_mm", *scalars):
        expected = report[key] if isinstance(report[key], dict) else {key: report[key]}
        found = figures[key] if isinstance(figures[key], dict) else {key: figures[key]}
        for name, value in expected.items():
            if isinstance(value, dict):
                assert found[name] == pytest.approx(value, abs=1e-3), key
            else:
                assert found[name] == pytest.approx(value, abs=1e-3), key
    printed = capsys.readouterr().out
    assert "Dice" in printed
    assert printed.splitlines()[-1].startswith(f"VERDICT: {figures['verdict']['level'].upper()}.")
    # The same map of the same images, seen at another working spacing and without the preset's expectations.
    for name in ("scale", "covered_percent", "dice", "point_error_mm"):
        assert figures["verdict"]["evidence"][name] == pytest.approx(report["verdict"]["evidence"][name], rel=0.05)


def test_overwrite_replaces_results_and_drops_those_that_no_longer_apply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["register", "ct.nii.gz", "ct.nii.gz", "-o", "out", *QUICK]
    assert main([*words, "--moving-labels", "labels.nii.gz"]) == 0
    (tmp_path / "out" / "theirs.txt").write_text("theirs")
    assert main(words) == 2
    assert main([*words, "--overwrite"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "error.nii.gz",
        "inverse.h5",
        "report.json",
        "report.png",
        "theirs.txt",
        "transform.h5",
        "valid.nii.gz",
        "warped.nii.gz",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent the POSIX way")
@pytest.mark.parametrize("stage", ["read", "convex"])
def test_ctrl_c_ends_the_program_within_a_second_and_writes_nothing(pair: Path, tmp_path: Path, stage: str) -> None:
    command = [sys.executable, "-m", "samconvex", "register", str(pair / "fixed.nii.gz"), str(pair / "moving.nii.gz")]
    process = subprocess.Popen(
        [*command, "-o", str(tmp_path / "out"), *QUICK, "--progress", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["stage"] == stage:
            break
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    # One second, or more where other programs keep the processors busy.
    assert time.monotonic() - begin < max(1.0, 1.5 * os.getloadavg()[0] / (os.cpu_count() or 1))
    assert errors.strip() == "Cancelled; nothing was written."
    assert list(tmp_path.iterdir()) == []


def test_presets_are_listed_with_time_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--size", "192", "160", "256", "--spacing", "2", "2", "2"]) == 0
    text = capsys.readouterr().out
    assert main(["presets", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert "ct-inter-patient" in table and all(name in text for name in table)
    assert all(entry["forecast"]["memory_gib"] > 0 and entry["settings"]["name"] == n for n, entry in table.items())


def test_the_forecast_of_presets_knows_what_is_chosen_beside_them(capsys: pytest.CaptureFixture[str]) -> None:
    def listing(*more: str) -> dict:
        assert main(["presets", "--json", *more]) == 0
        return json.loads(capsys.readouterr().out)

    plain = listing()
    for more in (["--features", "sam+mind"], ["--refine", "adam"], ["--quality", "best"], ["--symmetric"]):
        chosen = listing(*more)
        assert chosen["ct-inter-patient"]["forecast"] != plain["ct-inter-patient"]["forecast"], more
        # What ends with the linear map has neither.
        assert chosen["rigid"] == plain["rigid"]
    assert main(["presets", "--features", "nothing"]) == 2
    assert "There is no feature 'nothing'" in capsys.readouterr().err


def test_benchmark_outside_a_checkout_says_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("samconvex.cli.benchmark.__file__", str(tmp_path / "a" / "b" / "samconvex" / "cli" / "x.py"))
    assert main(["benchmark"]) == 2
    assert "clone the repository" in capsys.readouterr().err


def test_benchmark_passes_its_arguments_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    folder = tmp_path / "Testing" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "__main__.py").write_text("import sys\nprint(sys.argv[1:])\nsys.exit(5)\n")
    monkeypatch.setattr("samconvex.cli.benchmark.__file__", str(tmp_path / "a" / "b" / "samconvex" / "cli" / "x.py"))
    monkeypatch.chdir(folder)
    assert main(["benchmark", "--suite", "landmarks", "extra", "--", "--help"]) == 5
    assert capfd.readouterr().out == "['--suite', 'landmarks', 'extra', '--help']\n"


def test_an_unknown_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--siez", "3"]) == 2
    assert capsys.readouterr().err == (
        "samconvex presets: unrecognized arguments: --siez 3 (see samconvex presets --help).\n"
    )
