"""The engine's verdict on a result, as panels and the scene show it."""

import html

from slicer.i18n import tr as _

GOOD, CHECK, DO_NOT_USE = "good", "check", "do not use"
# Background of the banner; gray where nothing was judged, never green.
COLORS = {GOOD: "#78d696", CHECK: "#ffcd50", DO_NOT_USE: "#ff5f50"}
NOT_CHECKED = "#c8c8c8"


def levelLabel(level):
    """A level in the user's language; results of earlier versions were not checked."""
    labels = {GOOD: _("good"), CHECK: _("check"), DO_NOT_USE: _("do not use")}
    return labels.get(level, _("not checked"))


def levelOf(report):
    """The level in an engine's report, "" where it holds none."""
    return (report or {}).get("verdict", {}).get("level", "")


def reasonsOf(report):
    """The reasons of the verdict as one text."""
    return " ".join((report or {}).get("verdict", {}).get("reasons", []))


def sentence(report):
    """Level and reasons, "" where there is no verdict."""
    level = levelOf(report)
    if not level:
        return ""
    return " ".join(filter(None, [_("Verdict: {level}.").format(level=levelLabel(level)), reasonsOf(report)]))


def color(level):
    """Background of a level, "#rrggbb"."""
    return COLORS.get(level, NOT_CHECKED)


def style(level):
    """Style sheet of a label on the color of a level; dark letters, whatever the theme."""
    return f"background-color:{color(level)};color:#141414;padding:6px"


def showBanner(label, report):
    """Show the verdict on a label by color and word; hide it where there is no result."""
    label.visible = bool(report)
    level = levelOf(report)
    label.text = f"<b>{levelLabel(level).upper()}</b> {html.escape(reasonsOf(report))}"
    label.setStyleSheet(style(level))


def markedName(name, level):
    """A node's name that says "do not use" where that is the verdict, and no longer where it is not."""
    mark = _(" (do not use)")
    name = name.removesuffix(mark)
    return name + mark if level == DO_NOT_USE else name
