"""Every kind of unusable input, with the exit status and the sentence that ``samconvex`` answers.

    python Testing/engine/cli/bad_input.py        runs each case as a process and prints a Markdown table

``Testing/engine/cli/test_bad_input.py`` runs the same cases on every test run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

ENGINE = Path(__file__).resolve().parents[3] / "SAMConvexRegistration"
QUICK = ("--preset", "fast-preview", "--affine", "none", "--progress", "none")


@dataclass(frozen=True)
class Case:
    """One command line and what must come of it.

    Attributes:
        name: what is wrong, for the table.
        words: arguments; files are those of :func:`make_files`, relative to its folder.
        status: exit status.
        says: regular expression of the sentence on stderr, or of a note on stdout where ``status`` is 0.
    """

    name: str
    words: tuple[str, ...]
    status: int
    says: str


def _register(*words: str) -> tuple[str, ...]:
    return ("register", *words, "-o", "out", *QUICK)


def _apply(*words: str) -> tuple[str, ...]:
    return ("apply", *words, "--progress", "none")


CASES = (
    Case("missing file", _register("ct.nii.gz", "none.nii.gz"), 2, r"none\.nii\.gz does not exist"),
    Case("not an image", _register("text.nii.gz", "ct.nii.gz"), 2, r"text\.nii\.gz could not be read as an image"),
    Case("image cut short", _register("ct.nii.gz", "cut.nii.gz"), 2, r"cut\.nii\.gz could not be read"),
    Case("folder without DICOM", _register("ct.nii.gz", "empty"), 2, r"empty holds no DICOM series"),
    Case("2D", _register("flat.nii.gz", "ct.nii.gz"), 2, r"flat\.nii\.gz is 2D"),
    Case("4D", _register("ct.nii.gz", "series.nii.gz"), 2, r"series\.nii\.gz is 4D"),
    Case("several components", _register("rgb.nii.gz", "ct.nii.gz"), 2, r"rgb\.nii\.gz has 3 components"),
    Case("NaN", _register("nan.nii.gz", "ct.nii.gz"), 2, r"nan\.nii\.gz holds NaN"),
    Case("infinite", _register("ct.nii.gz", "inf.nii.gz"), 2, r"inf\.nii\.gz holds NaN or infinite"),
    Case("constant image", _register("constant.nii.gz", "ct.nii.gz"), 2, r"constant\.nii\.gz is constant"),
    Case("under 8 voxels along an axis", _register("thin.nii.gz", "ct.nii.gz"), 2, r"thin\.nii\.gz has 24x24x5 voxels"),
    Case("no body", _register("air.nii.gz", "ct.nii.gz"), 2, r"No body was found in .*air\.nii\.gz"),
    Case("no overlap", _register("ct.nii.gz", "far.nii.gz"), 2, r"far\.nii\.gz does not overlap .*ct\.nii\.gz"),
    Case(
        "fractional labels",
        _register("ct.nii.gz", "ct.nii.gz", "--moving-labels", "fractions.nii.gz"),
        2,
        r"fractions\.nii\.gz holds fractional values",
    ),
    Case(
        "empty labels",
        _register("ct.nii.gz", "ct.nii.gz", "--moving-labels", "zeros.nii.gz"),
        2,
        r"zeros\.nii\.gz has no label",
    ),
    Case(
        "label below 0",
        _register("ct.nii.gz", "ct.nii.gz", "--fixed-labels", "negative.nii.gz", "--moving-labels", "negative.nii.gz"),
        2,
        r"negative\.nii\.gz holds the label -1; .*set voxels to be ignored to 0",
    ),
    Case(
        "mask below 0",
        _register("ct.nii.gz", "ct.nii.gz", "--fixed-mask", "negative.nii.gz"),
        2,
        r"negative\.nii\.gz holds the label -1",
    ),
    Case(
        "labels elsewhere",
        _register("ct.nii.gz", "ct.nii.gz", "--moving-labels", "far_labels.nii.gz"),
        2,
        r"far_labels\.nii\.gz does not overlap",
    ),
    Case(
        "mask elsewhere",
        _register("ct.nii.gz", "ct.nii.gz", "--fixed-mask", "far_labels.nii.gz"),
        2,
        r"far_labels\.nii\.gz (does not overlap|lies outside)",
    ),
    Case(
        "missing points",
        _register("ct.nii.gz", "ct.nii.gz", "--moving-points", "none.csv"),
        2,
        r"none\.csv does not exist",
    ),
    Case(
        "point outside its template",
        ("match", "ct.nii.gz", "outside.csv", "ct.nii.gz", "-o", "o.csv"),
        2,
        r"outside\.csv: point 2 lies outside ct\.nii\.gz; correct or remove it",
    ),
    Case(
        "points without header",
        _register("ct.nii.gz", "ct.nii.gz", "--moving-points", "headless.csv"),
        2,
        r"headless\.csv does not start with the header",
    ),
    Case(
        "points that do not correspond",
        _register("ct.nii.gz", "ct.nii.gz", "--moving-points", "points.csv", "--fixed-points", "one.csv"),
        2,
        r"one\.csv has 1 points and .*points\.csv has 2",
    ),
    Case(
        "initial transform unreadable",
        _register("ct.nii.gz", "ct.nii.gz", "--initial-transform", "text.txt"),
        2,
        r"text\.txt could not be read as a transform",
    ),
    Case(
        "OUTDIR not empty", ("register", "ct.nii.gz", "ct.nii.gz", "-o", "full"), 2, r"full is not empty.*--overwrite"
    ),
    Case("OUTDIR is a file", ("register", "ct.nii.gz", "ct.nii.gz", "-o", "text.txt"), 2, r"text\.txt is a file"),
    Case(
        "OUTDIR would replace an input",
        ("register", "ct.nii.gz", "ct.nii.gz", "-o", "full", "--overwrite", "--moving-points", "full/points.csv"),
        2,
        r"points\.csv is an input",
    ),
    Case(
        "memory limit below need",
        _register("ct.nii.gz", "ct.nii.gz", "--max-memory", "0.1"),
        4,
        r"needs about .* GiB, more than the limit of 0\.1 GiB; .*(allow|preset)",
    ),
    Case("no such GPU", _register("ct.nii.gz", "ct.nii.gz", "--device", "cuda:99"), 4, r"cuda:99.*--device cpu"),
    Case("no such device", _register("ct.nii.gz", "ct.nii.gz", "--device", "abacus"), 2, r"abacus is no device"),
    Case(
        "unknown preset",
        ("register", "ct.nii.gz", "ct.nii.gz", "-o", "out", "--preset", "best"),
        2,
        r"no preset 'best'; choose one of",
    ),
    Case("unknown feature", _register("ct.nii.gz", "ct.nii.gz", "--features", "magic"), 2, r"no feature 'magic'"),
    Case("zero threads", _register("ct.nii.gz", "ct.nii.gz", "--threads", "0"), 2, r"0 is no whole number above 0"),
    Case("argument missing", ("register", "ct.nii.gz", "-o", "out"), 2, r"MOVING"),
    Case("unknown command", ("regster", "ct.nii.gz"), 2, r"regster"),
    Case("apply: image without --like", _apply("shift.tfm", "ct.nii.gz", "-o", "o.nii.gz"), 2, r"--like is missing"),
    Case(
        "apply: unknown format",
        _apply("shift.tfm", "ct.nii.gz", "--like", "ct.nii.gz", "-o", "o.xyz"),
        2,
        r"o\.xyz: unknown image format",
    ),
    Case(
        "apply: points to an image file",
        _apply("shift.tfm", "points.csv", "-o", "o.nii.gz"),
        2,
        r"o\.nii\.gz: points are written as",
    ),
    Case(
        "apply: onto its own input",
        _apply("shift.tfm", "points.csv", "-o", "points.csv"),
        2,
        r"points\.csv is also the input",
    ),
    Case(
        "apply: 2D transform",
        _apply("flat.tfm", "points.csv", "-o", "o.csv"),
        2,
        r"flat\.tfm: the transform is not 3D",
    ),
    Case(
        "evaluate: one label map",
        (
            "evaluate",
            "--fixed",
            "ct.nii.gz",
            "--moving",
            "ct.nii.gz",
            "--transform",
            "shift.tfm",
            "--fixed-labels",
            "labels.nii.gz",
        ),
        2,
        r"belong together",
    ),
    Case(
        "labels on another grid",
        _register("ct.nii.gz", "ct.nii.gz", "--moving-labels", "fine_labels.nii.gz"),
        0,
        r"fine_labels\.nii\.gz is on another grid than .*ct\.nii\.gz; it was resampled by position",
    ),
    Case(
        "label map in place of an image",
        _register("ct.nii.gz", "labels.nii.gz"),
        0,
        r"labels\.nii\.gz holds only \d+ different values, as a label map does: give the image itself",
    ),
    Case(
        "points outside",
        _register("ct.nii.gz", "ct.nii.gz", "--moving-points", "outside.csv"),
        0,
        r"1 of 2 points lie outside .*ct\.nii\.gz",
    ),
)


def make_files(folder: Path) -> None:
    """Write the files that the cases name: a small CT of a sphere and everything that can be wrong with one."""
    z, y, x = np.mgrid[:24, :24, :24] - 11.5
    radius = np.sqrt(x**2 + (1.2 * y) ** 2 + z**2)
    random = np.random.default_rng(0)
    ct = np.where(radius < 9, 40 + 60 * np.sin(x) * np.cos(y + z), -1000.0) + random.normal(0, 5, radius.shape)

    def save(name: str, array: np.ndarray, spacing: Sequence[float] = (6.0,) * 3, origin: float = 0.0, **kind) -> None:
        image = sitk.GetImageFromArray(array, **kind)
        count = image.GetDimension()
        image.SetSpacing([*spacing, 1.0][:count])
        image.SetOrigin([origin] * count)
        sitk.WriteImage(image, str(folder / name), name.endswith(".gz"))

    hounsfield = ct.astype(np.int16)
    save("ct.nii.gz", hounsfield)
    save("far.nii.gz", hounsfield, origin=5000.0)
    save("flat.nii.gz", hounsfield[0])
    save("series.nii.gz", np.stack([hounsfield] * 2), isVector=False)
    save("rgb.nii.gz", np.stack([hounsfield] * 3, -1), isVector=True)
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        broken = ct.astype(np.float32)
        broken[3, 4, 5] = value
        save(f"{name}.nii.gz", broken)
    save("constant.nii.gz", np.full_like(hounsfield, 7))
    save("thin.nii.gz", hounsfield[:5])
    save("air.nii.gz", (random.normal(-1000, 3, ct.shape)).astype(np.int16))
    labels = ((radius < 5) * 1).astype(np.uint8)
    save("labels.nii.gz", labels)
    save("zeros.nii.gz", labels * 0)
    save("negative.nii.gz", np.where(labels > 0, labels.astype(np.int16), np.int16(-1)))
    save("fractions.nii.gz", labels * np.float32(0.5))
    save("far_labels.nii.gz", labels, origin=5000.0)
    save("fine_labels.nii.gz", labels.repeat(2, 0).repeat(2, 1).repeat(2, 2), spacing=(3.0,) * 3, origin=-1.5)
    (folder / "text.nii.gz").write_text("not an image")
    (folder / "text.txt").write_text("not a transform")
    (folder / "cut.nii.gz").write_bytes((folder / "ct.nii.gz").read_bytes()[:4000])
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "points.csv").write_text("x,y,z\n70,70,70\n")
    (folder / "headless.csv").write_text("70,70,70\n")
    (folder / "points.csv").write_text("x,y,z\n70,70,70\n60,60,60\n")
    (folder / "one.csv").write_text("x,y,z\n70,70,70\n")
    (folder / "outside.csv").write_text("x,y,z\n70,70,70\n-900,60,60\n")
    sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), str(folder / "shift.tfm"))
    sitk.WriteTransform(sitk.TranslationTransform(2, (1.0, 2.0)), str(folder / "flat.tfm"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, to see that nothing was written."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ENGINE), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def _run(case: Case, folder: Path) -> tuple[int, str]:
    """Status and answer of one case as a process."""
    command = [sys.executable, "-m", "samconvex", *case.words]
    result = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
    if case.status == 0:
        notes = [line for line in result.stdout.splitlines() if re.search(case.says, line)]
        return result.returncode, notes[0] if notes else ""
    return result.returncode, result.stderr.strip()


def _run_on_a_full_disk(case: Case, folder: Path) -> tuple[int, str]:
    """The same with OUTDIR on a file system of 1 MiB, where this machine lets us make one."""
    (folder / "out").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder / "out")]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        raise NotImplementedError("mounting a small disk needs Linux and root")
    try:
        return _run(case, folder)
    finally:
        subprocess.run(["umount", str(folder / "out")], check=False)


def _run_and_interrupt(case: Case, folder: Path) -> tuple[int, str]:
    """The same with Ctrl-C after the first sign of progress."""
    if sys.platform == "win32":
        raise NotImplementedError("signals are sent the POSIX way")
    command = [sys.executable, "-m", "samconvex", *case.words[:-1], "json"]
    process = subprocess.Popen(
        command, cwd=folder, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    return process.wait(), process.communicate()[1].strip()


SPECIAL = (
    (
        Case("disk full", _register("ct.nii.gz", "ct.nii.gz"), 4, r"out needs about .* MiB free; free"),
        _run_on_a_full_disk,
    ),
    (Case("Ctrl-C", _register("ct.nii.gz", "ct.nii.gz"), 3, "Cancelled; nothing was written"), _run_and_interrupt),
)


def main(patterns: Sequence[str]) -> int:
    """Print the table; the exit status counts the cases that answered otherwise than promised.

    Args:
        patterns: regular expressions; only cases whose names match one are run. None: all.
    """
    wrong = 0
    print("| case | status | answer |\n|---|---|---|")
    for case, run in [*((case, _run) for case in CASES), *SPECIAL]:
        if patterns and not any(re.search(pattern, case.name) for pattern in patterns):
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_files(folder)
            before = contents(folder)
            try:
                status, answer = run(case, folder)
            except NotImplementedError as reason:
                print(f"| {case.name} | - | not run: {reason} |", flush=True)
                continue
            good = status == case.status and re.search(case.says, answer) and "\n" not in answer
            good = good and (status == 0 or contents(folder) == before)
            wrong += not good
            answer = answer.replace("\n", "<br>").replace("|", "\\|")
            print(f"| {case.name} | {status} | {answer}{'' if good else ' **(not as promised)**'} |", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
