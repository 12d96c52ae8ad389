"""The course's page, plots and table: everything that is known stands there, at its place, and nothing else."""

from __future__ import annotations

import csv
import datetime
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from samconvex.errors import InputError
from samconvex.io.images import write_volume
from samconvex.lesions import course_plots, report_page
from samconvex.lesions.course import Confirmation, Course, CourseLesion, Reading, Visit
from samconvex.lesions.course_plots import DECREASE, GROWTH, spider, waterfall
from samconvex.lesions.course_table import COLUMNS, course_rows, write_course_csv
from samconvex.lesions.response import NOTICE
from samconvex.lesions.thumbnails import CONTOUR_COLOR, LONGEST_COLOR, thumbnail
from samconvex.space.grid import Grid
from samconvex.space.volume import Volume

GRID = Grid((40, 40, 20), (2.0, 2.0, 2.0), (-39.0, -39.0, -19.0))
PLACE = np.array([10.0, -6.0, 1.0])
TODAY = datetime.date(2026, 11, 27)


def _ball(radius: float) -> torch.Tensor:
    return (GRID.voxel_centers(reference=PLACE).norm(dim=-1) < radius)[None, None]


def _image(radius: float, value: float = 200.0) -> Volume:
    tissue = torch.full((1, 1, *GRID.shape), 20.0)
    tissue[..., 0, 0] = -1000.0
    return Volume(torch.where(_ball(radius), torch.tensor(value), tissue), GRID)


def _line(length: float, axis: int) -> list[list[float]]:
    step = np.eye(3)[axis] * length / 2
    return np.stack([PLACE - step, PLACE + step]).tolist()


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """Three visits of two targets: one grows by half, the other disappears; and a lesion that nobody confirmed."""
    visits = [Visit(f"visit {n}", f"2026-0{1 + 2 * n}-10", modality="CT", slice_thickness_mm=2.0) for n in range(3)]
    grows, goes, doubt = (
        CourseLesion("Segment 1", "target", "liver"),
        CourseLesion("=cmd", "target", "left lung"),
        CourseLesion("L3", "non-target", node=True),
    )
    for row, visit in enumerate(visits):
        size = (20.0, 24.0, 30.0)[row]
        contour = tmp_path / f"contour{row}.nii.gz"
        write_volume(Volume(_ball(size / 2).to(torch.uint8), GRID, sitk.sitkUInt8), contour)
        grows.readings[visit.name] = Reading(
            "baseline" if row == 0 else "grown", position=PLACE.tolist(), longest_mm=size, short_axis_mm=size - 1.5,
            volume_ml=4.25, longest_line=_line(size, 0), short_line=_line(size - 1.5, 1), contour=str(contour),
            confirmed=Confirmation("measured", size, size - 1.5, "Dr. Meyer", "2026-07-01T10:00:00"),
        )  # fmt: skip
        confirmed = Confirmation("measured", 15.0, 9.0) if row == 0 else Confirmation("disappeared", 0.0, 0.0)
        goes.readings[visit.name] = Reading(
            "gone" if row else "baseline",
            position=[0.0, 0.0, 0.0],
            confirmed=confirmed,
            reason="Nothing is there." * row,
        )
    doubt.readings["visit 0"] = Reading(
        "baseline", position=[0.0, 0.0, 0.0], longest_mm=12.0, short_axis_mm=11.0, longest_error_mm=1.25
    )
    return Course("Jane Doe", "P-7", visits, [grows, goes, doubt])


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are drawn on a page, as they were before being cut to their room."""
    texts: list[str] = []

    def listened(drawing, place: int):
        def draw(*arguments, **options):
            texts.append(arguments[place])
            return drawing(*arguments, **options)

        return draw

    for module in (report_page, course_plots):
        monkeypatch.setattr(module, "draw_text", listened(module.draw_text, 3))
        monkeypatch.setattr(module, "fit_text", listened(module.fit_text, 0))
    return texts


def test_the_page_says_who_when_what_and_which_rule(course: Course, said: list[str]) -> None:
    images = {visit.name: _image(size) for visit, size in zip(course.visits, (10, 12, 15), strict=True)}
    page = report_page.render_report_page(course, images, today=TODAY)
    assert page.shape == (report_page.HEIGHT, report_page.WIDTH, 3) and page.dtype == np.uint8
    for text in ("Jane Doe", "ID P-7", "2026-01-10, CT 2 mm", "2026-05-10, day 120, CT 2 mm", NOTICE):
        assert text in said
    assert "Support for a reading, not a diagnosis." in said
    # 20 + 15 mm, then 24 and 30 alone: SD against 35 mm, then 6 mm and 25 % over the smallest sum.
    for text in ("35.0 mm", "24.0 mm", "30.0 mm", "-31 %", "-14 %", "+25 % (+6.0 mm)", "PR", "PD", "iUPD"):
        assert text in said, text
    assert any(text.startswith("visit 2: PD (progressive disease). The sum grew by 6.0 mm") for text in said)
    assert "visit 1, =cmd: Nothing is there." in said
    assert {"Dr. Meyer", "2026-07-01", "12.0 ± 1.2 mm", "suggested", "grown", "gone", "0 mm"} <= set(said)
    # Two visits of the third lesion, each text once fitted and once drawn.
    assert "image not at hand" not in said and said.count("not read") == 2 * 2


def test_the_page_shows_the_lesion_with_contour_and_diameter(course: Course) -> None:
    images = {visit.name: _image(size) for visit, size in zip(course.visits, (10, 12, 15), strict=True)}
    with_images = report_page.render_report_page(course, images, today=TODAY)
    without = report_page.render_report_page(course, {}, today=TODAY)
    for color in (CONTOUR_COLOR, LONGEST_COLOR):
        seen, plain = ((np.abs(page.astype(int) - color).max(2) < 60).sum() for page in (with_images, without))
        # Three diameters of about seventy pixels and their outlines; the legend's samples are on both pages.
        assert seen > plain + 150, color


def test_a_thumbnail_is_seen_from_the_feet_with_its_diameter_in_place() -> None:
    """Values rise to the patient's left, which is on the right of the picture; the back is below."""
    points = GRID.voxel_centers()
    picture = thumbnail(Volume((points[..., 0] * 4)[None, None], GRID, known_modality="ct"), np.zeros(3), 40.0, 80)
    assert picture[40, 70, 0] > picture[40, 40, 0] > picture[40, 10, 0]
    picture = thumbnail(Volume((points[..., 1] * 4)[None, None], GRID, known_modality="ct"), np.zeros(3), 40.0, 80)
    assert picture[70, 40, 0] > picture[10, 40, 0]
    line = np.array([[-10.0, 5.0, 0.0], [10.0, 5.0, 0.0]])
    drawn = thumbnail(Volume(torch.zeros(1, 1, *GRID.shape), GRID), np.zeros(3), 40.0, 80, longest=line)
    rows, columns = np.nonzero(np.abs(drawn.astype(int) - LONGEST_COLOR).max(2) < 60)
    # 5 mm behind the middle, 10 mm to either side, half a millimeter a pixel.
    assert (
        set(rows) <= {48, 49, 50, 51}
        and columns.min() == pytest.approx(20, abs=1)
        and columns.max() == pytest.approx(59, abs=1)
    )
    # Beyond the image there is nothing.
    assert thumbnail(_image(10), np.array([500.0, 0.0, 0.0]), 40.0, 20).max() == 0


