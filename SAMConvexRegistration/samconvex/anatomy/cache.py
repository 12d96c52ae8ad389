"""What is known of images kept by content, so that asking the same volume again takes milliseconds: embeddings in
memory and on disk; on disk also what other modules of this package leave there.

An entry's key is the checksum of voxels, grid, mask and weights. Disk entries hold the very bits that were computed, so
that a result does not depend on what was asked before; they are written atomically, and the oldest go when the folder
grows beyond its limit. An entry that cannot be read counts as absent.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..io.files import clear_half_written, replaced, user_folder
from ..progress import Progress
from ..space.grid import Grid, grid_of, plain_grid
from ..space.volume import FeatureMap, Volume
from ..weights.models import SamModel, SemanticModel, load_sam, suited_to
from .embed import embed
from .embedding import SamEmbedding
from .known import KNOWN

T = TypeVar("T")
LOGGER = logging.getLogger(__name__)
_FORMAT = 2
DISK_BYTES = 4 << 30
# Environment variables: another folder for the entries, which several computers may share, and its limit in GiB.
CACHE_FOLDER, CACHE_GIB = "SAMCONVEX_CACHE", "SAMCONVEX_CACHE_GIB"


def embed_cached(
    volume: Volume,
    model: SamModel | str | None = None,
    *,
    device: torch.device | str = "cpu",
    mask: Volume | None = None,
    progress: Progress | None = None,
    disk: bool = True,
    memory: bool = True,
) -> SamEmbedding:
    """:func:`samconvex.anatomy.embed.embed`, or its earlier answer for the same voxels, grid, mask and weights.

    Args:
        disk: also look on disk and keep the result there; SAMCONVEX_NO_DISK_CACHE=1 switches it off everywhere.
        memory: hold what was not held: a large CT takes a quarter of a GiB.
    """
    model = model if isinstance(model, SamModel) else load_sam(model)
    model = suited_to(model, volume)
    key = content_key(volume, model, mask)
    kind = torch.device(device).type
    found = KNOWN.embeddings.get(f"{key}-{kind}")
    if found is not None:
        return found
    disk = disk and disk_is_used()
    path = cache_folder() / f"{key}.pt"
    embedding = _read(path, model, volume.grid, device) if disk else None
    if embedding is None:
        embedding = embed(volume, model, device=device, mask=mask, progress=progress)
        if disk:
            _write(path, embedding)
    return KNOWN.embeddings.keep(f"{key}-{kind}", embedding) if memory else embedding


def embed_known(
    volume: Volume, model: SamModel, *, device: torch.device | str = "cpu", disk: bool = True
) -> SamEmbedding | None:
    """The embedding of a whole volume where memory or the disk holds it; nothing is computed."""
    if volume.is_slice != model.planar:
        return None
    key = content_key(volume, model)
    found = KNOWN.embeddings.get(f"{key}-{torch.device(device).type}")
    if found is None and disk and disk_is_used():
        found = _read(cache_folder() / f"{key}.pt", model, volume.grid, device)
    return found


def cache_folder() -> Path:
    """Where the entries lie on disk: SAMCONVEX_CACHE, or a folder of the user's."""
    chosen = os.environ.get(CACHE_FOLDER)
    return Path(chosen).expanduser() if chosen else user_folder() / "embeddings"


def _disk_bytes() -> int:
    """What all entries may take: SAMCONVEX_CACHE_GIB, or 4 GiB."""
    try:
        return int(float(os.environ[CACHE_GIB]) * 2**30)
    except (KeyError, ValueError):
        return DISK_BYTES


def clear(disk: bool = False) -> None:
    """Forget what is known of images in memory, and on request the entries on disk."""
    KNOWN.clear()
    if disk and cache_folder().is_dir():
        for path in cache_folder().glob("*.pt"):
            path.unlink(missing_ok=True)


