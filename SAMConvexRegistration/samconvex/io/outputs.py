"""Results appear together or not at all: written into a temporary neighbor, checked, then moved into place."""

from __future__ import annotations

import contextlib
import errno
import glob
import gzip
import hashlib
import math
import os
import secrets
import shutil
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import Cancelled, InputError, ResourceError
from .files import discard_half_written

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

# Unfinished folders of this process: the command line must be able to remove them while a worker thread still computes.
_unfinished: set[Path] = set()
_committing = threading.Lock()
_abandoned = threading.Event()
_NIFTI_HEADER_BYTES = 352
_REPLACED, _PLAN = ".replaced", ".plan"
_LONG_NAME_BYTES = 100
_LONGEST_RUN_S = 7 * 24 * 3600.0


def check_output_folder(
    folder: str | os.PathLike,
    *,
    names: Iterable[str] = (),
    overwrite: bool = False,
    needed_bytes: int = 0,
    inputs: Iterable[str | os.PathLike | None] = (),
) -> None:
    """Refuse, before any work, a folder that could not take the results.

    Args:
        names: the files that will be written.
        overwrite: the folder may hold files; only those called ``names`` will be replaced.
        needed_bytes: expected size of the results.
        inputs: files that are read and must survive.

    Raises:
        InputError: not a folder, not writable, not empty without ``overwrite``, or an input would be replaced.
        ResourceError: not enough free space.
    """
    target = Path(folder)
    _check_name(target)
    clear_abandoned(target.absolute())
    ancestor = _nearest_existing(target)
    if not ancestor.is_dir():
        raise InputError(f"{ancestor} is a file, not a folder; choose another output folder.")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise InputError(f"{ancestor} is not writable; choose another output folder or change its permissions.")
    if target.is_dir() and any(target.iterdir()):
        if not overwrite:
            raise InputError(f"{folder} is not empty; give another output folder or --overwrite.")
        written = {(target / name).resolve() for name in names}
        for source in inputs:
            if source is not None and Path(source).resolve() in written:
                raise InputError(f"{source} is an input and would be overwritten; choose another output folder.")
        for name in names:
            if (target / name).is_dir():
                raise InputError(f"{target / name} is a folder in the way of a result; choose another output folder.")
    check_free_space(target, needed_bytes)


def check_output_file(
    path: str | os.PathLike, *, needed_bytes: int = 0, inputs: Iterable[str | os.PathLike | None] = ()
) -> None:
    """As :func:`check_output_folder` for one file; an existing file may be replaced, an input may not."""
    target = Path(path)
    _check_name(target)
    if target.is_dir():
        raise InputError(f"{path} is a folder; give a file name.")
    for source in inputs:
        if source is not None and target.exists() and Path(source).resolve() == target.resolve():
            raise InputError(f"{path} is also the input; choose another output file.")
    check_output_folder(target.parent, overwrite=True, needed_bytes=needed_bytes)


def _check_name(target: Path) -> None:
    """Refuse a path that no file can have: a name that the disk does not take, or a link that leads nowhere."""
    try:
        os.lstat(target)
    except ValueError as error:
        raise InputError(f"{target}: {error}; choose another output name.") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP):
            raise InputError(f"{target} is no possible name ({error.strerror}); choose another output name.") from error
    for path in (target, *target.parents):
        if path.is_symlink() and not path.exists():
            raise InputError(f"{path} is a link to {os.readlink(path)}, which does not exist; choose another output.")


def check_free_space(path: Path, needed_bytes: int) -> None:
    """Raise ResourceError where the disk of ``path`` cannot take ``needed_bytes``."""
    free = shutil.disk_usage(_nearest_existing(path)).free
    if free < needed_bytes:
        raise ResourceError(
            f"{path} needs about {_mib(needed_bytes)} MiB but its disk has {_mib(free)} MiB free; "
            "free some space or choose another disk."
        )


@contextlib.contextmanager
def output_folder(folder: str | os.PathLike, *, overwrite: bool = False, stale: Iterable[str] = ()) -> Iterator[Path]:
    """Give a temporary folder to write into; on success its files move into ``folder``, on any error nothing stays.

    Files of ``folder`` that have other names are kept, whatever happens.

    Args:
        stale: names of an earlier run's results that are removed together with the replacement.

    Raises:
        InputError: ``folder`` has been filled meanwhile. ResourceError: the disk refused. Cancelled: abandoned.
    """
    target = Path(folder).absolute()
    made = _make_parents(target.parent)
    clear_abandoned(target)
    staging = _staging_folder(target)
    held: int | None = None
    try:
        try:
            with _committing:
                if _abandoned.is_set():
                    raise Cancelled()
                staging.mkdir()
                held = _hold(staging)
                _unfinished.add(staging)
            yield staging
            for path in sorted(staging.iterdir()):
                check_complete(path)
            with _committing:
                if _abandoned.is_set():
                    raise Cancelled()
                _move_into_place(staging, target, overwrite, set(stale))
                _unfinished.discard(staging)
        except OSError as error:
            raise ResourceError(_refusal(folder, error)) from error
    except BaseException:
        _remove(staging)
        with contextlib.suppress(OSError):
            for parent in made:
                parent.rmdir()
        raise
    finally:
        _unfinished.discard(staging)
        if held is not None:
            os.close(held)


