"""Promises of report.png: readable by a clinician, oriented as radiologists read, true to the transform."""

from __future__ import annotations

import string
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from samconvex.errors import InputError
from samconvex.report import lettering, slices
from samconvex.report import picture as report_picture
from samconvex.report.colors import ERROR_STOPS_MM, error_color
from samconvex.report.panels import FOLDED
from samconvex.report.picture import key_figures, render_report
from samconvex.report.slices import COLUMN, GUTTER, MARGIN
from samconvex.space.field import DisplacementField
from samconvex.space.grid import Grid
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import Volume
from samconvex.synthetic.phantom import make_phantom
from samconvex.synthetic.warps import breathing

LEFT, TOP = MARGIN + 40, 178
REPORT = {
    "preset": "ct-inter-patient",
    "seconds": {"total": 64.2},
    "peak_memory_mib": 2048.0,
    "folding_percent": 0.0,
    "inverse_consistency_mm": {"mean": 0.31},
    "dice": {"initial_mean": 0.4, "final_mean": 0.8, "final": {"1": 0.8}},
    "tre_mm": {"initial": {"mean": 9.0}, "final": {"mean": 1.5}, "n": 30},
}


@pytest.fixture(scope="module")
def breath():
    phantom = make_phantom(0, 8.0)
    warp = breathing(phantom.ct, 25.0)
    result = SimpleNamespace(
        fixed_to_moving=Transform((warp.displacement_field(phantom.ct.grid), AffineTransform.identity())), report=REPORT
    )
    return phantom, warp.warp(phantom.ct), result


@pytest.fixture(scope="module")
def picture(breath):
    phantom, moving, result = breath
    return render_report(phantom.ct, moving, result)


def panel(picture, column, rows=slice(TOP, TOP + 150)):
    x = LEFT + column * (COLUMN + GUTTER)
    return picture[rows, x : x + COLUMN].astype(float)


def test_png_is_written_and_reads_back(breath, tmp_path):
    phantom, moving, result = breath
    path = tmp_path / "report.png"
    bound = Volume(torch.ones(1, 1, *phantom.ct.grid.shape), phantom.ct.grid)
    report_picture.write_report_picture(path, phantom.ct, moving, result, None, phantom.labels, phantom.labels, bound)
    image = sitk.ReadImage(str(path))
    assert image.GetNumberOfComponentsPerPixel() == 3
    assert image.GetSize()[0] > 2000 and image.GetSize()[1] > 700


def test_unknown_ending_is_refused(breath, tmp_path):
    phantom, moving, result = breath
    with pytest.raises(InputError):
        report_picture.write_report_picture(tmp_path / "report.xyz", phantom.ct, moving, result)


def test_registered_overlay_is_grayer_than_the_one_before(picture):
    def color(column):
        pixels = panel(picture, column, slice(TOP, picture.shape[0] - 90))
        return np.abs(pixels[..., 0] - pixels[..., 1]).mean()

    assert color(4) < 0.5 * color(3)


