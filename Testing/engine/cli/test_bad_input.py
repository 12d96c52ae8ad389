"""Unusable input: the promised exit status, one sentence that names the file and the way out, nothing written."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

import pytest
from engine.cli.bad_input import CASES, QUICK, Case, contents, make_files
from samconvex.cli.main import main
from samconvex.io import outputs
from samconvex.report import document as report


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    make_files(folder)
    return folder


@pytest.fixture
def folder(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a fresh copy of the files."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _sentence(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert text.endswith("\n") and "\n" not in text.strip() and "Traceback" not in text, text
    return text.strip()


@pytest.mark.parametrize("case", [case for case in CASES if case.status], ids=lambda case: case.name)
def test_bad_input_gives_its_status_and_one_sentence(
    folder: Path, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder)
    assert main(case.words) == case.status
    assert re.search(case.says, _sentence(capsys))
    assert contents(folder) == before


@pytest.mark.parametrize("case", [case for case in CASES if not case.status], ids=lambda case: case.name)
def test_input_that_needs_a_remark_is_used_and_remarked(
    folder: Path, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(case.words) == 0
    assert re.search(case.says, capsys.readouterr().out)
    assert re.search(case.says, (folder / "out" / "report.json").read_text(encoding="utf-8"))


def test_a_later_query_is_looked_at_before_the_first_is_embedded(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samconvex.anatomy.cache.embed_cached", lambda *_, **__: pytest.fail("work has begun"))
    assert main(["match", "ct.nii.gz", "points.csv", "ct.nii.gz", "text.txt", "-o", "matches"]) == 2
    assert "text.txt could not be read as an image" in _sentence(capsys)


def test_a_full_disk_is_noticed_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(folder)
    usage = shutil.disk_usage(folder)._replace(free=2**20)
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda path: usage)
    assert main(("register", "ct.nii.gz", "ct.nii.gz", "-o", "out", *QUICK)) == 4
    assert re.search(r"out needs about .* MiB but its disk has 1\.0 MiB free; free some space", _sentence(capsys))
    assert contents(folder) == before


def test_a_disk_that_fills_up_while_writing_leaves_the_old_results(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "full" / "report.json").write_text("old")
    before = contents(folder)

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report, "save_report", refuse)
    assert main(("register", "ct.nii.gz", "ct.nii.gz", "-o", "full", "--overwrite", *QUICK)) == 4
    assert _sentence(capsys) == "full could not be written because the disk is full; free some space and retry."
    assert contents(folder) == before
