"""Small valid files of every kind that the engine reads, as bytes; the fuzz campaign damages them."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

# A DICOM element: group, element, value representation, value.
Element = tuple[int, int, bytes, bytes]
SIZE = (12, 10, 9)


def image(labels: bool = False, components: int = 1) -> sitk.Image:
    """A small image with an oblique direction; with ``components`` 3 a displacement field."""
    random = np.random.default_rng(7)
    shape = (*SIZE[::-1], components) if components > 1 else SIZE[::-1]
    values: np.ndarray = random.integers(-1000, 1000, shape).astype(np.int16)
    if labels:
        values = random.integers(0, 4, shape).astype(np.uint8)
    if components > 1:
        values = random.normal(0, 2, shape).astype(np.float32)
    result = sitk.GetImageFromArray(values, isVector=components > 1)
    result.SetSpacing((1.5, 1.5, 3.0))
    result.SetOrigin((-20.0, 15.0, 300.0))
    result.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    return result


@lru_cache
def image_bytes(ending: str, labels: bool = False, components: int = 1, compressed: bool = False) -> bytes:
    """An image file of that ending."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"image{ending}"
        sitk.WriteImage(image(labels, components), str(path), compressed)
        content = path.read_bytes()
    return gzip.decompress(content) if ending.endswith(".gz") else content


@lru_cache
def transform_bytes(ending: str, kind: str) -> bytes:
    """A transform file: "affine", "composite" (with a field) or "bspline"."""
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((1.1, 0.1, 0, -0.1, 0.9, 0, 0, 0, 1))
    affine.SetTranslation((5, -4, 3))
    transform: sitk.Transform = affine
    if kind == "composite":
        field = sitk.Cast(image(components=3), sitk.sitkVectorFloat64)
        transform = sitk.CompositeTransform([affine, sitk.DisplacementFieldTransform(field)])
    elif kind == "bspline":
        transform = sitk.BSplineTransformInitializer(image(), [2, 2, 2])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"transform{ending}"
        sitk.WriteTransform(transform, str(path))
        return path.read_bytes()


def dicom_slices(count: int = 9) -> list[list[Element]]:
    """The elements of a short CT series, slice by slice."""
    ct = b"1.2.840.10008.5.1.4.1.1.2"
    voxels = np.random.default_rng(3).integers(-1000, 1000, (count, 10, 12)).astype("<i2")
    slices = []
    for number in range(count):
        position = f"-20.0\\15.0\\{300 + 3 * number}.0".encode()
        slices.append(
            [
                (0x0008, 0x0016, b"UI", ct),
                (0x0008, 0x0018, b"UI", b"1.2.3.4.%d" % (number + 1)),
                (0x0008, 0x0060, b"CS", b"CT"),
                (0x0018, 0x0050, b"DS", b"3.0"),
                (0x0020, 0x000D, b"UI", b"1.2.3.1"),
                (0x0020, 0x000E, b"UI", b"1.2.3.2"),
                (0x0020, 0x0013, b"IS", b"%d" % (number + 1)),
                (0x0020, 0x0032, b"DS", position),
                (0x0020, 0x0037, b"DS", b"1\\0\\0\\0\\1\\0"),
                (0x0028, 0x0002, b"US", struct.pack("<H", 1)),
                (0x0028, 0x0004, b"CS", b"MONOCHROME2"),
                (0x0028, 0x0010, b"US", struct.pack("<H", 10)),
                (0x0028, 0x0011, b"US", struct.pack("<H", 12)),
                (0x0028, 0x0030, b"DS", b"1.5\\1.5"),
                (0x0028, 0x0100, b"US", struct.pack("<H", 16)),
                (0x0028, 0x0101, b"US", struct.pack("<H", 16)),
                (0x0028, 0x0102, b"US", struct.pack("<H", 15)),
                (0x0028, 0x0103, b"US", struct.pack("<H", 1)),
                (0x0028, 0x1052, b"DS", b"0"),
                (0x0028, 0x1053, b"DS", b"1"),
                (0x7FE0, 0x0010, b"OW", voxels[number].tobytes()),
            ]
        )
    return slices


