"""What a run writes and reads."""

import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk

from .process import temporaryFolder


@dataclass(kw_only=True)
class PreparedRun:
    """A request turned into files to write and engine arguments; it holds copies, no nodes.

    Attributes:
        folder: temporary folder of the run.
        target: what the engine writes; ``result`` in the folder where nothing else is said.
        arguments: what follows ``samconvex``.
        names: {file path: name of its node}, for messages.
        writes: [(writer, content, path)].
    """

    folder: Path = field(default_factory=temporaryFolder)
    target: Path | None = None
    arguments: list = field(default_factory=list)
    names: dict = field(default_factory=dict)
    writes: list = field(default_factory=list)

    def __post_init__(self):
        self.target = self.target or self.folder / "result"

    def add(self, fileName, writer, content, name=""):
        """A file of the folder that ``writer(content, path)`` will write; ``name`` is what messages call it."""
        path = self.folder / fileName
        self.writes.append((writer, content, path))
        if name:
            self.names[path] = name
        return path

    def addNamed(self, part, writer, content, name):
        """The same for an image whose file is called as its node, which the engine puts on the report's page."""
        (self.folder / part).mkdir()
        return self.add(f"{part}/{fileName(name) or part}.mha", writer, content, name)

    def write(self):
        """Write all files (safe in a worker thread: no node is touched)."""
        for writer, content, path in self.writes:
            writer(content, str(path))

    def read(self):
        """What the engine wrote, for those who need it (safe in a worker thread)."""


def fileName(name):
    """A node's name as a file's: plain letters and digits of any file system, at most 60 of them; may be empty."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^\w .-]+", "_", plain)[:60].strip(" .")


def chosenFolder(button):
    """The folder of a ctkDirectoryButton, "" where the user has chosen none.

    It starts at ".": that would be Slicer's working directory, where nobody looks for results.
    """
    folder = str(button.directory)
    return "" if folder in ("", ".") else folder


def writeImage(image, path):
    # Uncompressed: the file lives for one run only.
    sitk.WriteImage(image, path, False)


def writePoints(points, path):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write("x,y,z\n")
        file.writelines(f"{x:.6f},{y:.6f},{z:.6f}\n" for x, y, z in points)
