"""index.html of a cohort: worst first, small pictures, nothing from elsewhere, and true in a real browser."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from samconvex.cohort.page import write_page
from samconvex.cohort.results import COLUMNS, RESULTS
from samconvex.errors import InputError
from samconvex.report.picture import write_report_picture
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.synthetic.phantom import make_phantom

EVIL = """<script>document.title="x"</script>"&'<img src=x onerror=alert(1)>"""
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def entry(name: str, status: str = "done", verdict: str = "good", error: float | str = "", **more: object) -> dict:
    verdict = verdict if status == "done" else ""
    known = {
        "name": name,
        "status": status,
        "verdict": verdict,
        "expected_error_median_mm": error,
        "command": "register",
    }
    return dict.fromkeys(COLUMNS, "") | known | {"folder": f"jobs/{name}"} | more


def cohort(folder: Path, entries: list[dict]) -> Path:
    folder.mkdir(exist_ok=True)
    with open(folder / RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(entries)
    return folder


@pytest.fixture(scope="module")
def report_png(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The picture of a registration of a phantom with itself, pushed aside."""
    ct = make_phantom(1, 10.0).ct
    aside = Transform((AffineTransform(np.eye(3), np.array([30.0, 0.0, 0.0])),))
    result = SimpleNamespace(fixed_to_moving=aside, report={"verdict": {"level": "good", "reasons": []}})
    path = tmp_path_factory.mktemp("report") / "report.png"
    write_report_picture(path, ct, aside.inverse().warp_volume(ct, ct), result)
    return path


def with_picture(folder: Path, name: str, report_png: Path) -> None:
    (folder / "jobs" / name).mkdir(parents=True)
    shutil.copy2(report_png, folder / "jobs" / name / "report.png")


class Page(HTMLParser):
    """Tags with their attributes, and the rows' states and names in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.names: list[str] = []
        self._in_name = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        values = dict(attributes)
        self.tags.append((tag, values))
        self._in_name = self._in_name or (tag == "th" and values.get("scope") == "row")

    def handle_endtag(self, tag: str) -> None:
        self._in_name = self._in_name and tag != "th"

    def handle_data(self, data: str) -> None:
        if self._in_name:
            self.names.append(data)

    def all(self, tag: str) -> list[dict]:
        return [values for name, values in self.tags if name == tag]


def test_the_worst_rows_come_first(tmp_path: Path) -> None:
    entries = [
        entry("fine", error=1.5),
        entry("not-yet", "waiting"),
        entry("uncertain", error=9.0),
        entry("carried", verdict="", command="apply"),
        entry("look", verdict="check", error=2.0),
        entry("look-first", verdict="check", error=30.0),
        entry("wrong", verdict="do not use", error=5.0),
        entry("broken", "failed", sentence="a.nii.gz does not exist; check the path."),
    ]
    text = write_page(cohort(tmp_path, entries)).read_text(encoding="utf-8")
    page = Page(text)
    assert page.names == ["broken", "wrong", "look-first", "look", "uncertain", "fine", "carried", "not-yet"]
    assert [row["data-is"] for row in page.all("tr")[1:3]] == ["failed", "reject"]
    assert "a.nii.gz does not exist; check the path." in text and "logs/broken.log" in text


def test_only_columns_with_figures_are_shown(tmp_path: Path) -> None:
    page = Page(write_page(cohort(tmp_path, [entry("a", error=1.0), entry("b", seconds="nan")])).read_text("utf-8"))
    titles = [head["data-by"] for head in page.all("th") if head.get("scope") == "col"]
    assert titles == ["picture", "name", "state", "why", "expected_error_median_mm"]


def test_what_users_wrote_stays_text_and_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    entries = [entry(EVIL, "failed", sentence=EVIL, patient=EVIL), entry("b", reasons=f"{EVIL} | second")]
    entries.append(entry("c", folder="javascript:alert(1)"))
    text = write_page(cohort(tmp_path, entries)).read_text("utf-8")
    page = Page(text)
    assert EVIL in page.names and len(page.all("script")) == 1 and page.all("img") == []
    assert "<p>second</p>" in text
    addresses = [tag[key] for _, tag in page.tags for key in ("src", "href") if key in tag]
    assert len(addresses) >= 2
    assert [address for address in addresses if re.match(r"\w+:|//|/", address)] == []


def test_pictures_are_small_lazy_and_made_once(tmp_path: Path, report_png: Path) -> None:
    with_picture(tmp_path, "seen", report_png)
    with_picture(tmp_path, "damaged", report_png)
    damaged = tmp_path / "jobs" / "damaged" / "report.png"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    folder = cohort(tmp_path, [entry("seen"), entry("damaged"), entry("without")])
    page = Page(write_page(folder).read_text("utf-8"))
    [image] = page.all("img")
    assert image["loading"] == "lazy" and "seen" in image["alt"] and len(page.names) == 3
    small = folder / image["src"]
    assert Image.open(small).size == (int(image["width"]), int(image["height"])) and small.stat().st_size < 30_000
    before = small.stat()
    write_page(folder)
    assert small.stat().st_ino == before.st_ino
    # A row that ran again has another picture; one that left takes its picture along.
    Image.fromarray(255 - np.asarray(Image.open(report_png))).save(folder / "jobs" / "seen" / "report.png")
    shutil.copy2(report_png, folder / "jobs" / "seen" / "report.png")
    (folder / "jobs" / "seen" / "report.png").touch()
    write_page(folder)
    assert small.stat().st_ino != before.st_ino
    write_page(cohort(folder, [entry("other")]))
    assert not small.exists()


def test_the_small_picture_shows_both_images_after_the_registration(tmp_path: Path, report_png: Path) -> None:
    with_picture(tmp_path, "same", report_png)
    [image] = Page(write_page(cohort(tmp_path, [entry("same")])).read_text("utf-8")).all("img")
    pixels = np.asarray(Image.open(tmp_path / image["src"]).convert("RGB"), dtype=float)
    # Where it has come back to itself it is gray; the planes lie side by side.
    assert np.abs(pixels.max(-1) - pixels.min(-1)).mean() < 12 and pixels.mean() > 20
    assert pixels.shape[1] > 1.8 * pixels.shape[0]


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results\.csv does not exist; give the output folder"):
        write_page(tmp_path)
    (tmp_path / RESULTS).write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="lacks the columns name and status"):
        write_page(tmp_path)
    assert not (tmp_path / "index.html").exists()


def browsed(page: Path, *options: str, fragment: str = "") -> str:
    """Standard output of a browser that opened the page."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", *options]
    profile = f"--user-data-dir={page.parent / '.profile'}"
    done = subprocess.run(
        [*command, profile, f"{page.as_uri()}{fragment}"], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_a_real_browser_sorts_and_filters_two_hundred_rows(tmp_path: Path, report_png: Path) -> None:
    entries = [entry(f"pair{n:03d}", error=n % 50 + 1, seconds=(n * 37) % 200, patient=f"p{n % 9}") for n in range(197)]
    entries += [entry("pair197", verdict="check", error=3), entry("pair198", "failed", sentence=EVIL)]
    entries += [entry("pair199", verdict="check", error=3, patient="p3", seconds=1000)]
    with_picture(tmp_path, "pair199", report_png)
    page = write_page(cohort(tmp_path, entries))
    kept = Page(browsed(page, "--dump-dom", fragment="#q=p3&by=seconds&down=1"))
    seconds = [int(name[4:]) * 37 % 200 if name != "pair199" else 1000 for name in kept.names]
    timed = [value for name, value in zip(kept.names, seconds, strict=True) if name not in ("pair197", "pair198")]
    assert len(kept.names) == 200 and timed == sorted(timed, reverse=True)
    shown = [name for name, row in zip(kept.names, kept.all("tr")[1:], strict=True) if "hidden" not in row]
    assert set(shown) == {f"pair{n:03d}" for n in range(197) if n % 9 == 3} | {"pair199"}
    checked = Page(browsed(page, "--dump-dom", fragment="#s=check"))
    assert [row["data-is"] for row in checked.all("tr")[1:] if "hidden" not in row] == ["check", "check"]
    picture = tmp_path / "page.png"
    browsed(page, f"--screenshot={picture}", "--window-size=1600,700", "--hide-scrollbars")
    # The picture arrived: its black ground lies in the first column.
    pixels = np.asarray(Image.open(picture).convert("RGB"))[200:, :330]
    assert (pixels.max(-1) < 14).sum() > 2000
