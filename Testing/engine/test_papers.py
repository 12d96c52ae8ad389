"""docs/papers.md: every command parses, every file exists, every row says what is measured or why nothing is."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from samconvex.cli.main import _parse, main
from samconvex.io.images import write_volume
from samconvex.space.volume import Volume
from samconvex.synthetic.phantom import make_phantom

PAPERS = 4
COLUMNS = ["what it has", "here", "command", "ours beside theirs", "missing"]


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "papers.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows(page: str) -> list[list[str]]:
    tables = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    return [row for row in tables if row != COLUMNS]


def commands(text: str) -> list[str]:
    return re.findall(r"`((?:samconvex|python) [^`]+)`", text)


def files(text: str) -> list[str]:
    """Everything in backticks that looks like a file of the repository."""
    found = [word for word in re.findall(r"`([^` ]+)`", text) if re.search(r"\.(py|md|json|pt)$", word)]
    return ["SAMConvexRegistration/" + word if word.startswith("samconvex/") else word for word in found]


def unknown_options(command: str, repository: Path) -> list[str]:
    """Options that the benchmark or study which the command runs does not have."""
    words = shlex.split(command)
    if words[0] == "python":
        sources = [repository / words[1]]
    else:
        suite = words[words.index("--suite") + 1] if "--suite" in words else "registration"
        sources = [repository / "Testing" / "benchmarks" / "__main__.py"]
        sources += [repository / "Testing" / "benchmarks" / "suites" / f"{suite}.py"]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    return [word for word in words if word.startswith("--") and f'"{word}"' not in text]


def test_every_row_has_its_cells(page, rows):
    assert page.count("\n## ") == PAPERS and len(rows) > 30
    assert all(len(row) == len(COLUMNS) and all(row) for row in rows)


def test_every_row_has_a_file_and_a_command(rows):
    assert [row[0] for row in rows if not files(row[1]) or len(commands(row[2])) != 1] == []


def test_every_command_of_the_page_parses(page, repository, capsys):
    found = commands(page)
    assert len(found) > 30
    for command in found:
        words = shlex.split(command)
        if words[:2] == ["samconvex", "benchmark"] or words[0] == "python":
            assert unknown_options(command, repository) == [], command
        if words[0] == "samconvex":
            try:
                name, _ = _parse(words[1:])
            except SystemExit:
                pytest.fail(f"{command}: {capsys.readouterr().err}")
            assert name.name == words[1]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands for the page's capital words: a piece of a phantom, and the same a little aside."""
    folder = tmp_path_factory.mktemp("tiny")
    phantom = make_phantom(1, 5.0)
    low = [size // 2 - 9 for size in phantom.ct.grid.size]

    def piece(volume: Volume) -> Volume:
        x, y, z = low
        tensor = volume.tensor[..., z : z + 18, y : y + 18, x : x + 18].contiguous()
        return volume.with_tensor(tensor, volume.grid.cropped(tuple(low), (18, 18, 18)))

    def aside(volume: Volume) -> Volume:
        origin = tuple(float(v) for v in np.asarray(volume.grid.origin) + 4.0)
        return replace(volume, grid=replace(volume.grid, origin=origin))

    files = {}
    for name, volume in (("image", piece(phantom.ct)), ("labels", piece(phantom.labels))):
        for side, written in (("fixed", volume), ("moving", aside(volume))):
            files[f"{side}-{name}"] = str(folder / f"{side}-{name}.nii.gz")
            write_volume(written, files[f"{side}-{name}"])
    images = {word: files["fixed-image"] for word in ("FIXED", "CT")} | {
        word: files["moving-image"] for word in ("MOVING", "MR")
    }
    return images | {"--moving-labels": files["moving-labels"], "--fixed-labels": files["fixed-labels"]}


def test_every_registration_of_the_page_runs(page, tiny, tmp_path):
    registrations = sorted({command for command in commands(page) if command.startswith("samconvex register")})
    assert len(registrations) > 12
    for number, command in enumerate(registrations):
        words = [tiny.get(word, word) for word in shlex.split(command)[1:]]
        for option in ("--moving-labels", "--fixed-labels"):
            if tiny[option] in words:  # the option itself was taken for a capital word
                place = words.index(tiny[option])
                words[place : place + 2] = [option, tiny[option]]
        words[words.index("OUT")] = str(tmp_path / f"{number}")
        assert main([*words, "--device", "cpu", "--progress", "none"]) == 0, command
        assert (tmp_path / f"{number}" / "transform.h5").is_file(), command


def test_presets_and_networks_of_the_commands_exist(page):
    from samconvex.settings.presets import PRESETS

    named = {shlex.split(c)[shlex.split(c).index("--preset") + 1] for c in commands(page) if "--preset" in c}
    assert {"paper", "masr", "suits"} <= named <= set(PRESETS)


def test_every_file_of_the_page_exists(page, repository):
    assert [name for name in files(page) if not (repository / name).is_file()] == []


def test_a_row_without_a_figure_says_why(rows):
    silent = [row[0] for row in rows if not re.search(r"\d", row[3]) and "not measured" not in row[3]]
    assert silent == []
    reasons = [row[3] for row in rows if row[3].startswith("not measured")]
    assert all(re.search(r"not measured(:| in this version)", reason) for reason in reasons)


def test_faults_of_the_page_would_be_found(repository, capsys):
    with pytest.raises(SystemExit):
        _parse(shlex.split("register FIXED MOVING -o OUT --initial-netwrok W"))
    assert unknown_options("samconvex benchmark --suite ablation --pears 3", repository) == ["--pears"]
    assert files("`samconvex/networks/absent.py`") == ["SAMConvexRegistration/samconvex/networks/absent.py"]
