"""Lines of a results page: groups of pairs, and what made them."""

from __future__ import annotations

from ..data.pairs import REPOSITORY
from . import tables

PICTURES = REPOSITORY / "Resources" / "Screenshots"


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
