"""The template library: a folder with one folder per saved template, as ``samconvex template`` writes them. No Qt.

A template holds points and the embedding of the image they were placed in, and on request the image's path; it never
holds the image. Files are checked before they are used, and nothing is unpickled.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import vtk
from SAMConvexLib import nodes
from SAMConvexLib.files import PreparedRun, writeImage
from SAMConvexLib.process import engineModule
from slicer.i18n import tr as _

from . import matching, results

DESCRIPTION_FILE = "template.json"
EMBEDDING_FILE = "embedding.npz"
FORMAT = 1
LARGEST_DESCRIPTION_BYTES = 16 << 20


class LibraryError(ValueError):
    """A template that cannot be used; the message says which and what to do."""


@dataclass(frozen=True)
class LibraryEntry:
    """A template folder whose description was checked.

    Attributes:
        points: ((label, (x, y, z) LPS mm), ...).
        image: path of the image it was made from, or None where only the embedding was kept.
    """

    folder: Path
    name: str
    description: str
    points: tuple
    image: Path | None
    checksum: str


def listTemplates(directory):
    """(LibraryEntries of a directory by name, [sentence] about the folders that are damaged or cannot be read)."""
    entries, problems = [], []
    if not str(directory):
        return entries, problems
    folder = Path(directory)
    try:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        return entries, [_unreadable(folder, error)]
    for path in paths:
        try:
            if (path / DESCRIPTION_FILE).is_file():
                entries.append(readEntry(path))
        except LibraryError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(_unreadable(path, error))
    return entries, problems


def _unreadable(folder, error):
    return _("{folder} could not be read ({reason}); ask for access to it or choose another folder.").format(
        folder=folder, reason=error.strerror or error
    )


def readEntry(folder):
    """Check and read a template's description.

    Raises:
        LibraryError: not a template, damaged, or from a newer version.
    """
    path = Path(folder) / DESCRIPTION_FILE
    try:
        if path.stat().st_size > LARGEST_DESCRIPTION_BYTES:
            raise ValueError(path)
        values = json.loads(path.read_text(encoding="utf-8"))
        version, checksum = int(values["format"]), str(values["embedding_sha256"])
        points = []
        for point in values["points"]:
            position = tuple(float(value) for value in point["position"])
            if len(position) != 3 or not all(math.isfinite(value) for value in position):
                raise ValueError(point)
            points.append((str(point["label"]), position))
        image = (values.get("image") or {}).get("path")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LibraryError(_("{file} is damaged or no template; save the template again.").format(file=path)) from error
    if version > FORMAT:
        raise LibraryError(_("{file} was written by a newer version; update the extension.").format(file=path))
    if not points or not (path.parent / EMBEDDING_FILE).is_file():
        raise LibraryError(_("{folder} is incomplete; copy or save the template again.").format(folder=path.parent))
    return LibraryEntry(
        path.parent,
        str(values.get("name") or path.parent.name),
        str(values.get("description") or ""),
        tuple(points),
        Path(image) if image else None,
        checksum,
    )


def load(folder, withImage=False):
    """Bring a template into the scene.

    Args:
        withImage: also load the image, if its path was kept and it is still there.
    Returns:
        (markups node, volume node or None).
    Raises:
        LibraryError: damaged.
    """
    entry = readEntry(folder)
    if engineModule("samconvex.io.files").file_sha256(entry.folder / EMBEDDING_FILE) != entry.checksum:
        raise LibraryError(
            _("{file} is damaged (checksum); copy the template again.").format(file=entry.folder / EMBEDDING_FILE)
        )
    volume = None
    if withImage:
        if entry.image is None or not entry.image.is_file():
            raise LibraryError(
                _("The image of '{name}' is not at hand; load the template without it.").format(name=entry.name)
            )
        volume = slicer.util.loadVolume(str(entry.image))
    markups = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLMarkupsFiducialNode", slicer.mrmlScene.GenerateUniqueName(entry.name)
    )
    with slicer.util.NodeModify(markups):
        for label, position in entry.points:
            world = nodes.worldOfLps([position], np.eye(4))[0]
            index = markups.AddControlPointWorld(vtk.vtkVector3d(*world))
            markups.SetNthControlPointLabel(index, label)
    markups.SetAttribute(matching.TEMPLATE_FOLDER_ATTRIBUTE, str(entry.folder))
    if volume is None:
        # Their place belongs to an image that is not in the scene.
        markups.CreateDefaultDisplayNodes()
        markups.GetDisplayNode().SetVisibility(False)
    else:
        markups.SetNodeReferenceID(matching.VOLUME_ROLE, volume.GetID())
    return markups, volume


def prepareSaving(directory, name, volume, markups, description="", reference=False):
    """The PreparedRun that makes a new template folder in a library directory of a volume and its points.

    Args:
        reference: keep the path of the volume's file, where it has one.
    Raises:
        LibraryError, nodes.NodeError: a name in use or missing, unusable inputs.
    """
    if not name.strip() or not str(directory):
        raise LibraryError(_("Give the library's folder and a name for the template."))
    target = Path(directory) / (re.sub(r"[^\w.-]+", "_", name).strip("._") or "template")
    if target.exists():
        raise LibraryError(_("{folder} exists; choose another name.").format(folder=target))
    if not results.templatePoints(markups):
        raise LibraryError(
            _("'{name}' has no point with a position; place at least one.").format(name=markups.GetName())
        )
    frame = nodes.imageFromVolume(volume, slices=True)
    beside = [point for point in results.templatePoints(markups) if not matching.isInside(point.position, volume)]
    if beside:
        raise LibraryError(
            _("Outside '{volume}': {points}. Remove these points, or choose the volume they belong to.").format(
                volume=volume.GetName(), points=", ".join(f"'{point.label}'" for point in beside)
            )
        )
    run = PreparedRun(target=target)
    points = matching.framedPoints(results.templatePoints(markups), frame)
    imagePath = run.add("image.mha", writeImage, frame.image, volume.GetName())
    pointsPath = run.add("points.csv", matching.writeLabeledPoints, points, markups.GetName())
    run.arguments = ["template", imagePath, pointsPath, "-o", target, "--name", name, "--description", description]
    storage = volume.GetStorageNode()
    if reference and storage is not None and storage.GetFileName() and volume.GetParentTransformNode() is None:
        run.arguments += ["--reference", storage.GetFileName()]
    run.arguments += ["--progress", "json"]
    return run
