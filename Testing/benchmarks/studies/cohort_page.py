"""How long the page of a cohort takes to write and to open, for any number of rows.

    python Testing/benchmarks/studies/cohort_page.py COHORT DIR [--rows 200] [--picture FILE.png]

The rows of the finished cohort in COHORT, repeated under further names until there are enough, become a cohort in DIR;
its page is written twice (with new and with kept pictures) and opened by a fresh Chromium, as is an empty page.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY / "SAMConvexRegistration"))

from samconvex.cohort.page import read_results, write_page  # noqa: E402
from samconvex.cohort.results import COLUMNS, RESULTS  # noqa: E402
from samconvex.cohort.table import PROVENANCE  # noqa: E402


def repeated(source: Path, target: Path, count: int) -> None:
    """``count`` rows of ``source`` in ``target``, with links to their pictures."""
    rows = read_results(source)
    target.mkdir(parents=True)
    shutil.copy(source / PROVENANCE, target)
    with open(target / RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for number in range(count):
            row = dict(rows[number % len(rows)])
            picture = source / row["folder"] / "report.png"
            if number >= len(rows):
                row["name"] = f"{row['name']}-{number // len(rows) + 1}"
            if row["folder"]:
                row["folder"] = f"jobs/{row['name']}"
                (target / row["folder"]).mkdir(parents=True)
                if picture.is_file():
                    os.symlink(picture.resolve(), target / row["folder"] / "report.png")
            writer.writerow(row)


def opened_in(address: str, folder: Path, *options: str) -> float:
    """Seconds until a browser that was not running has loaded and drawn an address."""
    profile = folder / ".profile"
    shutil.rmtree(profile, ignore_errors=True)
    command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={profile}", *options]
    began = time.perf_counter()
    subprocess.run([*command, address], capture_output=True, check=True, timeout=120)
    seconds = time.perf_counter() - began
    shutil.rmtree(profile, ignore_errors=True)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    repeated(options.cohort.resolve(), options.folder, options.rows)
    for said in ("new", "kept"):
        began = time.perf_counter()
        page = write_page(options.folder)
        print(f"written with {said} pictures in {time.perf_counter() - began:.2f} s", flush=True)
    print(f"{options.rows} rows, {page.stat().st_size / 2**20:.2f} MiB")
    shot = options.picture or options.folder / "page.png"
    look = (f"--screenshot={shot.resolve()}", "--window-size=1700,1000")
    for turn in range(3):
        empty = opened_in("about:blank", options.folder, *look)
        full = opened_in(page.resolve().as_uri(), options.folder, *look)
        print(
            f"turn {turn + 1}: empty page {empty:.2f} s, this page {full:.2f} s, {full - empty:.2f} s more", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
