"""One matching run: templates and query volumes out as files, the engine's answers back into markups."""

import csv
import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from SAMConvexLib import nodes
from SAMConvexLib.files import PreparedRun, writeImage
from slicer.i18n import tr as _

from . import results

VOLUME_ROLE = "SAMLandmark.Volume"
TEMPLATE_FOLDER_ATTRIBUTE = "SAMLandmark.TemplateFolder"
VOTES_ATTRIBUTE = "SAMLandmark.UseAsTemplate"
# Voxels that a point keeps from the border of its image, as its place is rounded on the way to the engine.
BORDER = 1e-4


@dataclass(frozen=True)
class Template:
    """Points with the image they were placed in, or with the folder of a saved template.

    Attributes:
        volume: scalar volume node, or None.
        folder: template folder of the library, or None; needed where there is no volume.
    """

    markups: object
    volume: object = None
    folder: Path | None = None

    @classmethod
    def of(cls, markups, volume=None):
        """The template of a markups node: with the given volume, the one it refers to, or its template folder."""
        volume = volume or markups.GetNodeReference(VOLUME_ROLE)
        folder = markups.GetAttribute(TEMPLATE_FOLDER_ATTRIBUTE)
        return cls(markups, volume, Path(folder) if folder and volume is None else None)

    @property
    def imageName(self):
        """What the user calls the image that the points were placed in."""
        return self.volume.GetName() if self.volume is not None else self.folder.name

    def contains(self, position):
        """Whether a world point (RAS mm) lies in that image; True where its extent is unknown."""
        if self.volume is not None:
            return isInside(position, self.volume)
        file = self.folder / "template.json"
        extent = _extentOfFolder(file, file.stat().st_mtime_ns) if file.is_file() else None
        return extent is None or _isWithin(position, *extent)


@dataclass
class MatchRequest:
    """What to find where.

    Attributes:
        templates: the first names the points; further ones vote on points with the same labels.
        minimumScore: found from this score on; None for the calibrated limit.
        mode: "stable" or "fast".
        only: labels of the points to find, None for all.
    """

    templates: list
    queryVolumes: list
    minimumScore: float | None = None
    mode: str = "stable"
    device: str = "auto"
    only: frozenset | None = None

    def points(self, markups):
        """The TemplatePoints of a template that are asked for."""
        return [p for p in results.templatePoints(markups) if self.only is None or p.label in self.only]

    def findable(self, template):
        """The points asked for that lie inside the template's image."""
        return [point for point in self.points(template.markups) if template.contains(point.position)]

    def leftOut(self):
        """The TemplatePoints of the first template that lie outside its image: there is nothing to look for."""
        first = self.templates[0]
        found = self.findable(first)
        return [point for point in self.points(first.markups) if point not in found]

    def inputNodes(self):
        """All nodes that take part, for watching their removal."""
        every = [node for template in self.templates for node in (template.markups, template.volume)]
        return [node for node in dict.fromkeys([*every, *self.queryVolumes]) if node is not None]


@dataclass(kw_only=True)
class PreparedMatch(PreparedRun):
    """A matching run's files, and what its answers belong to.

    Attributes:
        frames: ImageInFrame of each query volume.
        points: results.TemplatePoint of the first template, one per row of the answers.
        leftOut: those of them that the engine was not asked for.
        queryPaths: file of each query volume, the engine's name for it.
    """

    points: list
    leftOut: list = field(default_factory=list)
    frames: list = field(default_factory=list)
    queryPaths: list = field(default_factory=list)

    def __post_init__(self):
        self.target = self.folder / "matches.json"

    def read(self):
        """Per query volume a list of entries, first those of ``points`` (safe in a worker thread)."""
        report = json.loads(self.target.read_text(encoding="utf-8"))
        return [self._withLeftOut(report[str(path)]) for path in self.queryPaths]

    def _withLeftOut(self, entries):
        """A point that was left out has no place, unless another template has one for it."""
        count = len(self.points) - len(self.leftOut)
        asked, further = iter(entries[:count]), {entry["label"]: entry for entry in entries[count:]}
        none = {"point": None, "score": None, "cycle_mm": None, "found": False, "state": results.OUTSIDE_TEMPLATE}
        merged = [
            further.pop(point.label, {"label": point.label, **none}) if point in self.leftOut else next(asked)
            for point in self.points
        ]
        return [*merged, *further.values()]