def test_axial_view_has_the_patients_right_at_the_left_and_front_at_the_top():
    grid = Grid((60, 60, 40), (5.0, 5.0, 5.0), (-147.5, -147.5, 0.0))
    points = grid.voxel_centers()
    body = ((points[..., 0] / 130) ** 2 + (points[..., 1] / 110) ** 2) < 1
    values = torch.where(body, 40.0, -1000.0)
    # Bright: the patient's left (+x). Dark but not air: the back (+y).
    values[body & (points[..., 0] > 60)] = 1200.0
    values[body & (points[..., 1] > 60)] = -200.0
    ct = Volume(values.to(torch.int16)[None, None], grid, sitk.sitkInt16)
    result = SimpleNamespace(fixed_to_moving=Transform(()), report={})
    height = round(COLUMN * 236 / 276)
    axial = panel(render_report(ct, ct, result), 1, slice(TOP, TOP + height))[..., 0]
    middle = axial[height // 2 - 10 : height // 2 + 10]
    assert middle[:, 200:230].mean() > 200 > middle[:, 40:70].mean()
    assert axial[30:50, 110:150].mean() > axial[-50:-30, 110:150].mean() + 20


def test_views_keep_physical_proportions():
    # A ball in voxels that are four times as tall as wide: round in every plane.
    grid = Grid((100, 100, 25), (2.0, 2.0, 8.0))
    distance = (grid.voxel_centers() - torch.tensor([100.0, 100.0, 96.0])).norm(dim=-1)
    ct = Volume(torch.where(distance < 80, 40, -1000).to(torch.int16)[None, None], grid, sitk.sitkInt16)
    picture = render_report(ct, ct, SimpleNamespace(fixed_to_moving=Transform(()), report={}))
    cut = slices.slice_of(slices.planes(ct, slices.outlined_body(ct))[1])
    coronal = slices.sampled(ct, cut).numpy() > -400
    assert coronal.any(0).sum() == pytest.approx(coronal.any(1).sum(), rel=0.08)
    assert picture.dtype == np.uint8


def test_deformation_grid_is_straight_without_deformation_and_bent_with_it(breath):
    phantom, moving, result = breath
    straight = SimpleNamespace(
        fixed_to_moving=Transform((AffineTransform(1.1 * np.eye(3), np.array([5.0, 3.0, 2.0])),)), report={}
    )

    def spread(outcome):
        # Rows of the coronal grid panel: a straight horizontal line fills a row, a bent one does not.
        rows = slice(TOP + 230, TOP + 420)
        pixels = panel(render_report(phantom.ct, moving, outcome), 6, rows)
        lines = (pixels[..., 2] - pixels[..., 0]) > 60
        return np.sort(lines.mean(1))[-8:].mean()

    assert spread(straight) > spread(result) + 0.1


def test_image_scanned_elsewhere_is_shown_centered(breath):
    phantom, _, _ = breath
    far = phantom.ct.with_tensor(
        phantom.ct.tensor, Grid(phantom.ct.grid.size, phantom.ct.grid.spacing, (900.0, 900.0, -2000.0))
    )
    shift = np.asarray(far.grid.origin) - np.asarray(phantom.ct.grid.origin)
    result = SimpleNamespace(fixed_to_moving=Transform((AffineTransform(np.eye(3), shift),)), report={})
    picture = render_report(phantom.ct, far, result)
    assert panel(picture, 1).mean() > 0.5 * panel(picture, 0).mean()


def test_colors_go_from_green_to_purple_with_the_expected_error():
    small, middle, large, huge = error_color(np.array([0.5, 5.0, 10.0, 90.0]))
    assert small[1] > 2 * small[0] and min(middle[:2]) > 200 > middle[2]
    assert large[0] > 2 * large[1] and huge[2] > 2 * huge[1]
    assert np.array_equal(huge, error_color(np.array(ERROR_STOPS_MM[-1])))


def test_the_expected_error_is_drawn_in_its_color_inside_the_body(breath):
    phantom, moving, result = breath
    columns = []
    for value in (1.0, 20.0):
        bound = Volume(torch.full((1, 1, *phantom.ct.grid.shape), value), phantom.ct.grid)
        page = render_report(phantom.ct, moving, result, bound=bound)
        columns.append(panel(page, 7))
        # The bar under the column ends in the colors of the least and the largest error.
        bar = page[-58:-40, LEFT + 7 * (COLUMN + GUTTER) :][:, :COLUMN].astype(float)
        for place, end in ((2, 1.0), (-3, 20.0)):
            assert np.abs(bar[:, place] - error_color(np.array(end))).max(1).min() < 12
    green, purple = (column[60:100, 110:150].reshape(-1, 3).mean(0) for column in columns)
    assert green[1] > green[0] + 20 and purple[0] > purple[1] + 20
    air = [column[:4, :20].mean() for column in columns]
    assert air[0] == air[1]
    assert picture_width(render_report(phantom.ct, moving, result)) == picture_width(page) - COLUMN - GUTTER


def picture_width(page):
    return page.shape[1]


def test_key_figures_are_those_of_the_report():
    values = {title: value for title, value, _, _ in key_figures(REPORT)}
    assert values == {
        "Time": "64.2 s",
        "Folded voxels": "0 %",
        "There and back": "0.31 mm",
        "Label overlap (Dice)": "0.80",
        "Landmark error": "1.5 mm",
    }
    assert key_figures({}) == []
    ((title, value, note, _),) = key_figures({"expected_error_mm": {"median": 3.14, "p90": 6.0, "max": 21.7}})
    assert (title, value, note) == ("Expected error", "3.1 mm", "median; worst 22 mm")
    assert key_figures({"folding_percent": 0.0003})[0][1] == "0.0003 %"


def test_folding_is_shown_in_magenta(breath):
    phantom, moving, _ = breath
    field = DisplacementField.zeros(phantom.ct.grid.canonical(8.0))
    x = field.tensor.shape[-1] // 2
    field.tensor[:, 0, :, :, x - 1] = 14.0
    field.tensor[:, 0, :, :, x + 1] = -14.0
    result = SimpleNamespace(fixed_to_moving=Transform((field,)), report={})
    pixels = panel(render_report(phantom.ct, moving, result), 6)
    assert (np.abs(pixels - FOLDED).max(-1) < 20).any()


def test_every_letter_can_be_told_from_every_other():
    masks = {}
    for character in string.ascii_letters + string.digits + ".,:;-+/%()=<>_'\"#·°±|&*![]?~@":
        canvas = np.zeros((40, 40, 3), np.float32)
        lettering.draw_text(canvas, 8, 30, character, 18.0, (255, 255, 255))
        masks[character] = canvas[..., 0] / 255
        assert masks[character].sum() > 3
    names = list(masks)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            # This font's capital I and small l differ by their height alone.
            assert np.abs(masks[one] - masks[other]).sum() > (1 if {one, other} == {"I", "l"} else 4), (one, other)


def test_letters_that_the_font_lacks_are_spelled():
    assert lettering.spelled("Schädel 1 × 2 µm³ – Łódź.nii → é") == "Schadel 1 x 2 um3 - Lodz.nii -> e"
    assert lettering.text_width("größe", 10) == lettering.text_width("grosse", 10)


def test_capitals_are_as_high_as_asked_and_stand_on_the_baseline():
    canvas = np.zeros((60, 60, 3), np.float32)
    end = lettering.draw_text(canvas, 5, 50, "H", 28.0, (255, 255, 255))
    rows, columns = np.nonzero(canvas[..., 0] > 128)
    assert (rows.min(), rows.max()) == (22, 49)
    assert columns.min() >= 5 and columns.max() < end


def test_long_names_are_shortened_to_the_room_there_is():
    short = lettering.fit_text("a-very-long-file-name-of-a-study.nii.gz", 10, 120)
    assert lettering.text_width(short, 10) <= 120
    assert short.endswith(".gz") and "..." in short


@pytest.mark.parametrize("level", report_picture.VERDICT_COLORS)
def test_the_verdict_stands_at_the_top_in_its_color(breath, picture, level):
    phantom, moving, result = breath
    judged = {"level": level, "reasons": ["Bones do not lie on each other."]}
    told = SimpleNamespace(fixed_to_moving=result.fixed_to_moving, report=REPORT | {"verdict": judged})
    page = render_report(phantom.ct, moving, told)
    banner = page[: report_picture.BANNER]
    assert np.array_equal(page[report_picture.BANNER :], picture)
    assert tuple(banner[2, 2]) == report_picture.VERDICT_COLORS[level]
    dark = (banner.max(2) < 60).sum(0) > 0
    assert dark[MARGIN : MARGIN + 40].any() and dark[MARGIN + 240 : MARGIN + 500].any(), "word and reason"
