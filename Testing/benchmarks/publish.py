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

from .data.pairs import REPOSITORY
from .results.drawing import pictures_of
from .results.pages import PICTURES, footer, registration_lines
from .results.records import folder_of
from .suites import ablation, landscapes, robustness, scaling, surfaces

PAGE = Path(__file__).resolve().parent / "RESULTS.md"
LARGEST_PICTURE = 300_000
# Other suites' own pages, taken over as they are.
PAGES = ("landmarks.md", "tracking.md")
MULTIMODAL = "RESULTS-multimodal.md"
# Suite -> its part of the page, in the page's order.
SECTIONS: dict[str, Callable[[dict], list[str]]] = {
    "registration": registration_lines,
    "robustness": lambda document: ["## Robustness", "", *robustness.page_lines(document)],
    "ablation": lambda document: ["## What each ingredient contributes", "", *ablation.page_lines(document)],
    "scaling": lambda document: ["## Time and memory against size", "", *scaling.page_lines(document)],
    "landscapes": lambda document: ["## Loss landscapes", "", *landscapes.page_lines(document)],
    "surfaces": lambda document: ["## Loss surfaces", "", *surfaces.page_lines(document)],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; the exit status is 1 if there is nothing to publish."""
    parser = argparse.ArgumentParser(prog="samconvex benchmark --suite publish", description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmark-output", metavar="DIR")
    chosen = parser.parse_args(arguments)
    return int(not publish(chosen.output))


def publish(output: Path, page: Path = PAGE, pictures: Path = PICTURES) -> bool:
    """Write ``page`` and copy the plots; False, and nothing written, where ``output`` holds no results."""
    parts: list[str] = []
    for suite, lines_of in SECTIONS.items():
        folder = folder_of(output, suite)
        file = folder / f"{suite}.json"
        if not file.is_file():
            continue
        document = json.loads(file.read_text(encoding="utf-8"))
        parts += [*lines_of(document), *footer(document)]
        for kind in pictures_of(suite):
            picture = folder / f"{kind}.png"
            if picture.is_file() and picture.stat().st_size <= LARGEST_PICTURE:
                name = f"benchmark-{kind}.png"
                pictures.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(picture, pictures / name)
                parts += [f"![{kind}](../../Resources/Screenshots/{name})", ""]
    for name in PAGES:
        if (output / name).is_file():
            parts += [_demoted((output / name).read_text(encoding="utf-8")), ""]
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


def _demoted(text: str) -> str:
    """Headings one level down."""
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in text.strip().splitlines())


if __name__ == "__main__":
    raise SystemExit(main())