def checkRequest(request):
    """One sentence that says what is missing or wrong, or an empty string."""
    if not request.templates:
        return _("Choose the template points.")
    for template in request.templates:
        if template.volume is None and template.folder is None:
            return _("Choose the volume that '{name}' was placed in.").format(name=template.markups.GetName())
        if template.volume is None and not (template.folder / "template.json").is_file():
            return _("The template folder {folder} of '{name}' is gone; load the template again.").format(
                folder=template.folder, name=template.markups.GetName()
            )
        if not request.points(template.markups):
            return _("'{name}' has no point with a position; place at least one.").format(
                name=template.markups.GetName()
            )
    if not request.queryVolumes:
        return _("Check at least one target scan.")
    first = request.templates[0]
    try:
        for volume in [template.volume for template in request.templates] + list(request.queryVolumes):
            if volume is not None:
                nodes.checkVolume(volume, slices=True)
                nodes.exportFrame(volume)
    except nodes.NodeError as error:
        return str(error)
    for template in request.templates:
        if not request.findable(template):
            return _("No point of '{points}' lies inside '{volume}'; choose the volume they were placed in.").format(
                points=template.markups.GetName(), volume=template.imageName
            )
    if first.volume is not None and first.volume in request.queryVolumes:
        return _("'{name}' is the template itself; choose another volume to find the points in.").format(
            name=first.volume.GetName()
        )
    return ""


def noteOn(request):
    """One sentence about points that will be left out, or an empty string."""
    if not request.templates:
        return ""
    names = ", ".join(f"'{point.label}'" for point in request.leftOut())
    if not names:
        return ""
    return _(
        "Outside '{volume}' and left out: {points}. Place them in it, or choose the volume they belong to."
    ).format(volume=request.templates[0].imageName, points=names)


def isInside(position, volume):
    """Whether a world point (RAS mm) lies in a volume, the outer half of its border voxels included."""
    matrix = nodes.parentToWorld(volume) @ nodes.ijkToRas(volume)
    return _isWithin(position, matrix, volume.GetImageData().GetDimensions())


def _isWithin(position, matrix, size):
    index = np.linalg.solve(matrix, [*position, 1.0])[:3]
    return bool(np.all((index >= BORDER - 0.5) & (index <= np.array(size) - 0.5 - BORDER)))


@lru_cache(maxsize=32)
def _extentOfFolder(path, _changed):
    """(voxel to world RAS matrix, size) of the image a saved template was made from, or None if it does not say."""
    try:
        grid = json.loads(path.read_text(encoding="utf-8"))["grids"]["volume"]
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(grid["direction"], (3, 3)) * np.asarray(grid["spacing"])
        matrix[:3, 3] = grid["origin"]
        return nodes.LPS_FROM_RAS @ matrix, tuple(int(count) for count in grid["size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def prepare(request):
    """Copy the nodes' content and list the files to write.

    Raises:
        nodes.NodeError: an input that cannot be used.
    """
    sentence = checkRequest(request)
    if sentence:
        raise nodes.NodeError(sentence)
    run = PreparedMatch(points=request.points(request.templates[0].markups), leftOut=request.leftOut())
    images = {}

    def imageOf(volume):
        if volume.GetID() not in images:
            frame = nodes.imageFromVolume(volume, slices=True)
            path = run.add(f"image{len(images)}.mha", writeImage, frame.image, volume.GetName())
            images[volume.GetID()] = frame, path
        return images[volume.GetID()]

    sources = []
    for number, template in enumerate(request.templates):
        frame, image = (None, template.folder) if template.volume is None else imageOf(template.volume)
        points = framedPoints(request.findable(template), frame)
        path = run.add(f"points{number}.csv", writeLabeledPoints, points, template.markups.GetName())
        sources.append((image, path))
    for volume in request.queryVolumes:
        frame, path = imageOf(volume)
        run.frames.append(frame)
        run.queryPaths.append(path)
    run.arguments = ["match", *sources[0], *run.queryPaths, "-o", run.target, "--progress", "json"]
    run.arguments += ["--mode", request.mode, "--device", request.device]
    for image, path in sources[1:]:
        run.arguments += ["--also", image, path]
    if request.minimumScore is not None:
        run.arguments += ["--min-score", request.minimumScore]
    return run


def framedPoints(points, frame):
    """[(label, (x, y, z))] of TemplatePoints, LPS mm of an image's export frame (None: of the world)."""
    toWorld = np.eye(4) if frame is None else frame.worldFromFrame
    lps = nodes.lpsInFrame([point.position for point in points], toWorld)
    return [(point.label, position) for point, position in zip(points, lps, strict=True)]


def writeLabeledPoints(points, path):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["x", "y", "z", "label"])
        writer.writerows([*(f"{value:.6f}" for value in position), label] for label, position in points)
