"""Files of the user: their folder, their checksums, and writing that leaves no half file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_LONGEST_WRITE_S = 3600.0
# Half-written neighbors of this process, for a forced exit to remove.
_unfinished: set[Path] = set()


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


def file_sha256(path: str | os.PathLike) -> str:
    """Checksum of a file's bytes, or of all files of a folder one after another, by name; hexadecimal."""
    location = Path(path)
    files = sorted(entry for entry in location.iterdir() if entry.is_file()) if location.is_dir() else [location]
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def replaced(path: str | os.PathLike, ending: str = "") -> Iterator[Path]:
    """Give a neighbor of ``path`` to write; on success it takes the place of ``path``, on any error nothing changes.

    Args:
        ending: of the neighbor's name, for writers that go by it.

    Raises:
        OSError: the disk refused.
    """
    target = Path(path)
    # Two processes may write the same file at the same time.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial{ending}")
    _unfinished.add(temporary)
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        _remove(temporary)
        raise
    finally:
        _unfinished.discard(temporary)


def clear_half_written(folder: Path) -> None:
    """Remove what killed processes have left of :func:`replaced` in ``folder``."""
    for path in folder.glob("*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _LONGEST_WRITE_S:
                path.unlink()


def discard_half_written() -> None:
    """Remove what :func:`replaced` has not finished (before a forced exit)."""
    for path in list(_unfinished):
        _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