def content_key(volume: Volume, model: SamModel | SemanticModel, mask: Volume | None = None) -> str:
    """Checksum, hexadecimal, of everything an embedding depends on."""
    digest = hashlib.sha256(f"{_FORMAT}|{model.sha256}".encode())
    for part in (volume, mask):
        if part is not None:
            digest.update(repr(part.grid).encode())
            digest.update(_voxel_checksum(part.tensor).encode())
    return digest.hexdigest()[:40]


def _voxel_checksum(tensor: torch.Tensor) -> str:
    """Checksum of the voxels, remembered per tensor object while its version and a sparse sum stay the same."""
    sparse = float(tensor.flatten()[::997].double().sum())
    known = KNOWN.checksums.get(tensor)
    if known is not None and known[0] == (tensor._version, sparse):
        return known[1]
    array = tensor.detach().cpu().contiguous().numpy()
    checksum = hashlib.sha256(f"{array.dtype}{array.shape}".encode())
    checksum.update(array.reshape(-1).view("uint8").data)
    value = checksum.hexdigest()
    KNOWN.checksums[tensor] = ((tensor._version, sparse), value)
    return value


def _write(path: Path, embedding: SamEmbedding) -> None:
    content: dict[str, Any] = {"format": _FORMAT, "network": embedding.network, "body": embedding.body.cpu()}
    for name in ("fine", "coarse"):
        part: FeatureMap = getattr(embedding, name)
        content[name] = part.tensor.cpu()
        content[f"{name}_grid"] = plain_grid(part.grid)
    keep_on_disk(path, content)


def disk_is_used() -> bool:
    """False where SAMCONVEX_NO_DISK_CACHE=1 switches the disk off."""
    return not os.environ.get("SAMCONVEX_NO_DISK_CACHE")


def keep_on_disk(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values as an entry, in one step; concurrent writers of one entry do not disturb."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            torch.save(content, temporary)
        _trim(path.parent)
    except (OSError, RuntimeError) as error:
        # A full or read-only disk costs time at the next query, nothing else.
        LOGGER.info("%s not kept on disk: %s", path.name, error)


def from_disk(path: Path, understood: Callable[[dict[str, Any]], T]) -> T | None:
    """What ``understood`` makes of an entry, which counts as used now; None where there is none, or a damaged one."""
    if not path.is_file():
        return None
    try:
        found = understood(torch.load(path, map_location="cpu", weights_only=True))
        with suppress(OSError):
            os.utime(path)
        return found
    except Exception as error:  # any kind of damage means: find it again
        LOGGER.info("cached entry %s is unreadable: %s", path.name, error)
        with suppress(OSError):
            path.unlink()
        return None


def _read(path: Path, model: SamModel, grid: Grid, device: torch.device | str) -> SamEmbedding | None:
    def understood(content: dict[str, Any]) -> SamEmbedding | None:
        if content["format"] != _FORMAT or content["network"] != model.sha256:
            return None
        maps = {}
        for name in ("fine", "coarse"):
            place = grid_of(content[f"{name}_grid"])
            if tuple(content[name].shape[2:]) != place.shape:
                return None
            maps[name] = FeatureMap(content[name].to(device), place)
        body = content["body"].to(device)
        if tuple(body.shape) != maps["fine"].grid.shape:
            return None
        return SamEmbedding(maps["fine"], maps["coarse"], body, model.sha256, grid, model.calibration)

    return from_disk(path, understood)


def _trim(folder: Path) -> None:
    """Remove the entries not used for longest until the folder is within its limit."""
    clear_half_written(folder)
    entries = []
    for path in folder.glob("*"):
        with suppress(OSError):
            status = path.stat()
            entries.append((status.st_mtime, status.st_size, path))
    total, limit = sum(size for _, size, _ in entries), _disk_bytes()
    for _, size, path in sorted(entries)[:-1]:
        if total <= limit:
            break
        with suppress(OSError):
            path.unlink()
            total -= size