def dicom_bytes(elements: list[Element]) -> bytes:
    """A DICOM file, explicit little endian."""
    meta = [(0x0002, 0x0002, b"UI", elements[0][3]), (0x0002, 0x0003, b"UI", b"1.2.3.4.1")]
    header = _elements([*meta, (0x0002, 0x0010, b"UI", b"1.2.840.10008.1.2.1")])
    length = _elements([(0x0002, 0x0000, b"UL", struct.pack("<I", len(header)))])
    return bytes(128) + b"DICM" + length + header + _elements(elements)


def _elements(elements: list[Element]) -> bytes:
    written = []
    for group, number, representation, value in elements:
        value += (b"\0" if representation == b"UI" else b" ") * (len(value) % 2)
        size = struct.pack("<HI", 0, len(value)) if representation == b"OW" else struct.pack("<H", len(value) & 0xFFFF)
        written.append(struct.pack("<HH", group, number) + representation + size + value)
    return b"".join(written)


POINTS = {
    ".csv": "x,y,z,label\n-20,15,300,liver\n-15.5,18,303,\n,,,lost\n",
    ".fcsv": "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
    "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    "1,-20,15,300,0,0,0,1,1,1,0,liver,,,2,0\n2,-15,18,303,0,0,0,1,1,1,0,spleen,,,2,0\n",
    ".txt": "point\n2\n-20 15 300\n-15 18 303\n",
    ".pts": "index\n2\n1 2 3\n4 5 6\n",
}


def markups() -> dict[str, Any]:
    """A .mrk.json with points, a line and an ROI."""
    point = {"id": "1", "label": "a", "position": [-20.0, 15.0, 300.0], "positionStatus": "defined"}
    other = {"id": "2", "label": "b", "position": [-15.0, 19.0, 306.0], "orientation": [-1, 0, 0, 0, -1, 0, 0, 0, 1]}
    base = {"coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": [point, other]}
    roi = {"size": [5, 6, 7], "orientation": [1, 0, 0, 0, 1, 0, 0, 0, 1], "controlPoints": [point]}
    return {"markups": [{"type": "Fiducial", **base}, {"type": "Line", **base}, {**base, "type": "ROI", **roi}]}


def lesions() -> list[dict[str, Any]]:
    """A .json list of lesions."""
    return [
        {"name": "one", "point": [-15, 18, 303]},
        {"name": "two", "box": [[-18, 15, 300], [-10, 20, 310]]},
        {"name": "three", "line": [[-18, 15, 300], [-10, 20, 300]]},
        {"name": "four", "mask": "mask.nii.gz"},
    ]


@lru_cache
def checkpoint(kind: str) -> dict[str, Any]:
    """The content of a small checkpoint: "sam", "masr", "featcnn" or "semantic"."""
    from samconvex.networks import featcnn, masr, sam_compact, semantic

    modules: dict[str, Any] = {"sam": sam_compact, "masr": masr, "featcnn": featcnn, "semantic": semantic}
    torch.manual_seed(1)
    network: Any
    if kind == "sam":
        network = sam_compact.SAMCompact((4, 4, 4, 4), (1, 1, 1, 1), 8, 8)
    elif kind == "semantic":
        network = semantic.SemanticNet((4, 4, 4, 4), (1, 1, 1, 1), 4, ("liver", "spleen"))
    else:
        network = {"masr": masr.MASRNet, "featcnn": featcnn.FeatCNN}[kind]()
    module = modules[kind]
    tensors = {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    return {
        "format": module.CHECKPOINT_FORMAT,
        "version": module.CHECKPOINT_VERSION,
        "config": network.config,
        "state_dict": tensors,
        "meta": {"step": 3, "modality": "ct", "calibration": {"minimum_score": 0.7}},
    }


def checkpoint_bytes(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def json_bytes(content: Any) -> bytes:
    """A JSON text; the word "@deep@" becomes nested lists."""
    return json.dumps(content, indent=1).encode().replace(b'"@deep@"', b"[" * 50000 + b"]" * 50000)
