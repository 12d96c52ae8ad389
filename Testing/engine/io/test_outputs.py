"""Results appear together or not at all, and nobody else's files are touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from samconvex.errors import Cancelled, InputError, ResourceError
from samconvex.io import outputs
from samconvex.io.images import write_image
from samconvex.io.outputs import check_complete, check_output_file, check_output_folder, output_file, output_folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_appear_together_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with output_folder(target) as staging:
        (staging / "a.txt").write_text("a")
        assert not target.exists()
    assert _names(target) == ["a.txt"]
    assert _names(tmp_path / "deep") == ["out"]


def test_an_error_leaves_no_trace_not_even_new_parents(tmp_path: Path) -> None:
    with pytest.raises(Cancelled), output_folder(tmp_path / "deep" / "out") as staging:
        (staging / "a.txt").write_text("a")
        raise Cancelled()
    assert _names(tmp_path) == []


def test_a_folder_with_content_needs_overwrite(tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").write_text("theirs")
    with pytest.raises(InputError, match="--overwrite"):
        check_output_folder(tmp_path, names=["a.txt"])
    check_output_folder(tmp_path, names=["a.txt"], overwrite=True)


def test_overwrite_replaces_our_files_and_keeps_foreign_ones(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    for name in ("theirs.txt", "a.txt", "labels.nii.gz"):
        (target / name).write_text("old")
    with output_folder(target, overwrite=True, stale=["labels.nii.gz", "absent.txt"]) as staging:
        (staging / "a.txt").write_text("new")
    assert _names(target) == ["a.txt", "theirs.txt"]
    assert (target / "a.txt").read_text(encoding="utf-8") == "new"
    assert (target / "theirs.txt").read_text(encoding="utf-8") == "old"
    assert _names(tmp_path) == ["out"]


def test_an_error_while_replacing_brings_the_old_files_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    target.mkdir()
    for name in ("a.txt", "b.txt"):
        (target / name).write_text("old")
    replace = os.replace

    def failing(source: Path, destination: Path) -> None:
        if Path(destination) == target / "b.txt" and Path(source).read_text(encoding="utf-8") == "new":
            raise OSError(5, "Input/output error")
        replace(source, destination)

    monkeypatch.setattr(outputs.os, "replace", failing)
    with pytest.raises(ResourceError, match="Input/output error"), output_folder(target, overwrite=True) as staging:
        for name in ("a.txt", "b.txt", "c.txt"):
            (staging / name).write_text("new")
    assert _names(target) == ["a.txt", "b.txt"]
    assert {(target / name).read_text(encoding="utf-8") for name in _names(target)} == {"old"}
    assert _names(tmp_path) == ["out"]


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("x,y,z\n1,2,3\n")
    with pytest.raises(InputError, match="is an input"):
        check_output_folder(tmp_path, names=["points.csv"], overwrite=True, inputs=[None, tmp_path / "points.csv"])
    with pytest.raises(InputError, match="is also the input"):
        check_output_file(tmp_path / "points.csv", inputs=[tmp_path / "." / "points.csv"])


def test_a_file_or_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "out" / "report.json").mkdir(parents=True)
    with pytest.raises(InputError, match="is a file"):
        check_output_folder(tmp_path / "file" / "out")
    with pytest.raises(InputError, match="in the way"):
        check_output_folder(tmp_path / "out", names=["report.json"], overwrite=True)
    with pytest.raises(InputError, match="is a folder"):
        check_output_file(tmp_path / "out")


def test_too_little_space_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=12 * 2**20)
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match="needs about 300 MiB but its disk has 12 MiB free") as caught:
        check_output_folder(tmp_path / "out", needed_bytes=300 * 2**20)
    assert caught.value.exit_status == 4


def test_a_disk_that_fills_up_while_writing_keeps_the_old_result(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "report.json").write_text("old")
    with pytest.raises(ResourceError, match="disk is full"), output_folder(target, overwrite=True) as staging:
        (staging / "report.json").write_text("new")
        raise OSError(28, "No space left on device")
    assert (target / "report.json").read_text(encoding="utf-8") == "old"
    assert _names(tmp_path) == ["out"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs Linux and root")
    yield folder
    subprocess.run(["umount", str(folder)], check=False)


@pytest.mark.parametrize("name", ["warped.nii.gz", "warped.nii", "warped.nrrd", "field.h5"])
def test_a_really_full_disk_is_noticed_for_every_format(tiny_disk: Path, name: str) -> None:
    random = np.random.default_rng(0)
    (tiny_disk / "old").mkdir()
    (tiny_disk / "old" / name).write_text("old")
    with pytest.raises(ResourceError), output_folder(tiny_disk / "old", overwrite=True) as staging:
        try:
            if name.endswith(".h5"):
                field = sitk.GetImageFromArray(random.normal(size=(40, 40, 40, 3)), isVector=True)
                sitk.WriteTransform(sitk.DisplacementFieldTransform(field), str(staging / name))
            else:
                voxels = random.integers(-1000, 1000, (80, 96, 96)).astype(np.int16)
                sitk.WriteImage(sitk.GetImageFromArray(voxels), str(staging / name), name != "warped.nii")
        except RuntimeError as error:
            raise OSError(28, str(error)) from error
    assert (tiny_disk / "old" / name).read_text(encoding="utf-8") == "old"
    assert _names(tiny_disk) == ["old"]
    assert _names(tiny_disk / "old") == [name]


def test_a_mounted_output_folder_is_filled_too(tiny_disk: Path) -> None:
    with output_folder(tiny_disk) as staging:
        (staging / "a.txt").write_text("a")
    assert _names(tiny_disk) == ["a.txt"]


@pytest.mark.parametrize("name", ["cut.nii.gz", "cut.nii", "cut.h5", "cut.json"])
def test_a_file_cut_short_is_noticed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".h5"):
        field = sitk.GetImageFromArray(np.zeros((9, 9, 9, 3)), isVector=True)
        sitk.WriteTransform(sitk.DisplacementFieldTransform(field), str(path))
    elif name.endswith(".json"):
        path.write_text("{}")
    else:
        voxels = np.random.default_rng(0).integers(0, 99, (9, 9, 9)).astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    check_complete(path)
    os.truncate(path, 0 if name.endswith(".json") else path.stat().st_size - 40)
    with pytest.raises(ResourceError, match="could not be written completely"):
        check_complete(path)


def test_one_output_file_replaces_its_predecessor_with_its_companion(tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").write_text("theirs")
    image = sitk.GetImageFromArray(np.arange(27, dtype=np.int16).reshape(3, 3, 3))
    for _ in range(2):
        with output_file(tmp_path / "out.mhd") as path:
            sitk.WriteImage(image, str(path))
    assert _names(tmp_path) == ["out.mhd", "out.raw", "theirs.txt"]
    back = sitk.ReadImage(str(tmp_path / "out.mhd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))


def test_the_results_folder_is_as_readable_as_any_new_folder(tmp_path: Path) -> None:
    (tmp_path / "ordinary").mkdir()
    with output_folder(tmp_path / "out") as staging:
        (staging / "a.txt").write_text("a")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from samconvex.io import outputs
from samconvex.io.images import write_image
with outputs.output_folder(sys.argv[2], overwrite=True) as staging:
    for name in ("a.txt", "b.txt", "c.txt"):
        (staging / name).write_text("new")
    if sys.argv[3] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
    real, moves = os.replace, []
    def replace(source, target):
        moves.append(target)
        if len(moves) == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)
    outputs.os.replace = replace
"""


