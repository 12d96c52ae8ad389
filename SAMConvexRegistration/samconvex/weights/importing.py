"""Weights of others: examined, and copied to the user's folder."""

from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path

import torch

from ..errors import InputError, ResourceError
from ..io.files import file_sha256, replaced
from ..networks import semantic
from .checkpoints import read_checkpoint
from .models import FAMILIES, load_network, load_sam_file, readable_checkpoint
from .registry import WeightsEntry, all_entries, copy_weights, imported_folder, known_weights, read_index, write_index


def import_weights(path: str | os.PathLike, name: str | None = None) -> WeightsEntry:
    """Check a weights file and copy it into the user's folder.

    Args:
        path: a checkpoint of this project, or an official SAM, UAE or LapIRN file.
        name: how to call it; default the file's name without ending.

    Raises:
        InputError: unreadable, foreign or damaged file, or a name in use. ResourceError: the disk refused.
    """
    source = Path(path)
    digest, network, modality = _examined(source)
    # A published file whose network only its name tells is kept in a form that says so itself.
    own = _own_form(source)
    if own is not None:
        digest = hashlib.sha256(own).hexdigest()
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
        if own is None:
            copy_weights(source, target)
        else:
            with replaced(target) as temporary:
                temporary.write_bytes(own)
        index = read_index(folder)
        index[name] = {
            "file": target.name,
            "sha256": digest,
            "network": network,
            "modality": modality,
            "bytes": target.stat().st_size,
        }
        write_index(folder, index)
    except OSError as error:
        raise ResourceError(
            f"{folder} cannot be written ({error.strerror}); set SAMCONVEX_HOME to a folder that can."
        ) from error
    return next(entry for entry in all_entries(folder, "imported") if entry.name == name)


def _examined(path: Path) -> tuple[str, str, str]:
    """Checksum, network and modality of a file that holds complete weights."""
    content = readable_checkpoint(path)
    form = content.get("format") if isinstance(content, dict) else None
    family = next((f for f in FAMILIES if f.form == form), None)
    if family is None:
        model = load_sam_file(path)
        return model.sha256, model.kind, model.modality
    load_network(family.kind, path)
    return file_sha256(path), family.name, "ct" if family.kind is semantic.SemanticNet else "any"


def _own_form(path: Path) -> bytes | None:
    """A published file as one of this package's own; None where it is kept as it is."""
    content = readable_checkpoint(path)
    if not isinstance(content, dict) or "format" not in content or "format" in read_checkpoint(path):
        return None
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()
