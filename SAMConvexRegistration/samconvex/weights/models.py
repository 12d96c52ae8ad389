"""Networks built from weights files: shipped, imported or any file; official and compact formats alike.

Files are only ever read with ``weights_only=True``: tensors and plain values, never objects that run code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import InputError, refusing
from ..io.files import file_sha256
from ..networks import featcnn, lapirn, masr, sam_2d, sam_compact, sam_official, sam_voxelmorph, semantic, sides
from .checkpoints import Network, built, read_checkpoint
from .registry import (
    DEFAULT_LAPIRN,
    DEFAULT_SAM,
    DEFAULT_SAM_VOXELMORPH,
    DEFAULT_SEMANTIC,
    DEFAULT_SIDES,
    DEFAULT_XRAY,
    check_unchanged,
    existing_file,
    known_weights,
    path_of,
)

if TYPE_CHECKING:
    from ..space.volume import Volume

# Family of the embedding networks, compact and official.
SAM = "sam"


@dataclass(frozen=True)
class Family:
    """Networks of one class of this package.

    Attributes:
        name: what the registry calls them.
        kind: the class, made from a checkpoint's ``config``.
        form, version: of their checkpoints.
        default: name of the shipped weights.
    """

    name: str
    kind: type[nn.Module]
    form: str
    version: int
    default: str


FAMILIES = (
    Family("masr", masr.MASRNet, masr.CHECKPOINT_FORMAT, masr.CHECKPOINT_VERSION, "masr"),
    Family("featcnn", featcnn.FeatCNN, featcnn.CHECKPOINT_FORMAT, featcnn.CHECKPOINT_VERSION, "featcnn"),
    Family("semantic", semantic.SemanticNet, semantic.CHECKPOINT_FORMAT, semantic.CHECKPOINT_VERSION, DEFAULT_SEMANTIC),
    Family("sides", sides.SidesNet, sides.CHECKPOINT_FORMAT, sides.CHECKPOINT_VERSION, DEFAULT_SIDES),
    Family("lapirn", lapirn.LapIRN, lapirn.CHECKPOINT_FORMAT, lapirn.CHECKPOINT_VERSION, DEFAULT_LAPIRN),
    Family(
        "sam-voxelmorph",
        sam_voxelmorph.SAMVoxelMorph,
        sam_voxelmorph.CHECKPOINT_FORMAT,
        sam_voxelmorph.CHECKPOINT_VERSION,
        DEFAULT_SAM_VOXELMORPH,
    ),
)
# Families that predict a field from two images.
FEED_FORWARD = ("lapirn", "sam-voxelmorph")
# What the names of LapIRN's published files say of their network: integrates velocities or not.
_LAPIRN_FILES = {"disp": False, "diff": True}


@dataclass(frozen=True, eq=False)
class SamModel:
    """An embedding network with what its callers must know, whichever architecture it is.

    Attributes:
        network: in evaluation mode; (B, 1, D, H, W) -> dict of unit maps "fine", "coarse" (and "semantic").
        prepare: Hounsfield units or MR values (float tensor, any shape) -> network input.
        fine_stride, coarse_stride, multiple: voxels along x, y, z; feature ``i`` lies at voxel
            ``stride * i + (stride - 1) / 2``.
        spacing_mm: isotropic voxel size of the input.
        tile_voxels: input voxels that one forward pass takes in bounded memory.
        halo: input voxels along z that a tile needs around it.
        sha256: identity of the weights.
        calibration: what the weights' training measured about scores, see :mod:`samconvex.landmarks.matching`.
    """

    name: str
    kind: str
    network: nn.Module
    prepare: Callable[[Tensor], Tensor]
    fine_stride: tuple[int, int, int]
    coarse_stride: tuple[int, int, int]
    multiple: tuple[int, int, int]
    spacing_mm: float
    tile_voxels: int
    halo: int
    modality: str
    sha256: str
    calibration: dict[str, float]

    @property
    def planar(self) -> bool:
        """True for a network of single slices."""
        return self.multiple[2] == 1


@dataclass(frozen=True, eq=False)
class SemanticModel:
    """An organ network; attributes as those of :class:`SamModel`."""

    name: str
    network: semantic.SemanticNet
    sha256: str
    spacing_mm: float
    multiple: tuple[int, int, int]
    tile_voxels: int = 3_000_000
    halo: int = 32


def load_network(kind: type[Network], name_or_path: str | os.PathLike | None = None) -> Network:
    """One of this package's networks by weights name or file, in evaluation mode; None is the shipped one.

    Args:
        kind: its class, one of :data:`FAMILIES`.

    Raises:
        InputError: unknown name; unreadable, altered, foreign or damaged file, or of another version.
    """
    family = next(f for f in FAMILIES if f.kind is kind)
    path = _unaltered(name_or_path or family.default)
    content = readable_checkpoint(path)
    if not isinstance(content, dict) or content.get("format") != family.form:
        raise InputError(f"{path} holds other weights than {family.form}; give those of the network that is to run.")
    if content.get("version") != family.version:
        raise InputError(
            f"{path} has format version {content.get('version')}, this version reads {family.version}; "
            "update samconvex."
        )
    with refusing(f"{path} holds damaged {family.form} weights; train or import them again."):
        network = built(kind, content)
    return network.eval().requires_grad_(False)


def _unaltered(name_or_path: str | os.PathLike) -> Path:
    """The file of a name or path; InputError where it is missing, or no longer the one that was registered."""
    entry, path = existing_file(name_or_path)
    if entry is not None:
        check_unchanged(entry, file_sha256(path))
    return path


def readable_checkpoint(path: Path) -> Any:
    """What a weights file holds; a published file of LapIRN in the form of this package's own.

    Raises:
        InputError: see :func:`read_checkpoint`; a file of LapIRN whose name does not tell which network it is of.
    """
    content = read_checkpoint(path)
    state = sam_official.checkpoint_state(content)
    if state is None or not lapirn.is_published(state):
        return content
    found = [integrates for word, integrates in _LAPIRN_FILES.items() if word in path.stem.lower()]
    if len(found) != 1:
        raise InputError(
            f"{path} holds weights of LapIRN, but its name does not tell which of the two networks they are of; rename "
            "it so that it contains 'disp' (displacements) or 'diff' (velocities)."
        )
    return lapirn.from_published(state, found[0])


def load_feed_forward(name_or_path: str | os.PathLike) -> nn.Module:
    """A network that predicts a field from two images, by weights name or file, in evaluation mode.

    Raises:
        InputError: as :func:`load_network`; weights of a network that predicts none.
    """
    name = family_of(name_or_path)
    if name not in FEED_FORWARD:
        raise InputError(
            f"{name_or_path} holds {name} weights, which predict no field; give those of {' or '.join(FEED_FORWARD)}."
        )
    network = load_network(next(f for f in FAMILIES if f.name == name).kind, name_or_path)
    # Convolutions in bfloat16 take three quarters of the time so.
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def family_of(name_or_path: str | os.PathLike) -> str:
    """Which network a name or file holds weights of: "sam" or a name of :data:`FAMILIES`.

    Raises:
        InputError: unknown name or unreadable file.
    """
    entry, path = existing_file(name_or_path)
    if entry is not None:
        return entry.network if any(f.name == entry.network for f in FAMILIES) else SAM
    stamp = path.stat()
    return _family_of_file(str(path.resolve()), stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=16)
def _family_of_file(path: str, _modified: int, _size: int) -> str:
    content = readable_checkpoint(Path(path))
    form = content.get("format") if isinstance(content, dict) else None
    return next((f.name for f in FAMILIES if f.form == form), SAM)


def weights_for(family: str, name_or_path: str | os.PathLike | None) -> str | os.PathLike | None:
    """The given weights if they are of this family of networks; None, its shipped ones, if not.

    Raises:
        InputError: see :func:`family_of`.
    """
    return name_or_path if name_or_path is not None and family_of(name_or_path) == family else None


def identity_of(family: str, *given: str | os.PathLike | None) -> dict[str, str]:
    """``name`` and ``sha256`` of the weights that a network of this family runs with: the first of it that are given.

    Raises:
        InputError: unknown name, or a missing file.
    """
    default = next((f.default for f in FAMILIES if f.name == family), DEFAULT_SAM)
    own = [one for one in given if weights_for(family, one) is not None]
    entry, path = existing_file(own[0] if own else default)
    if entry is not None:
        # Whoever loads it compares the file with this checksum.
        return {"name": entry.name, "sha256": entry.sha256}
    return {"name": path.name, "sha256": file_sha256(path)}


def load_sam(name_or_path: str | os.PathLike | None = None) -> SamModel:
    """Embedding network by name or file; None is the shipped default.

    The last ones stay loaded, so that asking again costs nothing.

    Raises:
        InputError: unknown name; unreadable, truncated, altered or foreign file.
    """
    entry, path = existing_file(name_or_path)
    stamp = path.stat()
    model = _load_cached(str(path.resolve()), stamp.st_mtime_ns, stamp.st_size)
    if entry is not None:
        check_unchanged(entry, model.sha256)
    return model


def load_compact(name_or_path: str | os.PathLike) -> sam_compact.SAMCompact:
    """The compact embedding network of CT as it was trained, for a training to go on from.

    Raises:
        InputError: as :func:`load_network`.
    """
    path = _unaltered(name_or_path)
    content = read_checkpoint(path)
    if not isinstance(content, dict) or content.get("format") != sam_compact.CHECKPOINT_FORMAT:
        raise InputError(f"{path} holds no compact embedding of CT; give one made by `samconvex train sam`.")
    with refusing(f"{path} holds damaged {sam_compact.CHECKPOINT_FORMAT} weights; train them again."):
        network = built(sam_compact.SAMCompact, content)
    return network


def suited_to(model: SamModel, volume: Volume) -> SamModel:
    """The network for an image: where the default one of CT meets a single slice, the shipped one of X-ray images.

    Raises:
        InputError: a network of the other dimension was asked for, or no X-ray network is shipped.
    """
    if volume.is_slice == model.planar:
        return model
    if not volume.is_slice:
        raise InputError(f"{volume.name} is no 2D image, but the weights {model.name} were made for X-ray images.")
    names = {entry.name: entry for entry in known_weights()}
    if DEFAULT_XRAY not in names or DEFAULT_SAM not in names or names[DEFAULT_SAM].sha256 != model.sha256:
        raise InputError(
            f"{volume.name} is a single slice, but the weights {model.name} were made for volumes; choose weights of a "
            "2D network (made by `samconvex train sam --dimension 2`)."
        )
    return load_sam(DEFAULT_XRAY)


def load_semantic(name_or_path: str | os.PathLike | None = None) -> SemanticModel:
    """Organ network by name or file; None is the shipped one. The last one stays loaded.

    Raises:
        InputError: as :func:`load_network`.
    """
    wanted = name_or_path or DEFAULT_SEMANTIC
    stamp = existing_file(wanted)[1].stat()
    return _load_semantic_cached(os.fspath(wanted), stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=1)
def _load_semantic_cached(wanted: str, _modified: int, _size: int) -> SemanticModel:
    network = sam_compact.fused(load_network(semantic.SemanticNet, wanted))
    return semantic_model(network, Path(wanted).stem, file_sha256(path_of(wanted)))


def semantic_model(network: semantic.SemanticNet, name: str, digest: str) -> SemanticModel:
    """Wrap an organ network that is already in memory (training, tests)."""
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return SemanticModel(name, network, digest, network.spacing_mm, (network.multiple,) * 3)


@lru_cache(maxsize=3)
def _load_cached(path: str, _modified: int, _size: int) -> SamModel:
    return load_sam_file(Path(path))


def load_sam_file(path: str | os.PathLike) -> SamModel:
    """Read one weights file, compact or official.

    Raises:
        InputError: missing, unreadable, truncated or foreign file; the sentence says which.
    """
    location = Path(path)
    content = read_checkpoint(location)
    name, digest = location.stem, file_sha256(location)
    try:
        form = content.get("format") if isinstance(content, dict) else None
        if form == sam_compact.CHECKPOINT_FORMAT:
            return _compact(content, sam_compact.SAMCompact, sam_compact.CHECKPOINT_VERSION, location, digest)
        if form == sam_2d.CHECKPOINT_FORMAT:
            return _compact(content, sam_2d.SAM2D, sam_2d.CHECKPOINT_VERSION, location, digest)
        state = sam_official.checkpoint_state(content)
        if state is None:
            raise ValueError("not a dictionary of tensors")
        network = sam_official.from_state(state)
        return _official(network, name, digest)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{path} does not hold SAM weights that this version can use ({reason}).") from error


def _compact(
    content: dict[str, Any], kind: type[sam_compact.SAMCompact], readable: int, path: Path, digest: str
) -> SamModel:
    version = content.get("version")
    if version != readable:
        raise ValueError(f"format version {version}, this version reads {readable}")
    network = built(kind, content)
    meta = content.get("meta") or {}
    calibration = {str(key): float(value) for key, value in dict(meta.get("calibration") or {}).items()}
    return compact_model(sam_compact.fused(network), path.stem, digest, str(meta.get("modality", "ct")), calibration)


def compact_model(
    network: sam_compact.SAMCompact, name: str, digest: str, modality: str = "ct", calibration: dict | None = None
) -> SamModel:
    """Wrap a compact network that is already in memory (training, tests)."""
    planar = network.dimension == 2

    def per_axis(value: int) -> tuple[int, int, int]:
        return value, value, 1 if planar else value

    return SamModel(
        name,
        "sam-2d" if planar else "sam-compact",
        network.eval().requires_grad_(False).channels_last(),
        network.preprocess,
        per_axis(network.fine_stride),
        per_axis(network.coarse_stride),
        per_axis(network.multiple),
        network.spacing_mm,
        tile_voxels=14_000_000,
        halo=48,
        modality=modality,
        sha256=digest,
        calibration=calibration or {},
    )


def _official(network: sam_official.SAMOfficial, name: str, digest: str) -> SamModel:
    return SamModel(
        name,
        "sam" if network.semantic_head is None else "uae",
        network.eval().requires_grad_(False).to(memory_format=torch.channels_last_3d),  # type: ignore[call-overload]
        sam_official.preprocess_ct,
        network.fine_stride,
        network.coarse_stride,
        network.multiple,
        network.spacing_mm,
        tile_voxels=2_500_000,
        halo=16,
        modality="any",
        sha256=digest,
        calibration={},
    )
