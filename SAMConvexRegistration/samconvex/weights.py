"""Shipped and imported network weights, checked, never unpickled."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from .errors import InputError, ResourceError
from .io.files import file_sha256, user_folder
from .networks import featcnn, masr, sam_2d, sam_compact, sam_official, semantic

if TYPE_CHECKING:
    from .space.volume import Volume

DEFAULT_SAM = "sam-ct"
DEFAULT_XRAY = "sam-xray"
DEFAULT_SEMANTIC = "semantic-ct"
INDEX = "index.json"
# Weights of 3D networks stay far below this; it keeps a wrong file from filling memory.
LARGEST_FILE = 4 * 2**30
# Family of the embedding networks, compact and official.
SAM = "sam"
Network = TypeVar("Network", bound=nn.Module)


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
)


@dataclass(frozen=True)
class WeightsEntry:
    """A file the registry knows.

    Attributes:
        origin: "shipped" or "imported".
        network: "sam-compact", "sam", "uae" or the name of one of :data:`FAMILIES`.
        modality: "ct", "mr" or "any".
        sha256: what the index says the file's checksum is.
        card: the model card's file, if one is there.
    """

    name: str
    path: Path
    origin: str
    network: str
    modality: str
    sha256: str
    bytes: int
    card: Path | None = None


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
        calibration: what the weights' training measured about scores, see :mod:`samconvex.matching`.
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


def imported_folder() -> Path:
    """Where ``import`` puts files."""
    return user_folder() / "weights"


def shipped_folder() -> Path | None:
    """Folder of the shipped weights: in an installed wheel, in Slicer's packaged modules, or in the repository."""
    package = Path(__file__).resolve().parent
    candidates = (
        package / "models",
        package.parent / "Resources" / "Models",
        package.parent.parent / "Resources" / "Models",
    )
    return next((folder for folder in candidates if (folder / INDEX).is_file()), None)


def known_weights() -> list[WeightsEntry]:
    """Every weights file the registry knows, shipped ones first."""
    shipped = shipped_folder()
    entries = _entries(shipped, "shipped") if shipped else []
    names = {entry.name for entry in entries}
    return entries + [entry for entry in _entries(imported_folder(), "imported") if entry.name not in names]


def find(name_or_path: str | os.PathLike | None = None) -> WeightsEntry | Path:
    """The entry of that name, or the path of a file that exists; None is the default SAM network.

    Raises:
        InputError: neither a known name nor a file.
    """
    wanted = str(name_or_path) if name_or_path is not None else DEFAULT_SAM
    entries = known_weights()
    for entry in entries:
        if entry.name == wanted:
            return entry
    if Path(wanted).is_file():
        return Path(wanted)
    names = ", ".join(entry.name for entry in entries) or "none"
    raise InputError(f"{wanted} is neither a weights file nor a known name ({names}); see `samconvex weights list`.")


def path_of(name_or_path: str | os.PathLike | None = None) -> Path:
    """The file that :func:`load_sam` would read.

    Raises:
        InputError: see :func:`find`.
    """
    found = find(name_or_path)
    return found.path if isinstance(found, WeightsEntry) else found


def verify(name: str | None = None) -> list[tuple[WeightsEntry, str]]:
    """Compare files with their recorded sha256.

    Returns:
        Entries, each with "ok", "missing" or "changed"; of one name, or of all.

    Raises:
        InputError: no such name.
    """
    entries = known_weights()
    if name is not None:
        entries = [entry for entry in entries if entry.name == name]
        if not entries:
            raise InputError(f"{name} is not a known weights name; see `samconvex weights list`.")
    results = []
    for entry in entries:
        if not entry.path.is_file():
            results.append((entry, "missing"))
        else:
            results.append((entry, "ok" if file_sha256(entry.path) == entry.sha256 else "changed"))
    return results


