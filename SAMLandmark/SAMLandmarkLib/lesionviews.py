"""What the views show of a course: the selected lesion in its own image, alone or beside the baseline. No Qt."""

import numpy as np
from slicer.i18n import tr as _

from .course import CONTOURS, MARKED, POINTS, VOLUME, courseOf, nodeOf, placeOf
from .measurelines import MeasureLines
from .ownviews import OwnViews
from .views import SideBySide, showPlace, showVolume


class LesionViews:
    """Shows a lesion at a time point, and of points, contours and lines only those of the images that are shown.

    Args:
        onDragged: see MeasureLines.
    """

    def __init__(self, onDragged):
        self.lines = MeasureLines(onDragged)
        self._own = OwnViews(self._belonging)
        self._beside = None
        self._table = self._visit = None

    @property
    def isSideBySide(self):
        return self._beside is not None

    def show(self, table, lesion, visit):
        """Go to a lesion at a time point; returns a sentence on why the views stay, or "".

        Args:
            lesion, visit: of the table's course.
        """
        self._table, self._visit = table, visit
        volume, reading = nodeOf(table, visit, VOLUME), lesion.readings.get(visit.name)
        if volume is None:
            self.lines.hide()
            return _("The views stay: the image of '{visit}' is not in the scene.").format(visit=visit.name)
        place = _shownPlace(table, visit, reading)
        if self._beside is not None:
            self._showBeside(lesion, volume, place)
        elif place is None:
            showVolume(volume)
        else:
            showPlace(volume, place)
        self.lines.show(table, visit, reading)
        self._own.follow()
        return ""

    def showPosition(self, table, visit, position):
        """Go to a point (3,) LPS mm of a time point's image; returns a sentence on why the views stay, or ""."""
        self._table, self._visit = table, visit
        volume = nodeOf(table, visit, VOLUME)
        self.lines.hide()
        if volume is None:
            return _("The views stay: the image of '{visit}' is not in the scene.").format(visit=visit.name)
        place = placeOf(table, visit, position)
        if self._beside is not None:
            self._pair(volume)
            self._beside.jump(self._beside.opposite(place, toQuery=False), place)
        else:
            showPlace(volume, place)
        self._own.follow()
        return ""

    def setSideBySide(self, on, table=None, lesion=None, visit=None):
        """Baseline left and the time point right, moving together; off: as before. Returns a sentence or ""."""
        if not on:
            if self._beside is not None:
                self._beside.leave()
                self._beside = None
            return "" if lesion is None else self.show(table, lesion, visit)
        first = courseOf(table).visits[0]
        volumes = nodeOf(table, first, VOLUME), nodeOf(table, visit, VOLUME)
        if None in volumes:
            missing = first.name if volumes[0] is None else visit.name
            return _("The views stay: the image of '{visit}' is not in the scene.").format(visit=missing)
        if self._beside is None:
            self._beside = SideBySide(*volumes).enter()
        return self.show(table, lesion, visit)

    def update(self):
        """Nodes were added or removed."""
        if self._table is not None:
            self._own.update()

    def leave(self):
        """The views, and everything in them, as the user had them."""
        self.setSideBySide(False)
        self.lines.hide()
        self.lines.forget()
        self._own.release()
        self._table = self._visit = None

    def forget(self):
        """The scene goes: nothing of it is touched any more."""
        self.lines.forget()

    def _pair(self, volume):
        """The baseline and a later image in the two views, linked by the lesions that both show."""
        course, table = courseOf(self._table), self._table
        first = course.visits[0]
        pairs = []
        for entry in course.lesions:
            both = [entry.readings.get(visit.name) for visit in (first, self._visit)]
            if all(reading is not None and reading.position is not None for reading in both):
                pairs.append(
                    tuple(
                        placeOf(table, visit, reading.position)
                        for visit, reading in zip((first, self._visit), both, strict=True)
                    )
                )
        self._beside.setVolumes(nodeOf(table, first, VOLUME), volume, pairs)

    def _showBeside(self, lesion, volume, place):
        self._pair(volume)
        table, first = self._table, courseOf(self._table).visits[0]
        start = _shownPlace(table, first, lesion.readings.get(first.name))
        if start is not None:
            self._beside.jump(start, place)
        elif place is not None:
            self._beside.jump(self._beside.opposite(place, toQuery=False), place)

    def _belonging(self):
        """(node, volume) of everything that lies in an image of the course, the selected time point's first."""
        course = courseOf(self._table) if self._table is not None and self._table.GetScene() is not None else None
        if course is None:
            return []
        selected = [visit for visit in course.visits if visit.name == getattr(self._visit, "name", "")]
        pairs = []
        for visit in [*selected, *(visit for visit in course.visits if visit not in selected)]:
            volume = nodeOf(self._table, visit, VOLUME)
            found = [nodeOf(self._table, visit, kind) for kind in (CONTOURS, POINTS, MARKED)]
            found += self.lines.drawn() if visit in selected else []
            pairs += [(node, volume) for node in found]
        return pairs


def _shownPlace(table, visit, reading):
    """World point that the views go to: where the longest diameter was measured, else the lesion's place; or None."""
    if reading is None:
        return None
    if reading.longest_line is not None:
        return np.mean([placeOf(table, visit, point) for point in reading.longest_line], 0)
    return None if reading.position is None else placeOf(table, visit, reading.position)
