"""Statistics and the results page tell what the records hold."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from benchmarks import publish
from benchmarks.results import tables
from benchmarks.results.paired import interval, wilcoxon
from benchmarks.results.records import commands_of, remember_command
from benchmarks.suites.registration import write_results


def record(pair: str, method: str, dice: float | None = None, **further) -> dict:
    figure = {} if dice is None else {"dice_mean": dice}
    return {"pair": pair, "group": "head-neck", "method": method, **figure, **further}


RECORDS = [
    record("a", "start", 0.40),
    record("a", "samconvex", 0.70, seconds=2.0, version="ours 1"),
    record("a", "greedy", 0.60, seconds=4.0),
    record("a", "convexadam", 0.65, seconds=8.0),
    record("b", "start", 0.30),
    record("b", "samconvex", 0.50, seconds=4.0, version="ours 1"),
    record("b", "greedy", 0.20, seconds=4.0),
    record("b", "convexadam", 0.52, seconds=8.0),
    record("c", "start", 0.50),
    record("c", "samconvex", 0.60, seconds=2.0, version="ours 2"),
    record("c", "greedy", failed="crashed"),
    record("c", "convexadam", 0.55, seconds=20.0),
]


def row(rows: list[dict], method: str) -> dict:
    return next(row for row in rows if row["method"] == method)


def test_the_signed_rank_test_agrees_with_its_published_table():
    # Two-sided 5 % points: the largest smaller rank sum that is significant is 8 of 10 pairs, 52 of 20.
    for count, critical in ((10, 8), (20, 52)):
        ranks = np.arange(1.0, count + 1)
        for total, significant in ((critical, True), (critical + 1, False)):
            signs = np.ones(count)
            left = total
            for rank in range(count, 0, -1):
                if rank <= left:
                    signs[rank - 1], left = -1, left - rank
            assert left == 0 and (wilcoxon(signs * ranks) < 0.05) == significant


def test_the_signed_rank_test_counts_every_assignment_of_signs_where_ranks_are_tied():
    differences = np.array([1, 1, -1, 2, 3, 3, 0, -2.5])
    ranks = np.array([2, 2, 2, 4, 6.5, 6.5, 5])
    observed = ranks[[0, 1, 3, 4, 5]].sum()
    sums = [sum(chosen) for chosen in itertools.product(*((0, rank) for rank in ranks))]
    tail = min(np.mean([s <= observed for s in sums]), np.mean([s >= observed for s in sums]))
    assert wilcoxon(differences) == pytest.approx(2 * tail)


def test_twenty_wins_are_not_chance_and_no_difference_is():
    assert wilcoxon(np.linspace(0.01, 0.2, 20)) == pytest.approx(2 / 2**20)
    assert wilcoxon([0.0, 0.0]) == 1.0 and wilcoxon([1.0, -1.0]) == 1.0


def test_spread_worst_pair_and_pairs_below_the_start():
    rows = tables.summarize(RECORDS)
    ours, greedy = row(rows, "samconvex"), row(rows, "greedy")
    assert ours["SD"] == pytest.approx(0.1) and ours["worst"] == 0.5 and ours["worse than start"] == 0
    assert greedy["worse than start"] == 1 and greedy["failed"] == 1 and greedy["worst"] == 0.2
    assert "worse than start" not in row(rows, "start")
    assert ours[tables.FASTER] == 4.0 and tables.FASTER not in row(rows, "convexadam")


def test_of_distances_the_largest_is_the_worst():
    records = [
        {"pair": str(n), "group": "lung", "method": method, "tre_mm": {"mean": value}}
        for method, values in (("start", (3.0, 3.0)), ("m", (1.0, 4.0)))
        for n, value in enumerate(values)
    ]
    found = row(tables.summarize(records), "m")
    assert found["worst"] == 4.0 and found["worse than start"] == 1


def test_ours_is_compared_on_the_pairs_that_both_finished():
    rows = tables.compare(RECORDS)
    greedy, convexadam = row(rows, "greedy"), row(rows, "convexadam")
    assert (greedy["pairs"], greedy["better"], greedy["difference"]) == (2, 2, pytest.approx(0.2))
    assert (convexadam["pairs"], convexadam["better"]) == (3, 2)
    assert convexadam["p"] == pytest.approx(wilcoxon([0.05, -0.02, 0.05]))


def results(folder) -> None:
    words = ["--pairs", "3", "--output", "/x/y", "--resume", "--starts", "/z/s"]
    remember_command(folder, "registration", words)
    remember_command(folder, "registration", ["--pairs", "3", "--starts", "/q/s"])
    document = {"machine": "Machine: one.", "records": RECORDS, "commands": commands_of(folder)}
    (folder / "registration.json").write_text(json.dumps(document))
    (folder / "registration.png").write_bytes(b"picture")
    (folder / "registration-organs.png").write_bytes(b"organs")
    (folder / "landmarks.md").write_text("# Landmarks\n\n## lung\n")


def test_the_page_is_made_from_the_records_alone(tmp_path):
    results(tmp_path)
    page = tmp_path / "RESULTS.md"
    (tmp_path / "RESULTS-multimodal.md").write_text("")
    assert publish.publish(tmp_path, page, tmp_path / "pictures")
    text = page.read_text(encoding="utf-8")
    assert "Machine: one." in text and "samconvex: ours 1, ours 2" in text
    assert "    samconvex benchmark --pairs 3 --starts s\n" in text and text.count("--pairs 3") == 1
    assert "| samconvex | 3 | 0 | 0.600 | 0.100 | 0.500 | 0 |" in text
    assert "| greedy | +0.200 | 2 of 2 | 0.500 |" in text
    assert "| Dice | start | samconvex | greedy | convexadam |" in text and "| c | 0.500 | 0.600 |  | 0.550 |" in text
    assert "- c, greedy: crashed" in text and "## Landmarks" in text and "### lung" in text
    assert (tmp_path / "pictures" / "benchmark-registration.png").read_bytes() == b"picture"
    assert (tmp_path / "pictures" / "benchmark-registration-organs.png").read_bytes() == b"organs"
    assert text.index("benchmark-registration.png") < text.index("benchmark-registration-organs.png")
    assert "](RESULTS-multimodal.md)" in text
    publish.publish(tmp_path, page, tmp_path / "pictures")
    assert page.read_text(encoding="utf-8") == text and str(tmp_path) not in text


def test_too_large_a_picture_is_not_published(tmp_path):
    results(tmp_path)
    for name in ("registration", "registration-organs"):
        (tmp_path / f"{name}.png").write_bytes(b"x" * (publish.LARGEST_PICTURE + 1))
    assert publish.publish(tmp_path, tmp_path / "RESULTS.md", tmp_path / "pictures")
    assert "![" not in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")


def test_nothing_is_written_where_there_are_no_results(tmp_path, capsys):
    assert publish.main(["--output", str(tmp_path)]) == 1
    assert "no results" in capsys.readouterr().out
    assert not publish.publish(tmp_path, tmp_path / "RESULTS.md") and not (tmp_path / "RESULTS.md").exists()


def test_a_single_disturbance_is_no_curve_and_methods_have_readable_names() -> None:
    from benchmarks.results import plot

    row = {"group": "30 degrees", "method": "samconvex-own", "kept": 1.0}
    assert plot.robustness({"summary": [row, row | {"method": "start"}]}, None) is None
    assert plot.readable("samconvex-own") == "SAMConvex with its own start" and plot.readable("ants") == "ants"


ORGANS = {
    "organs": {"head-neck": {"1": "brainstem", "7": "mandible"}, "abdomen": {"6": "liver"}},
    "records": [
        record("a", "start") | {"dice": {"1": 0.2, "7": 0.1}},
        record("b", "start") | {"dice": {"1": 0.4}},
        record("a", "samconvex") | {"dice": {"1": 0.7, "7": 0.8}},
        record("b", "samconvex", failed="crashed"),
        record("c", "start") | {"dice": {"6": 0.5}} | {"group": "lung"},
    ],
}


def test_a_box_holds_the_pairs_that_show_the_organ_and_that_finished():
    from benchmarks.results import plot

    found = plot.organ_dice(ORGANS["records"], "head-neck")
    assert found == {"start": {"1": [0.2, 0.4], "7": [0.1]}, "samconvex": {"1": [0.7], "7": [0.8]}}
    assert plot.organ_dice(ORGANS["records"], "abdomen") == {}
    assert plot.organs({"records": ORGANS["records"]}, None) is None


def test_every_organ_has_a_box_of_every_method_beside_the_others(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from benchmarks.results import plot
    from matplotlib import pyplot

    (axis,) = plot.organs(ORGANS, pyplot).axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["brainstem", "mandible"]
    assert axis.get_title() == "head-neck (2 pairs)"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["no registration", "SAMConvex"]
    medians = [line.get_ydata()[0] for line in axis.lines if line.get_linewidth() == 1.2]
    assert medians == pytest.approx([0.3, 0.1, 0.7, 0.8])
    pyplot.close("all")
    # From a finished run's record to the picture, with the names that the benchmark writes.
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "start.json").write_text(json.dumps(ORGANS["records"][0]))
    assert write_results(tmp_path)["organs"]["abdomen"]["10"] == "portal and splenic vein"
    plot.main(str(tmp_path / "registration.json"), str(tmp_path / "registration-organs.png"))
    assert (tmp_path / "registration-organs.png").stat().st_size < publish.LARGEST_PICTURE
    pyplot.close("all")


def test_an_interval_of_a_mean_is_that_of_the_normal_law_where_pairs_are_many():
    values = np.random.default_rng(3).normal(0.4, 2.0, 400)
    low, high = interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert interval([0.3]) == pytest.approx((0.3, 0.3))