def import_weights(path: str | os.PathLike, name: str | None = None) -> WeightsEntry:
    """Check a weights file and copy it into the user's folder.

    Args:
        path: a checkpoint of this project, or an official SAM or UAE file.
        name: how to call it; default the file's name without ending.

    Raises:
        InputError: unreadable, foreign or damaged file, or a name in use. ResourceError: the disk refused.
    """
    source = Path(path)
    digest, network, modality = _examined(source)
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", source.stem).strip("-.").lower()
    if not name or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"{name!r} is not a usable name; use letters, digits, dot, dash and underscore.")
    for entry in known_weights():
        if entry.name == name and (entry.sha256 != digest or entry.origin == "shipped"):
            raise InputError(f"The name {name} is taken by {entry.origin} weights; choose another with --name.")
    folder = imported_folder()
    target = folder / f"{name}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _copy(source, target)
        index = _read_index(folder)
        index[name] = {
            "file": target.name,
            "sha256": digest,
            "network": network,
            "modality": modality,
            "bytes": target.stat().st_size,
        }
        _write_index(folder, index)
    except OSError as error:
        raise ResourceError(
            f"{folder} cannot be written ({error.strerror}); set SAMCONVEX_HOME to a folder that can."
        ) from error
    return next(entry for entry in _entries(folder, "imported") if entry.name == name)


def _examined(path: Path) -> tuple[str, str, str]:
    """Checksum, network and modality of a file that holds complete weights."""
    content = _checkpoint(path)
    form = content.get("format") if isinstance(content, dict) else None
    family = next((f for f in FAMILIES if f.form == form), None)
    if family is None:
        model = load_sam_file(path)
        return model.sha256, model.kind, model.modality
    load_network(family.kind, path)
    return file_sha256(path), family.name, "ct" if family.kind is semantic.SemanticNet else "any"


def remove(name: str) -> Path:
    """Delete imported weights; returns the removed file.

    Raises:
        InputError: shipped, or not known.
    """
    for entry in known_weights():
        if entry.name != name:
            continue
        if entry.origin == "shipped":
            raise InputError(f"{name} is shipped with the product and cannot be removed.")
        index = _read_index(imported_folder())
        index.pop(name, None)
        try:
            _write_index(imported_folder(), index)
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            raise ResourceError(f"{entry.path} could not be removed ({error.strerror}).") from error
        return entry.path
    raise InputError(f"{name} is not a known weights name; see `samconvex weights list`.")


def load_network(kind: type[Network], name_or_path: str | os.PathLike | None = None) -> Network:
    """One of this package's networks by weights name or file, in evaluation mode; None is the shipped one.

    Args:
        kind: its class, one of :data:`FAMILIES`.

    Raises:
        InputError: unknown name; unreadable, altered, foreign or damaged file, or of another version.
    """
    family = next(f for f in FAMILIES if f.kind is kind)
    entry, path = _existing(name_or_path or family.default)
    if entry is not None:
        _check_unchanged(entry, file_sha256(path))
    content = _checkpoint(path)
    if not isinstance(content, dict) or content.get("format") != family.form:
        raise InputError(f"{path} holds other weights than {family.form}; give those of the network that is to run.")
    if content.get("version") != family.version:
        raise InputError(f"{path} has format version {content.get('version')}, this version reads {family.version}.")
    try:
        network = kind(**content["config"])
        network.load_state_dict(_as_float(content["state_dict"]))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"{path} holds damaged {family.form} weights; train or import them again.") from error
    return network.eval().requires_grad_(False)


def family_of(name_or_path: str | os.PathLike) -> str:
    """Which network a name or file holds weights of: "sam" or a name of :data:`FAMILIES`.

    Raises:
        InputError: unknown name or unreadable file.
    """
    entry, path = _existing(name_or_path)
    if entry is not None:
        return entry.network if any(f.name == entry.network for f in FAMILIES) else SAM
    stamp = path.stat()
    return _family_of_file(str(path.resolve()), stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=16)
def _family_of_file(path: str, _modified: int, _size: int) -> str:
    content = _checkpoint(Path(path))
    form = content.get("format") if isinstance(content, dict) else None
    return next((f.name for f in FAMILIES if f.form == form), SAM)


def weights_for(family: str, name_or_path: str | os.PathLike | None) -> str | os.PathLike | None:
    """The given weights if they are of this family of networks; None, its shipped ones, if not.

    Raises:
        InputError: see :func:`family_of`.
    """
    return name_or_path if name_or_path is not None and family_of(name_or_path) == family else None