def test_png_and_pdf_appear_together_and_hold_the_page(course: Course, tmp_path: Path) -> None:
    paths = report_page.write_report_page(course, tmp_path, {}, today=TODAY)
    assert [path.name for path in paths] == ["report.png", "report.pdf"]
    with Image.open(paths[0]) as picture:
        page = report_page.render_report_page(course, {}, today=TODAY)
        np.testing.assert_array_equal(np.asarray(picture), page)
    content = paths[1].read_bytes()
    assert content.startswith(b"%PDF") and content.count(b"/Type /Page\n") == 1
    # A4 in points, seventy-twos of an inch.
    assert b"595.44" in content and b"842.04" in content
    with pytest.raises(InputError, match="no visit yet"):
        report_page.write_report_page(Course("Doe"), tmp_path)


def test_what_does_not_fit_is_said(course: Course, said: list[str]) -> None:
    course.visits += [Visit(f"later {n}") for n in range(7)]
    course.lesions += [CourseLesion(f"extra {n}") for n in range(20)]
    report_page.render_report_page(course, {}, today=TODAY)
    assert "4 visits between the first and the last 5 are not shown." in said
    assert any(text.startswith("Not shown for want of room: ") and text.endswith("extra 19.") for text in said)


def test_plots_color_growth_and_decrease(course: Course, said: list[str]) -> None:
    bars = waterfall(course, 400, 300)
    assert bars.shape == (300, 400, 3)
    red, green = ((np.abs(bars - color).max(2) < 6).sum() for color in (GROWTH, DECREASE))
    # +50 % and -100 % of equal width.
    assert green == pytest.approx(2 * red, rel=0.15)
    assert {"+50 %", "-100 %"} <= set(said)
    spider(course, 500, 300)
    assert {"0", "59", "120", course_plots.SUM} <= set(said)
    for visit in course.visits:
        visit.date = None
    spider(course, 500, 300)
    assert {"1", "2", "Change of diameters, % (visits, the first is 0)"} <= set(said)


@pytest.mark.parametrize(("delimiter", "number"), [(",", "18.5"), (";", "18,5")])
def test_the_table_holds_everything_as_a_spreadsheet_reads_it(
    course: Course, tmp_path: Path, delimiter: str, number: str
) -> None:
    course.patient = "Müller; A, B"
    write_course_csv(course, tmp_path / "course.csv", delimiter)
    assert (tmp_path / "course.csv").read_bytes().startswith(b"\xef\xbb\xbfpatient")
    with open(tmp_path / "course.csv", encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter=delimiter))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 9
    first = rows[0]
    assert (first["patient"], first["lesion"], first["visit"]) == ("Müller; A, B", "Segment 1", "visit 0")
    assert (first["short_axis_mm"], first["confirmed"], first["confirmed_by"]) == (number, "measured", "Dr. Meyer")
    assert (rows[2]["recist"], rows[2]["irecist"], rows[2]["since_first_percent"]) == ("PD", "iUPD", "50")
    assert rows[2]["recist_rule"].startswith("The sum grew by 6.0 mm")
    # No spreadsheet runs a name as a formula; what was not read stays empty.
    assert rows[3]["lesion"] == "'=cmd" and rows[4]["counted_mm"] == "0" and rows[8]["state"] == ""
    assert [row["x"] for row in course_rows(course)[:3]] == [10.0] * 3
    with pytest.raises(InputError, match="use one of , ;"):
        write_course_csv(course, tmp_path / "course.csv", "|")
