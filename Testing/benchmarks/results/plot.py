"""Draw a suite's document: ``python plot.py SUITE.json TARGET.png``; the target's name says which of its pictures.

Needs matplotlib, so it runs in the peers' environment; imports nothing of samconvex.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

PANELS = (
    ("head-neck", "Dice", "mean Dice of organs"),
    ("abdomen", "Dice", "mean Dice of organs"),
    ("phantom", "Dice", "mean Dice of organs"),
    ("lung", "TRE mm mean", "mean landmark error, mm"),
    ("known warp", "known-warp error mm mean", "mean error, mm"),
)


# What readers of a picture call the methods; tables keep the names that the command takes.
READABLE = {
    "samconvex": "SAMConvex",
    "samconvex-own": "SAMConvex with its own start",
    "samconvex-fast-preview": "SAMConvex, fast preview",
    "samconvex-fast-preview-own": "SAMConvex, fast preview with its own start",
    "convexadam": "ConvexAdam",
    "start": "no registration",
}


def main(source: str, target: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with open(source) as file:
        document = json.load(file)
    figure = DRAWINGS[Path(target).stem](document, pyplot)
    if figure is None:
        return
    if figure.get_layout_engine() is None:
        figure.tight_layout()
    figure.savefig(target, dpi=110)


def registration(document: dict, pyplot):
    """Accuracy against time, a panel per group."""
    rows = document["summary"]
    panels = [panel for panel in PANELS if any(row["group"] == panel[0] and panel[1] in row for row in rows)]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 4.2), squeeze=False)
    for axis, (group, figure_of_merit, label) in zip(axes[0], panels, strict=True):
        members = [row for row in rows if row["group"] == group and figure_of_merit in row]
        for row in members:
            if "seconds" not in row:
                axis.axhline(row[figure_of_merit], color="0.7", linestyle="--", linewidth=1)
                axis.text(
                    0.02,
                    row[figure_of_merit],
                    readable(row["method"]),
                    color="0.4",
                    fontsize=8,
                    va="bottom",
                    transform=axis.get_yaxis_transform(),
                )
                continue
            ours = row["method"].startswith("samconvex")
            axis.scatter(row["seconds"], row[figure_of_merit], s=60, color="tab:red" if ours else "tab:blue", zorder=3)
            axis.annotate(
                readable(row["method"]),
                (row["seconds"], row[figure_of_merit]),
                textcoords="offset points",
                xytext=(6, 5),
                fontsize=8,
            )
        axis.set_xscale("log")
        axis.set_title(f"{group} ({max(row['pairs'] for row in members)} pairs)", fontsize=10)
        axis.set_xlabel("seconds (registration alone)")
        axis.set_ylabel(label)
        axis.margins(x=0.25)
        axis.grid(alpha=0.3)
    return figure


# Of methods that have no color of their own.
_FURTHER_COLORS = ("tab:cyan", "tab:olive", "tab:purple", "tab:brown", "gold", "navy", "0.45")


def organs(document: dict, pyplot):
    """Dice per organ, a box over the pairs for every method, a panel per group of pairs; None where no organ is named.

    As in Fig. 2 and 5 of SAMConvex (Li et al., 2023).
    """
    names = document.get("organs", {})
    panels = {group: found for group in names if (found := organ_dice(document["records"], group))}
    if not panels:
        return None
    figure, axes = pyplot.subplots(len(panels), 1, figsize=(13, 4.4 * len(panels)), squeeze=False, layout="constrained")
    for axis, (group, by_method) in zip(axes[:, 0], panels.items(), strict=True):
        labels = sorted({label for found in by_method.values() for label in found}, key=int)
        free = iter(_FURTHER_COLORS * len(by_method))
        width = 0.84 / len(by_method)
        for number, (method, found) in enumerate(by_method.items()):
            offset = (number - (len(by_method) - 1) / 2) * width
            places = [place + offset for place in range(len(labels))]
            color = "0.75" if method == "start" else _style(method).get("color") or next(free)
            _boxes(axis, [found.get(label, []) for label in labels], places, 0.85 * width, color)
            axis.bar([0], [0], color=color, label=readable(method))
        readable_labels = [textwrap.fill(names[group].get(label, label), 12) for label in labels]
        axis.set_xticks(range(len(labels)), readable_labels, fontsize=9)
        axis.set_xlim(-0.55, len(labels) - 0.45)
        axis.set_ylim(0, 1)
        axis.set_ylabel("Dice")
        pairs = {record["pair"] for record in document["records"] if record["group"] == group}
        axis.set_title(f"{group} ({len(pairs)} pairs)", fontsize=10)
        axis.grid(axis="y", alpha=0.3)
        axis.legend(fontsize=8, ncols=min(len(by_method), 6), loc="upper center", bbox_to_anchor=(0.5, -0.13))
    return figure


def _boxes(axis, numbers: list, places: list, width: float, color: str) -> None:
    """A method's boxes, one per organ: quartiles and median; whiskers to 1.5 of the box, points beyond."""
    axis.boxplot(
        numbers,
        positions=places,
        widths=width,
        patch_artist=True,
        boxprops={"facecolor": color, "linewidth": 0.6},
        medianprops={"color": "black", "linewidth": 1.2},
        whiskerprops={"linewidth": 0.6},
        capprops={"linewidth": 0.6},
        flierprops={"marker": ".", "markersize": 3, "markerfacecolor": color, "markeredgecolor": color},
    )


