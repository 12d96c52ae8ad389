"""Stands for the engine in tests of the module: answers in a moment, with a known transform.

Called as the engine is, after one word: done, slow, input, crash or killed, or a word of ``VERDICTS``.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

VERDICTS = {"good": "good", "check": "check", "do-not-use": "do not use"}
SHIFT_LPS = (-6.0, 4.0, -5.0)


def report(stage, percent):
    line = {
        "stage": stage,
        "fraction": 0.5,
        "percent": percent,
        "seconds_left": 3.0,
        "memory_mib": 640.0,
        "message": "",
    }
    print(json.dumps(line), flush=True)


def transforms(fixed):
    """Fixed to moving and back: a smooth push in the middle of the fixed image, then a shift."""
    import numpy as np
    import SimpleITK as sitk

    size = [24, 24, 24]
    extent = [n * s for n, s in zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)]
    spacing = [e * 1.2 / 23 for e in extent]
    field = sitk.Image(size, sitk.sitkVectorFloat64, 3)
    field.SetSpacing(spacing)
    field.SetDirection(fixed.GetDirection())
    first = [-0.1 * n for n in fixed.GetSize()]
    field.SetOrigin(fixed.TransformContinuousIndexToPhysicalPoint(first))
    bump = np.sin(np.pi * np.linspace(0, 1, 24))
    amplitude = bump[:, None, None] * bump[None, :, None] * bump[None, None]
    image = sitk.GetImageFromArray(amplitude[..., None] * np.array([5.0, -4.0, 6.0]), isVector=True)
    image.CopyInformation(field)
    forward = sitk.CompositeTransform(3)
    forward.AddTransform(sitk.TranslationTransform(3, SHIFT_LPS))
    inverse = sitk.DisplacementFieldTransform(sitk.InvertDisplacementField(image, maximumNumberOfIterations=20))
    forward.AddTransform(sitk.DisplacementFieldTransform(image))
    backward = sitk.CompositeTransform(3)
    backward.AddTransform(inverse)
    backward.AddTransform(sitk.TranslationTransform(3, [-v for v in SHIFT_LPS]))
    return forward, backward


def register(arguments, behavior):
    import SimpleITK as sitk

    parser = argparse.ArgumentParser()
    parser.add_argument("fixed")
    parser.add_argument("moving")
    parser.add_argument("-o", "--output")
    options, _others = parser.parse_known_args(arguments)
    report("read", 5)
    if behavior == "input":
        print(f"{options.moving} is constant (every voxel is 0); choose an image with content.", file=sys.stderr)
        return 2
    if behavior == "crash":
        raise ZeroDivisionError("division by zero")
    if behavior == "killed":
        signal.raise_signal(signal.SIGKILL)
    report("convex", 50)
    if behavior == "slow":
        time.sleep(60)
    time.sleep(0.2)
    fixed, moving = sitk.ReadImage(options.fixed), sitk.ReadImage(options.moving)
    forward, backward = transforms(fixed)
    folder = Path(options.output)
    folder.mkdir()
    sitk.WriteTransform(forward, str(folder / "transform.h5"))
    sitk.WriteTransform(backward, str(folder / "inverse.h5"))
    lowest = float(sitk.GetArrayViewFromImage(moving).min())
    warped = sitk.Resample(moving, fixed, forward, sitk.sitkLinear, lowest)
    sitk.WriteImage(warped, str(folder / "warped.nii.gz"))
    valid = sitk.Resample(moving * 0 + 1, fixed, forward, sitk.sitkNearestNeighbor, 0.0, sitk.sitkUInt8)
    sitk.WriteImage(valid, str(folder / "valid.nii.gz"))
    error = sitk.Image([8, 8, 8], sitk.sitkFloat32) + 2.0
    error.SetSpacing([n * step / 8 for n, step in zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)])
    error.SetOrigin(fixed.GetOrigin())
    error.SetDirection(fixed.GetDirection())
    error[4, 4, 4] = 9.0
    sitk.WriteImage(error, str(folder / "error.nii.gz"))
    values = {
        "version": "0.1.0",
        "preset": "ct-inter-patient",
        "arguments": arguments,
        "inputs": {"fixed": {"path": options.fixed}, "moving": {"path": options.moving}},
        "seconds": {"total": 0.3},
        "peak_memory_mib": 640.0,
        "folding_percent": 0.0,
    }
    if behavior in VERDICTS:
        values["verdict"] = {"level": VERDICTS[behavior], "reasons": ["Bones do <not> lie on each other."]}
    if "--moving-labels" in arguments:
        values["dice"] = {"initial": {"1": 0.4}, "final": {"1": 0.8}, "initial_mean": 0.4, "final_mean": 0.8}
    if "--protect" in arguments:
        body = {"label": 1, "deformation_removed_mm": 1.5, "residual_mm": 0.4, "volume_change_percent": 0.1}
        values["protected"] = {"mode": "rigid", "bodies": [body]}
        values["warnings"] = ["Protected Rib could not be kept exactly."]
    (folder / "report.json").write_text(json.dumps(values))
    report("write", 99)
    return 0


def main():
    behavior, command, *arguments = sys.argv[1:]
    if command == "presets":
        seconds = 75.0 + 30.0 * ("--features" in arguments) + 15.0 * ("--refine" in arguments)
        print(
            json.dumps(
                {
                    "ct-inter-patient": {
                        "settings": {},
                        "forecast": {"seconds": seconds, "memory_gib": 2.5},
                        "strengths": {
                            "normal": {"coupling": 0.04, "box_passes": 2},
                            "stiff": {"coupling": 0.16, "box_passes": 3, "regularization": 4.0},
                        },
                    }
                },
                indent=2,
            )
        )
        return 0
    return register(arguments, behavior)


if __name__ == "__main__":
    sys.exit(main())