def _killed(target: Path, moment: str) -> None:
    engine = Path(outputs.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, str(engine), str(target), moment])
    assert done.returncode < 0


@pytest.mark.skipif(outputs.fcntl is None, reason="no locks on folders here")
@pytest.mark.parametrize("moment", ["writing", "1", "2", "3", "4", "5", "6"])
def test_what_a_killed_run_left_is_cleared_and_undone(tmp_path: Path, moment: str) -> None:
    target = tmp_path / "out"
    target.mkdir()
    for name in ("a.txt", "b.txt", "theirs.txt"):
        (target / name).write_text("old")
    _killed(target, moment)
    assert len(_names(tmp_path)) == 2
    check_output_folder(target, overwrite=True)
    assert _names(tmp_path) == ["out"] and _names(target) == ["a.txt", "b.txt", "theirs.txt"]
    assert {path.read_text(encoding="utf-8") for path in target.iterdir()} == {"old"}


@pytest.mark.skipif(outputs.fcntl is None, reason="no locks on folders here")
def test_the_unfinished_folder_of_a_living_run_stays(tmp_path: Path) -> None:
    with output_folder(tmp_path / "out", overwrite=True) as staging:
        (staging / "a.txt").write_text("a")
        outputs.clear_abandoned(tmp_path / "out")
        assert staging.is_dir()
    assert _names(tmp_path) == ["out"]


def test_names_of_any_length_that_the_disk_takes_are_written(tmp_path: Path) -> None:
    for name in ("r" * 240, "Verlauf_" + "ü" * 110):
        check_output_folder(tmp_path / name)
        with output_folder(tmp_path / name) as staging:
            (staging / "a.txt").write_text("a")
        assert _names(tmp_path / name) == ["a.txt"]
    for check in (check_output_folder, check_output_file):
        with pytest.raises(InputError, match="no possible name"):
            check(tmp_path / ("r" * 300))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_nothing_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "broken").symlink_to("/nonexistent/share")
    for check, name in (
        (check_output_folder, "broken"),
        (check_output_file, "broken"),
        (check_output_file, "broken/o.nii"),
    ):
        with pytest.raises(InputError, match="is a link to /nonexistent/share"):
            check(tmp_path / name)


@pytest.mark.parametrize("name", ["A.NII.GZ", "B.Nii.gz", "C.MHA", "D.NRRD"])
def test_endings_in_capitals_are_honored(tmp_path: Path, name: str) -> None:
    image = sitk.GetImageFromArray(np.arange(1000, dtype=np.int16).reshape(10, 10, 10))
    write_image(image, tmp_path / name)
    assert _names(tmp_path) == [name]
    copy = tmp_path / name.lower()
    shutil.copy(tmp_path / name, copy)
    assert (sitk.GetArrayFromImage(sitk.ReadImage(str(copy))) == sitk.GetArrayFromImage(image)).all()
