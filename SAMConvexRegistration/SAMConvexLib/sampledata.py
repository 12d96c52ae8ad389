"""Sample data: a chest CT of Slicer's own collection and a breathing-like deformed copy with known truth."""

import math
import os

import numpy as np
import SimpleITK as sitk
import slicer
from slicer.i18n import tr as _

from . import nodes

CATEGORY = "SAMConvex"
SAMPLE_NAME = "SAMConvexChestPair"
PEAK_MM = 20.0


def register():
    """Add the sample to the Sample Data module; downloads nothing by itself."""
    registerSample(SAMPLE_NAME, loadChestPair)


def registerSample(name, load):
    """Add a button to the Sample Data module that calls ``load()``.

    Only the button does: ``SampleData.downloadSample(name)`` knows files of the network and nothing else.
    """
    try:
        import SampleData
    except ImportError:
        return
    logic = SampleData.SampleDataLogic
    if hasattr(logic, "registerCustomSampleDataCategory"):
        logic.registerCustomSampleDataCategory(CATEGORY, _("Registration (SAMConvex)"))
    thumbnail = os.path.join(os.path.dirname(os.path.dirname(__file__)), "Resources", "Icons", name + ".png")
    logic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=name,
        # Their lengths are compared, so that none may be missing.
        uris=[],
        fileNames=[],
        nodeNames=[],
        thumbnailFileName=thumbnail if os.path.isfile(thumbnail) else None,
        customDownloader=lambda source: load(),
    )


def loadChestPair():
    """Download Slicer's CTChest sample and make the deformed copy; returns [fixed node, moving node].

    An empty list where the download failed; the Sample Data module has told why.
    """
    import SampleData

    downloaded = SampleData.SampleDataLogic().downloadSamples("CTChest")
    if not downloaded or downloaded[0] is None:
        return []
    fixed = downloaded[0]
    moving = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLScalarVolumeNode", _("{name} deformed").format(name=fixed.GetName())
    )
    fillDeformed(moving, fixed)
    return [fixed, moving]


def fillDeformed(target, source):
    """Fill ``target`` with ``source`` moved by a smooth push of 20 mm downwards, strongest in the middle."""
    image = nodes.imageFromVolume(source).image
    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    lattice = sitk.Image([int(math.ceil(s)) + 1 for s in size * spacing / 8.0], sitk.sitkUInt8)
    lattice.SetSpacing([8.0] * 3)
    lattice.SetOrigin(image.GetOrigin())
    lattice.SetDirection(image.GetDirection())
    axes = [np.linspace(-1, 1, count) for count in reversed(lattice.GetSize())]
    bumps = [np.cos(axis * math.pi / 2) ** 2 for axis in axes]
    bump = bumps[0][:, None, None] * bumps[1][None, :, None] * bumps[2][None, None]
    vectors = np.zeros((*bump.shape, 3))
    vectors[..., 2], vectors[..., 1] = PEAK_MM * bump, 0.3 * PEAK_MM * bump
    field = sitk.GetImageFromArray(vectors, isVector=True)
    field.CopyInformation(lattice)
    lowest = float(np.min(sitk.GetArrayViewFromImage(image)))
    deformed = sitk.Resample(image, image, sitk.DisplacementFieldTransform(field), sitk.sitkLinear, lowest)
    nodes.fillVolumeLike(target, sitk.GetArrayFromImage(deformed), source)
