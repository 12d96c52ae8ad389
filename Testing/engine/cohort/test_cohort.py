"""A cohort on dask: the bits of the single command, what is done stays done, failures told, shared work once."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from engine.sam_fixtures import random_model, textured_body
from samconvex.cli.main import main
from samconvex.cohort.cluster import planned
from samconvex.cohort.results import COLUMNS
from samconvex.cohort.table import load_table, record_path
from samconvex.errors import InputError
from samconvex.io.images import write_volume
from samconvex.space.transforms import Transform
from samconvex.synthetic.phantom import make_phantom

pytest.importorskip("distributed")

ENGINE = Path(__file__).resolve().parents[3] / "SAMConvexRegistration"
QUICK = "fast-preview,none"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three small phantom patients and the labels of two."""
    folder = tmp_path_factory.mktemp("images")
    for seed in range(3):
        ct, labels, _ = make_phantom(seed, 10.0, (30, 25, 24))
        write_volume(ct, folder / f"p{seed}.nii.gz")
        write_volume(labels, folder / f"p{seed}_labels.nii.gz")
    return folder


@pytest.fixture(scope="module")
def scheduler() -> str:
    """Address of a scheduler with one worker, in this process: starting others takes seconds."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


def _manifest(folder: Path, rows: list[str], header: str = "name,fixed,moving,preset,affine") -> Path:
    path = folder / "pairs.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def _results(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "results.csv", encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        return {row["name"]: row for row in reader}


@pytest.mark.slow
def test_a_killed_cohort_goes_on_and_gives_the_bits_of_the_single_command(
    images: Path, tmp_path: Path, scheduler: str
) -> None:
    """Started as users do, by processes of this machine; ended without warning once the first row is done."""
    rows = [f"{name},p0.nii.gz,p{name}.nii.gz,{QUICK}" for name in "12"]
    words = ["cohort", str(_manifest(images, rows)), "-o", str(tmp_path / "out"), "--progress", "none"]
    environment = {**os.environ, "PYTHONPATH": str(ENGINE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "samconvex", *words, "--workers", "1"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = record_path(tmp_path / "out", "1")
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    record = first.read_bytes()
    assert main([*words, "--resume", "--scheduler", scheduler]) == 0
    assert first.read_bytes() == record
    jobs = {job.name: job for job in load_table(tmp_path / "out")}
    assert {name: job.status for name, job in jobs.items()} == {"1": "done", "2": "done"}
    single = ["register", str(images / "p0.nii.gz"), str(images / "p1.nii.gz"), "--preset", "fast-preview"]
    assert main([*single, "--affine", "none", "-o", str(tmp_path / "single"), "--progress", "none"]) == 0
    one, other = tmp_path / "single", tmp_path / "out" / "jobs" / "1"
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()} == set(jobs["1"].outputs)
    for name in ("warped.nii.gz", "valid.nii.gz", "error.nii.gz"):
        assert np.array_equal(*(sitk.GetArrayFromImage(sitk.ReadImage(str(f / name))) for f in (one, other)))
    points = np.random.default_rng(0).uniform(-100, 100, (200, 3))
    for name in ("transform.h5", "inverse.h5"):
        # The container holds the time of writing; the maps must be the same to the last bit.
        assert np.array_equal(*(Transform.load(f / name).map_points(points) for f in (one, other)))
    row, report = _results(tmp_path / "out")["1"], json.loads((one / "report.json").read_text(encoding="utf-8"))
    assert (row["status"], row["verdict"]) == ("done", report["verdict"]["level"])
    assert float(row["sdlogj"]) == pytest.approx(report["sdlogj"], rel=1e-5)
    assert (tmp_path / "out" / "index.html").is_file()


def test_resume_runs_what_failed_or_changed_and_nothing_else(images: Path, tmp_path: Path, scheduler: str) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("p0.nii.gz", "p1.nii.gz", "p1_labels.nii.gz"):
        (folder / name).write_bytes((images / name).read_bytes())
    header = "name,command,transform,input,like,labels"
    _translation(folder / "t.h5")
    rows = [
        "image,apply,t.h5,p0.nii.gz,p1.nii.gz,",
        "labels,apply,t.h5,p1_labels.nii.gz,p1.nii.gz,yes",
        "away,apply,t.h5,missing.nii.gz,p1.nii.gz,",
    ]
    words = ["cohort", str(_manifest(folder, rows, header)), "-o", str(out), "--scheduler", scheduler]
    words += ["--progress", "none"]
    assert main(words) == 2
    assert not out.exists()
    assert main([*words, "--skip-faulty"]) == 5
    found = _results(out)
    assert {name: row["status"] for name, row in found.items()} == {"image": "done", "labels": "done", "away": "failed"}
    assert "missing.nii.gz does not exist" in found["away"]["sentence"]
    before = {job.name: job for job in load_table(out)}
    # The missing image arrives, the labels' result is damaged.
    (folder / "missing.nii.gz").write_bytes((folder / "p0.nii.gz").read_bytes())
    (out / "jobs" / "labels" / "carried.nii.gz").write_bytes(b"damaged")
    assert main(words) == 2
    assert main([*words, "--resume"]) == 0
    after = {job.name: job for job in load_table(out)}
    assert {job.status for job in after.values()} == {"done"}
    assert after["image"].finished == before["image"].finished
    assert after["labels"].outputs["carried.nii.gz"].sha256 == before["labels"].outputs["carried.nii.gz"].sha256
    # Another content of an input makes another job.
    (folder / "p0.nii.gz").write_bytes((images / "p2.nii.gz").read_bytes())
    assert main([*words, "--resume"]) == 0
    changed = {job.name: job for job in load_table(out)}
    assert changed["image"].id != after["image"].id and changed["labels"].id == after["labels"].id
    assert changed["labels"].outputs == after["labels"].outputs
    assert len(json.loads((out / "cohort.json").read_text(encoding="utf-8"))["runs"]) == 3


def _translation(path: Path) -> None:
    sitk.WriteTransform(sitk.TranslationTransform(3, (4.0, 0.0, 0.0)), str(path))


def test_a_failing_row_stops_nobody_and_says_why(images: Path, tmp_path: Path, scheduler: str) -> None:
    """Points outside the template are found out by the command itself."""
    (images / "far.csv").write_text("x,y,z,label\n9000,0,0,far\n", encoding="utf-8")
    _translation(images / "t.h5")
    rows = [
        "bad,match,p0.nii.gz,far.csv,p1.nii.gz,,,",
        "good,apply,,,,t.h5,p0.nii.gz,p1.nii.gz",
    ]
    header = "name,command,template,points,queries,transform,input,like"
    words = ["cohort", str(_manifest(images, rows, header)), "-o", str(tmp_path / "out"), "--scheduler", scheduler]
    assert main([*words, "--progress", "none"]) == 5
    found = _results(tmp_path / "out")
    assert (found["bad"]["status"], found["good"]["status"]) == ("failed", "done")
    assert "point 1 (far) lies outside" in found["bad"]["sentence"]
    assert "point 1 (far) lies outside" in (tmp_path / "out" / "logs" / "bad.log").read_text(encoding="utf-8")


def test_images_that_are_not_what_they_say_are_told_in_one_table(
    images: Path, tmp_path: Path, scheduler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = sitk.GetImageFromArray(np.zeros((12, 12, 12), np.int16))
    sitk.WriteImage(empty, str(images / "empty.nii.gz"))
    (images / "text.nii.gz").write_text("no image")
    (images / "copy.nii.gz").write_bytes((images / "p1.nii.gz").read_bytes())
    rows = [
        "a,p0_labels.nii.gz,p1.nii.gz,ct-follow-up,Anna",
        "b,p0.nii.gz,empty.nii.gz,ct-follow-up,Bert",
        "c,text.nii.gz,p2.nii.gz,no-such-preset,Cem",
        "d,p0.nii.gz,copy.nii.gz,ct-follow-up,Bert",
    ]
    header = "name,fixed,moving,preset,patient"
    words = ["cohort", str(_manifest(images, rows, header)), "-o", str(tmp_path / "out"), "--scheduler", scheduler]
    assert main([*words, "--progress", "none"]) == 2
    told = [line.split(maxsplit=2) for line in capsys.readouterr().err.splitlines()]
    assert [line[:2] for line in told[1:6]] == [
        ["2", "fixed"],
        ["3", "moving"],
        ["4", "preset"],
        ["4", "fixed"],
        ["5", "moving"],
    ]
    for line, said in zip(
        told[1:6], ("label map", "constant", "no-such-preset", "could not be read", "Anna"), strict=True
    ):
        assert said in line[2]
    assert not (tmp_path / "out").exists()


def test_what_is_known_of_an_image_is_found_once(tmp_path: Path, scheduler: str, monkeypatch) -> None:
    """The image of two rows before them, the others in their rows; memory does not answer here, only the store."""
    from samconvex.anatomy import cache
    from samconvex.anatomy.known import KNOWN
    from samconvex.cohort import ahead
    from samconvex.weights import models

    embedded = []

    def counted(volume, *args, **options):
        embedded.append(Path(volume.name).name)
        return embed(volume, *args, **options)

    embed = cache.embed
    monkeypatch.setattr(cache, "embed", counted)
    monkeypatch.setattr(KNOWN.embeddings, "get", lambda key: None)
    for place in (ahead, models):
        monkeypatch.setattr(place, "load_sam", lambda name=None: random_model())
    for seed in range(3):
        write_volume(textured_body(seed), tmp_path / f"b{seed}.nii.gz")
    center = ",".join(f"{value:g}" for value in textured_body().grid.center)
    (tmp_path / "points.csv").write_text(f"x,y,z\n{center}\n", encoding="utf-8")
    rows = [f"{seed},match,b0.nii.gz,points.csv,b{seed}.nii.gz" for seed in (1, 2)]
    manifest = _manifest(tmp_path, rows, "name,command,template,points,queries")
    words = ["cohort", str(manifest), "-o", str(tmp_path / "out"), "--scheduler", scheduler]
    assert main([*words, "--progress", "none"]) == 0
    assert embedded[0] == "b0.nii.gz" and sorted(embedded) == ["b0.nii.gz", "b1.nii.gz", "b2.nii.gz"]
    assert len(list((tmp_path / "out" / ".store").glob("*.pt"))) == 3
    assert not os.environ.get(cache.CACHE_FOLDER)


def test_organs_are_kept_on_disk_too(tmp_path: Path, monkeypatch) -> None:
    from samconvex.anatomy import cache, organs
    from samconvex.anatomy.known import KNOWN
    from samconvex.space.volume import FeatureMap
    from samconvex.weights.models import load_semantic

    image, model = textured_body(), load_semantic()
    found = FeatureMap(torch.rand(1, 2, *image.grid.shape).half(), image.grid)
    monkeypatch.setenv(cache.CACHE_FOLDER, str(tmp_path))
    monkeypatch.setattr(organs, "_computed", lambda *args: found)
    organs.organ_probabilities(image, model)
    KNOWN.clear()
    # Not a network any more: the disk has to answer.
    monkeypatch.setattr(organs, "_computed", None)
    again = organs.organ_probabilities(image, model)
    assert torch.equal(found.tensor, again.tensor) and again.grid == found.grid


def test_without_dask_one_sentence_says_what_to_install(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    manifest = _manifest(images, [f"only,p0.nii.gz,p1.nii.gz,{QUICK}"])
    assert main(["cohort", str(manifest), "-o", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "pip install 'samconvex[cluster]'" in told
    assert not (tmp_path / "out").exists()


def test_workers_never_take_more_than_cores_and_memory() -> None:
    assert (planned(2.0, None, 100, cores=8, free_gib=100.0).workers, planned(2.0, None, 3, cores=8).workers) == (8, 3)
    few = planned(10.0, None, 100, cores=8, free_gib=32.0)
    assert (few.workers, few.threads) == (2, 4) and few.workers * few.memory_bytes <= 32 * 2**30
    assert planned(50.0, None, 100, cores=8, free_gib=32.0).workers == 1
    for asked in range(1, 9):
        plan = planned(2.0, asked, 100, cores=8, free_gib=32.0)
        assert plan.workers == asked and plan.workers * plan.threads <= 8
    assert planned(2.0, None, 100, cores=8, free_gib=100.0, gpus=2).gpus == (0, 1)
    with pytest.raises(InputError, match="more than the 8 cores"):
        planned(2.0, 9, 100, cores=8, free_gib=100.0)