def load_sam(name_or_path: str | os.PathLike | None = None) -> SamModel:
    """Embedding network by name or file; None is the shipped default.

    The last ones stay loaded, so that asking again costs nothing.

    Raises:
        InputError: unknown name; unreadable, truncated, altered or foreign file.
    """
    entry, path = _existing(name_or_path)
    stamp = path.stat()
    model = _load_cached(str(path.resolve()), stamp.st_mtime_ns, stamp.st_size)
    if entry is not None:
        _check_unchanged(entry, model.sha256)
    return model


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
    """Organ network by name or file; None is the shipped one.

    Raises:
        InputError: as :func:`load_network`.
    """
    wanted = name_or_path or DEFAULT_SEMANTIC
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
    content = _checkpoint(location)
    name, digest = location.stem, file_sha256(location)
    try:
        form = content.get("format") if isinstance(content, dict) else None
        if form == sam_compact.CHECKPOINT_FORMAT:
            return _compact(content, sam_compact.SAMCompact, sam_compact.CHECKPOINT_VERSION, name, digest)
        if form == sam_2d.CHECKPOINT_FORMAT:
            return _compact(content, sam_2d.SAM2D, sam_2d.CHECKPOINT_VERSION, name, digest)
        state = sam_official.checkpoint_state(content)
        if state is None:
            raise ValueError("not a dictionary of tensors")
        return _official(sam_official.from_state(state), name, digest)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"{path} does not hold SAM weights that this version can use ({reason}).") from error


def _compact(
    content: dict[str, Any], kind: type[sam_compact.SAMCompact], readable: int, name: str, digest: str
) -> SamModel:
    version = content.get("version")
    if version != readable:
        raise ValueError(f"format version {version}, this version reads {readable}")
    network = kind(**content["config"])
    network.load_state_dict(_as_float(content["state_dict"]))
    meta = content.get("meta") or {}
    calibration = dict(meta.get("calibration") or {})
    return compact_model(sam_compact.fused(network), name, digest, str(meta.get("modality", "ct")), calibration)


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


def _existing(name_or_path: str | os.PathLike | None) -> tuple[WeightsEntry | None, Path]:
    """The registry's entry, if it is one, and the file, which exists."""
    found = find(name_or_path)
    entry, path = (found, found.path) if isinstance(found, WeightsEntry) else (None, found)
    if not path.is_file():
        raise InputError(f"The weights file {path} is missing; reinstall, or run `samconvex weights verify`.")
    return entry, path


def _check_unchanged(entry: WeightsEntry, digest: str) -> None:
    if digest != entry.sha256:
        raise InputError(
            f"{entry.path} is not the file that was {entry.origin} (checksum); install or import it again."
        )


def _checkpoint(path: Path) -> Any:
    """What a weights file holds."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path of the weights file.")
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"{path} is too large for a weights file; check that it is the right one.")
    try:
        # weights_only refuses anything but tensors and plain containers; mmap would keep the file busy on Windows.
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} could not be read as weights; it is damaged, truncated or not a PyTorch weights file."
        ) from error


def _as_float(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they compute; files hold half precision."""
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _entries(folder: Path, origin: str) -> list[WeightsEntry]:
    entries = []
    for name, item in sorted(_read_index(folder).items()):
        card = folder / str(item["card"]) if item.get("card") else None
        entries.append(
            WeightsEntry(
                name,
                folder / str(item["file"]),
                origin,
                str(item.get("network", "?")),
                str(item.get("modality", "?")),
                str(item["sha256"]),
                int(item.get("bytes", 0)),
                card if card and card.is_file() else None,
            )
        )
    return entries


def _read_index(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / INDEX} is damaged; remove it and import the weights again.") from error
    valid = isinstance(content, dict) and all(
        isinstance(item, dict) and "file" in item and "sha256" in item for item in content.values()
    )
    # An index must not point out of its folder.
    if not valid or any(Path(str(item["file"])).name != item["file"] for item in content.values()):
        raise InputError(f"{folder / INDEX} is damaged; remove it and import the weights again.")
    return content


def _write_index(folder: Path, index: dict[str, dict[str, Any]]) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=folder, suffix=".partial")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(index, stream, indent=2, sort_keys=True)
    os.replace(temporary, folder / INDEX)


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(target.name + ".partial")
    shutil.copyfile(source, temporary)
    os.replace(temporary, target)