@contextlib.contextmanager
def output_file(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path of the same name to write; on success it (and companions, as .raw) replaces ``path``."""
    target = Path(path)
    with output_folder(target.parent, overwrite=True) as staging:
        yield staging / target.name


def clear_abandoned(target: Path) -> None:
    """Remove what runs into ``target`` left that were killed; a replacement that one was amidst is undone."""
    for parent in (target.parent, target):
        with contextlib.suppress(OSError):
            for staging in parent.glob(f"{glob.escape(_stem(target))}*"):
                _clear_if_abandoned(staging, target)


def _clear_if_abandoned(staging: Path, target: Path) -> None:
    held = None
    try:
        if fcntl is None:
            # Without locks on folders, only age tells; no run lasts so long.
            if time.time() - staging.stat().st_mtime < _LONGEST_RUN_S:
                return
        else:
            held = os.open(staging, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _undo(staging, target)
        _remove(staging)
    except OSError:
        # Another run holds it.
        return
    finally:
        if held is not None:
            os.close(held)


def _undo(staging: Path, target: Path) -> None:
    """Put back what a killed run had moved out of ``target`` to replace it."""
    plan, backup = staging / _PLAN, staging / _REPLACED
    if not plan.is_file():
        return
    for name in plan.read_text(encoding="utf-8").splitlines():
        if not (staging / name).exists() and not (backup / name).exists():
            (target / name).unlink(missing_ok=True)
    for path in sorted(backup.iterdir()) if backup.is_dir() else ():
        os.replace(path, target / path.name)


def _hold(staging: Path) -> int | None:
    """A lock on the folder that ends with this process, however it ends; None where there is no such lock."""
    if fcntl is None:
        return None
    held = os.open(staging, os.O_RDONLY)
    with contextlib.suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return held


def discard_unfinished() -> None:
    """Remove every unfinished folder and file of this process and let none be finished any more (forced exit)."""
    _abandoned.set()
    discard_half_written()
    with _committing:
        for staging in list(_unfinished):
            _remove(staging)


def check_complete(path: Path) -> None:
    """Raise ResourceError for a file that the disk cut short.

    ITK's NIfTI writer reports no error on a full disk, so images are judged by what arrived.
    """
    name = path.name.lower()
    try:
        if name.endswith(".gz"):
            with gzip.open(path) as stream:
                while stream.read(1 << 24):
                    pass
        elif name.endswith(".nii"):
            _check_nifti_size(path)
        elif name.endswith((".h5", ".tfm")):
            from ..space.itk_transforms import read_records

            read_records(path)
        elif path.is_file() and path.stat().st_size == 0:
            raise EOFError
    except (EOFError, InputError, OSError, RuntimeError, zlib.error) as error:
        raise ResourceError(f"{path.name} could not be written completely; free some disk space and retry.") from error


def _check_nifti_size(path: Path) -> None:
    import SimpleITK as sitk

    from ..space.image_files import read_header

    reader = read_header(path)
    pixel = sitk.Image([1] * reader.GetDimension(), reader.GetPixelID(), reader.GetNumberOfComponents())
    voxels = math.prod(reader.GetSize()) * reader.GetNumberOfComponents()
    if path.stat().st_size < _NIFTI_HEADER_BYTES + voxels * pixel.GetSizeOfPixelComponent():
        raise EOFError


def _move_into_place(staging: Path, target: Path, overwrite: bool, stale: set[str]) -> None:
    """Move every file of ``staging`` into ``target``; after an error the old content is back."""
    if not target.exists():
        os.rename(staging, target)
        return
    if not overwrite and any(path != staging for path in target.iterdir()):
        raise InputError(f"{target} has been filled meanwhile; give another output folder or --overwrite.")
    names = sorted(path.name for path in staging.iterdir())
    backup = staging / _REPLACED
    backup.mkdir()
    # A run that is killed from here on can be undone by the next one; in this order, a plan has what it needs.
    new = [name for name in names if not os.path.lexists(target / name)]
    (staging / f"{_PLAN}.partial").write_text("\n".join(new), encoding="utf-8")
    os.replace(staging / f"{_PLAN}.partial", staging / _PLAN)
    moved: list[str] = []
    kept: list[str] = []
    try:
        for name in sorted(stale | set(names)):
            if (target / name).exists() or (target / name).is_symlink():
                os.replace(target / name, backup / name)
                kept.append(name)
        for name in names:
            os.replace(staging / name, target / name)
            moved.append(name)
    except BaseException:
        for name in moved:
            os.replace(target / name, staging / name)
        for name in kept:
            os.replace(backup / name, target / name)
        raise
    # From here on the new files stay, even if this process dies before the rest is tidied up.
    (staging / _PLAN).unlink()
    _remove(staging)


def _staging_folder(target: Path) -> Path:
    """A fresh hidden neighbor of ``target``; inside it where the neighbor would lie on another disk."""
    name = f"{_stem(target)}{secrets.token_hex(4)}"
    if target.is_dir():
        parent = target.parent
        if not os.access(parent, os.W_OK | os.X_OK) or parent.stat().st_dev != target.stat().st_dev:
            return target / name
    return target.parent / name


def _stem(target: Path) -> str:
    """How the names of all unfinished neighbors of ``target`` begin; short for any name of it."""
    name = target.name
    if len(os.fsencode(name)) > _LONG_NAME_BYTES:
        name = f"{name[:20]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}"
    return f".{name}.unfinished-"


def _make_parents(folder: Path) -> list[Path]:
    """Create missing parents; returns those created, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} could not be created ({error.strerror}); choose another output folder.") from error
    return missing


def _nearest_existing(path: Path) -> Path:
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def _remove(staging: Path) -> None:
    # A worker that is still writing can add a file while the folder is being emptied: try again.
    for _ in range(5):
        shutil.rmtree(staging, ignore_errors=True)
        if not staging.exists():
            return
        time.sleep(0.02)


def _refusal(folder: str | os.PathLike, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{folder} could not be written because the disk is full; free some space and retry."
    reason = error.strerror or str(error)
    return f"{folder} could not be written ({reason}); check the disk and its permissions, then retry."


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f}" if count >= 10 * 2**20 else f"{count / 2**20:.1f}"
