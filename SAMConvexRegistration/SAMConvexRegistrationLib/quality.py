"""The engine's report for the user: names instead of paths and label values, the table of figures."""

import json

from SAMConvexLib import verdicts
from SAMConvexLib.tables import fillTextTable, formatted
from slicer.i18n import tr as _

REPORT_ATTRIBUTE = "SAMConvex.Report"


def namedReport(report, run, request):
    """The engine's report with node and segment names instead of temporary paths and label values."""
    report = json.loads(json.dumps(report))
    for side, node in (("fixed", request.fixedVolume), ("moving", request.movingVolume)):
        entry = report.get("inputs", {}).get(side)
        if isinstance(entry, dict):
            entry["path"] = node.GetName()
    for moment in ("initial", "final"):
        values = report.get("dice", {}).get(moment)
        if isinstance(values, dict):
            report["dice"][moment] = {
                run.labelNames.get(int(label), str(label)): value for label, value in values.items()
            }
    for body in report.get("protected", {}).get("bodies", []):
        body["label"] = run.protectedNames.get(body["label"], str(body["label"]))
    warnings = []
    for warning in report.get("warnings", []):
        for path, name in run.names.items():
            warning = warning.replace(str(path), f"'{name}'")
        warnings.append(warning)
    return report | {"warnings": warnings}


def reportOf(node):
    """The report stored with a result node, or an empty dictionary."""
    try:
        return json.loads(node.GetAttribute(REPORT_ATTRIBUTE) or "{}")
    except ValueError:
        return {}


def isResult(node):
    """True for a node that a registration filled."""
    return node.GetAttribute(REPORT_ATTRIBUTE) is not None


def figures(report):
    """The figures of a report that fit into one line of a list."""
    report = report or {}
    expected, dice = report.get("expected_error_mm", {}), report.get("dice", {})
    error = report.get("tre_mm", {}).get("final", {})
    parts = []
    if "median" in expected:
        parts.append(_("expected error {value} mm").format(value=formatted(expected["median"])))
    if "mean" in error:
        parts.append(_("landmark error {value} mm").format(value=formatted(error["mean"])))
    if "final_mean" in dice:
        parts.append(_("overlap (Dice) {value}").format(value=formatted(dice["final_mean"])))
    if "folding_percent" in report:
        parts.append(_("folded {value} %").format(value=formatted(report["folding_percent"])))
    return ", ".join(parts)


def tableRows(report):
    """(quantity, before, after, unit) rows of the quality table; absent values are empty strings."""
    rows = []
    if verdicts.levelOf(report):
        rows.append((_("Verdict"), None, verdicts.levelLabel(verdicts.levelOf(report)), ""))
    dice = report.get("dice", {})
    if "final_mean" in dice:
        rows.append((_("Dice, mean"), dice.get("initial_mean"), dice["final_mean"], ""))
    for name, value in dice.get("final", {}).items():
        rows.append((_("Dice, {structure}").format(structure=name), dice.get("initial", {}).get(name), value, ""))
    error = report.get("tre_mm", {})
    for key, label in (("mean", _("Landmark error, mean")), ("p95", _("Landmark error, 95th percentile"))):
        if key in error.get("final", {}):
            rows.append((label, error.get("initial", {}).get(key), error["final"][key], "mm"))
    expected = report.get("expected_error_mm", {})
    for key, label in (
        ("median", _("Expected error (nine of ten are below), half of the body")),
        ("p90", _("Expected error, nine tenths of the body")),
        ("max", _("Expected error, least certain place")),
    ):
        if key in expected:
            rows.append((label, None, expected[key], "mm"))
    if "folding_percent" in report:
        rows.append((_("Folded volume"), None, report["folding_percent"], "%"))
    if "overlap_percent" in report:
        rows.append((_("Body seen in both images"), None, report["overlap_percent"], "%"))
    bodies = report.get("protected", {}).get("bodies", [])
    for body in bodies:
        title = _("Protected {structure}, deformation taken out").format(structure=body["label"])
        rows.append((title, None, body["deformation_removed_mm"], "mm"))
    if bodies and report["protected"]["mode"] == "rigid":
        rows.append((_("Protected, largest remaining"), None, max(body["residual_mm"] for body in bodies), "mm"))
    elif bodies:
        change = max((body["volume_change_percent"] for body in bodies), key=abs)
        rows.append((_("Protected, largest volume change"), None, change, "%"))
    if "sdlogj" in report:
        rows.append(
            (
                _("Smoothness (usual: 0.1 within one patient to 0.4 between two; more is rougher)"),
                None,
                report["sdlogj"],
                "",
            )
        )
    consistency = report.get("inverse_consistency_mm", {})
    if "mean" in consistency:
        rows.append((_("There-and-back error, mean"), None, consistency["mean"], "mm"))
        rows.append((_("There-and-back error, 95th percentile"), None, consistency.get("p95"), "mm"))
    if "total" in report.get("seconds", {}):
        rows.append((_("Computing time"), None, report["seconds"]["total"], "s"))
    if "peak_memory_mib" in report:
        rows.append((_("Peak memory"), None, report["peak_memory_mib"], "MiB"))
    return [tuple("" if value is None else value for value in row) for row in rows]


def titles():
    """Column titles of the quality table."""
    return [_("Quantity"), _("Before"), _("After"), _("Unit")]


def tableTexts(report):
    """The cells of the quality table as texts."""
    return [(name, formatted(before), formatted(after), unit) for name, before, after, unit in tableRows(report)]


def fillTable(tableNode, report):
    """Quality figures as a table node that is saved with the scene."""
    fillTextTable(tableNode, titles(), tableTexts(report))
