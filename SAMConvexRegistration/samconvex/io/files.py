"""Files of the user: their folder, their checksums, and writing that leaves no half file."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path


def user_folder() -> Path:
    """The user's folder for imported weights and caches: SAMCONVEX_HOME, or the platform's place."""
    override = os.environ.get("SAMCONVEX_HOME")
    if override:
        return Path(override).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    return base / "samconvex"


def file_sha256(path: Path) -> str:
    """Checksum of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
