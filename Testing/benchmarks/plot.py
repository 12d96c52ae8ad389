"""Draw accuracy against time from ``registration.json``: ``python plot.py registration.json registration.png``.

Needs matplotlib, so it runs in the peers' environment; imports nothing of samconvex.
"""

from __future__ import annotations

import json
import sys

PANELS = (
    ("head-neck", "Dice", "mean Dice of organs"),
    ("phantom", "Dice", "mean Dice of organs"),
    ("lung", "TRE mm mean", "mean landmark error, mm"),
    ("known warp", "known-warp error mm mean", "mean error, mm"),
)


def main(source: str, target: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with open(source) as file:
        document = json.load(file)
    rows = document["summary"]
    panels = [panel for panel in PANELS if any(row["group"] == panel[0] and panel[1] in row for row in rows)]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 4.2), squeeze=False)
    for axis, (group, figure_of_merit, label) in zip(axes[0], panels, strict=True):
        members = [row for row in rows if row["group"] == group and figure_of_merit in row]
        for row in members:
            if "seconds" not in row:
                axis.axhline(row[figure_of_merit], color="0.7", linestyle="--", linewidth=1)
                axis.text(0.02, row[figure_of_merit], row["method"], color="0.4", fontsize=8, va="bottom",
                          transform=axis.get_yaxis_transform())
                continue
            ours = row["method"].startswith("samconvex")
            axis.scatter(row["seconds"], row[figure_of_merit], s=60, color="tab:red" if ours else "tab:blue", zorder=3)
            axis.annotate(row["method"], (row["seconds"], row[figure_of_merit]), textcoords="offset points",
                          xytext=(6, 5), fontsize=8)
        axis.set_xscale("log")
        axis.set_title(f"{group} ({max(row['pairs'] for row in members)} pairs)", fontsize=10)
        axis.set_xlabel("seconds (registration alone)")
        axis.set_ylabel(label)
        axis.margins(x=0.25)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:3])