def organ_dice(records: list, group: str) -> dict:
    """Method -> label -> Dice of every pair that shows the organ in both images; methods in the records' order."""
    found: dict = {}
    for record in records:
        if record["group"] == group and "failed" not in record:
            for label, dice in record.get("dice", {}).items():
                found.setdefault(record["method"], {}).setdefault(label, []).append(dice)
    return found


def robustness(document: dict, pyplot):
    """Share of runs that keep their result against the size of the disturbance; None for a single disturbance."""
    rows = document["summary"]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    if len(groups) < 2:
        return None
    figure, axis = pyplot.subplots(figsize=(6, 4.2))
    for method in dict.fromkeys(row["method"] for row in rows):
        members = [row for row in rows if row["method"] == method]
        places = [groups.index(row["group"]) for row in members]
        axis.plot(places, [100 * row["kept"] for row in members], marker="o", label=readable(method), **_style(method))
    axis.set_xticks(range(len(groups)), groups)
    axis.set_xlabel("disturbance of the start")
    axis.set_ylabel("within 2 Dice points of undisturbed, %")
    axis.set_ylim(-4, 104)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


# The size by itself, finer voxels, larger fields of view.
_LINES = ((" ", "*"), ("-", "o"), ("--", "s"))


def scaling(document: dict, pyplot):
    """Seconds and memory against voxels, for every series."""
    records = [record for record in document["records"] if "failed" not in record]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 5), layout="constrained")
    for (group, (line, marker)), (axis, key, scale, label) in (
        (series, panel)
        for series in zip(sorted({record["group"] for record in records}), _LINES, strict=False)
        for panel in ((axes[0], "seconds", 1, "seconds"), (axes[1], "peak_memory_mib", 1024, "peak memory, GiB"))
    ):
        for method in dict.fromkeys(record["method"] for record in records):
            members = [record for record in records if record["method"] == method and record["group"] == group]
            members = sorted((record["voxels"] / 1e6, record[key] / scale) for record in members)
            axis.plot(*zip(*members, strict=True), marker=marker, linestyle=line, **_style(method))
        axis.set_xlabel("voxels of the fixed image, millions")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    _scaling_legend(figure, records)
    return figure


def _scaling_legend(figure, records):
    """Colors are methods, lines are series: each is said once, beside the panels instead of over the curves."""
    from matplotlib.lines import Line2D

    methods = list(dict.fromkeys(record["method"] for record in records))
    colors = [Line2D([], [], linewidth=3, label=readable(method), **_style(method)) for method in methods]
    series = zip(sorted({record["group"] for record in records}), _LINES, strict=False)
    lines = [
        Line2D([], [], color="0.4", linestyle=line, marker=marker, label=group) for group, (line, marker) in series
    ]
    figure.legend(handles=[*colors, *lines], loc="outside lower center", ncol=2, fontsize=9, frameon=False)


def landscapes(document: dict, pyplot):
    """Each feature's loss as a share of its largest value, under shifts and turns."""
    records = document["landscapes"]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2))
    for axis, kind, label in ((axes[0], "shift", "shift, mm"), (axes[1], "turn", "turn, degrees")):
        members = [record for record in records if record["kind"] == kind]
        amounts = sorted({record["amount"] for record in members})
        for feature in members[0]["loss"] if members else ():
            means = [_mean([r["loss"][feature] for r in members if r["amount"] == amount]) for amount in amounts]
            top = max(means) or 1.0
            axis.plot([0, *amounts], [0, *(value / top for value in means)], marker=".", label=feature)
        axis.set_xlabel(label)
        axis.set_ylabel("loss, share of its largest value")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def surfaces(document: dict, pyplot):
    """Each feature's loss over two rotations, as a share of its largest value; the cross is no rotation."""
    degrees, axes_named = document["degrees"], document["axes"]
    found = document["surfaces"]
    figure, axes = pyplot.subplots(1, len(found), figsize=(3.4 * len(found) + 1, 3.6), layout="constrained")
    for axis, (feature, surface) in zip(axes, found.items(), strict=True):
        top = max(max(row) for row in surface) or 1.0
        shares = [[value / top for value in row] for row in surface]
        drawn = axis.contourf(degrees, degrees, shares, levels=[n / 20 for n in range(21)], cmap="viridis")
        axis.contour(degrees, degrees, shares, levels=[n / 10 for n in range(1, 10)], colors="white", linewidths=0.5)
        axis.plot(0, 0, marker="+", color="white", markersize=9)
        axis.set_title(feature, fontsize=10)
        axis.set_xlabel(f"about {axes_named[1]}, degrees")
        axis.set_ylabel(f"about {axes_named[0]}, degrees")
        axis.set_aspect("equal")
    figure.colorbar(drawn, ax=axes, label="loss, share of its largest value")
    return figure


def readable(method: str) -> str:
    """A method's name for readers."""
    return READABLE.get(method, method)


def _mean(numbers: list) -> float:
    return sum(numbers) / len(numbers)


def _style(method: str) -> dict:
    shades = {
        "samconvex": "tab:red",
        "samconvex-own": "tab:orange",
        "samconvex-fast-preview": "tab:pink",
        "samconvex-fast-preview-own": "tab:green",
        "convexadam": "tab:blue",
    }
    return {"color": shades[method]} if method in shades else {}


DRAWINGS = {
    "registration": registration,
    "registration-organs": organs,
    "robustness": robustness,
    "scaling": scaling,
    "landscapes": landscapes,
    "surfaces": surfaces,
}


if __name__ == "__main__":
    main(*sys.argv[1:3])
