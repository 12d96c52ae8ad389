"""``samconvex benchmark --suite publish``: write ``RESULTS.md`` from the records of an output folder.

Every suite leaves a JSON document there; what is present is published, with the machine, the versions and the commands
that made it. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from . import tables

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = Path(__file__).resolve().parent / "RESULTS.md"
PICTURES = REPOSITORY / "Resources" / "Screenshots"
LARGEST_PICTURE = 300_000
# Other suites' own pages, taken over as they are.
PAGES = ("landmarks.md", "tracking.md")
MULTIMODAL = "RESULTS-multimodal.md"
OPTIONS_LEFT_OUT = ("--resume", "--publish")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; the exit status is 1 if there is nothing to publish."""
    parser = argparse.ArgumentParser(prog="samconvex benchmark --suite publish", description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmark-output", metavar="DIR")
    chosen = parser.parse_args(arguments)
    return int(not publish(chosen.output))


def publish(output: Path, page: Path = PAGE, pictures: Path = PICTURES) -> bool:
    """Write ``page`` and copy the plots; False, and nothing written, where ``output`` holds no results."""
    parts: list[str] = []
    for suite, lines_of in _suites().items():
        folder = folder_of(output, suite)
        file = folder / f"{suite}.json"
        if not file.is_file():
            continue
        document = json.loads(file.read_text())
        parts += [*lines_of(document), *footer(document)]
        picture = folder / f"{suite}.png"
        if picture.is_file() and picture.stat().st_size <= LARGEST_PICTURE:
            name = f"benchmark-{suite}.png"
            pictures.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, pictures / name)
            parts += [f"![{suite}](../../Resources/Screenshots/{name})", ""]
    for name in PAGES:
        if (output / name).is_file():
            parts += [_demoted((output / name).read_text()), ""]
    # The multimodal suite publishes a page of its own.
    if parts and (page.parent / MULTIMODAL).is_file():
        parts += ["## Across modalities", "", f"See [{MULTIMODAL}]({MULTIMODAL}).", ""]
    if not parts:
        print(f"{output} holds no results; run a suite first.")
        return False
    page.write_text(
        "\n".join(
            ["# Results", "", "Written by `samconvex benchmark --suite publish`; do not edit.", "", *parts]
        ).rstrip()
        + "\n"
    )
    print(f"{page} written.")
    return True


def folder_of(output: Path, suite: str) -> Path:
    """Where a suite keeps its document: the registration suite in the output folder itself, others one below."""
    return output if suite == "registration" else output / suite


def remember_command(folder: Path, suite: str, words: Sequence[str]) -> None:
    """Add a command line to the folder's list; folders are left out, other paths shortened to their names."""
    kept: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--output":
            rest = rest[1:]
        elif word not in OPTIONS_LEFT_OUT and not word.startswith("--output="):
            kept.append(Path(word).name if "/" in word or "\\" in word else word)
    line = " ".join(["samconvex benchmark", *([] if suite == "registration" else ["--suite", suite]), *kept])
    folder.mkdir(parents=True, exist_ok=True)
    lines = commands_of(folder)
    if line not in lines:
        (folder / "commands.txt").write_text("\n".join([*lines, line]) + "\n")


def commands_of(folder: Path) -> list[str]:
    """The command lines that filled a folder."""
    file = folder / "commands.txt"
    return file.read_text().splitlines() if file.is_file() else []


def _suites() -> dict[str, Callable[[dict], list[str]]]:
    from . import ablation, landscapes, robustness, scaling

    return {
        "registration": registration_lines,
        "robustness": lambda document: ["## Robustness", "", *robustness.page_lines(document)],
        "ablation": lambda document: ["## What each ingredient contributes", "", *ablation.page_lines(document)],
        "scaling": lambda document: ["## Time and memory against size", "", *scaling.page_lines(document)],
        "landscapes": lambda document: ["## Loss landscapes", "", *landscapes.page_lines(document)],
    }


def registration_lines(document: dict) -> list[str]:
    """Means, comparisons and the figure of merit of every pair."""
    return [
        "## Registration",
        "",
        *tables.explanation(document["records"]),
        "",
        *groups(document),
    ]


def multimodal_lines(document: dict) -> list[str]:
    """Means and the figure of merit of every pair."""
    return ["## Across modalities", "", *groups(document)]


def groups(document: dict) -> list[str]:
    """A table of the methods and one of the pairs for each group of pairs."""
    records = document["records"]
    # Made anew from the records, so that an older document shows the same columns.
    summary, comparisons = tables.summarize(records), tables.compare(records)
    lines: list[str] = []
    for group in dict.fromkeys(row["group"] for row in summary):
        rows = [row for row in summary if row["group"] == group]
        lines += [f"### {group}", "", *tables.table(rows, ("method", "pairs", "failed")), ""]
        lines += tables.comparison_lines(comparisons, group)
        lines += tables.matrix_lines([record for record in records if record["group"] == group])
    return lines + tables.failure_lines(records)


def footer(document: dict) -> list[str]:
    """The machine, the versions and the commands that made a document."""
    versions = tables.versions_line(document.get("records", []))
    lines = [document["machine"], "", *([versions, ""] if versions else [])]
    if document.get("commands"):
        lines += ["Made by:", "", *(f"    {command}" for command in document["commands"]), ""]
    return lines


def _demoted(text: str) -> str:
    """Headings one level down."""
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in text.strip().splitlines())


if __name__ == "__main__":
    raise SystemExit(main())
