"""Run one peer on one prepared pair: ``python peers.py METHOD JOB OUTPUT --threads N``, in the peers' environment.

JOB holds ``fixed.nii.gz`` and ``moving.nii.gz`` on one grid (the moving image already went through the common start),
``moving_native.nii.gz`` for own pipelines, and optionally ``fixed_mask.nii.gz`` and ``moving_mask.nii.gz``; for methods
that end in ``-organs`` also ``organs.npz``, the probabilities of our organ network, which they get beside the images.
OUTPUT receives ``field.mha`` (displacement, LPS mm, on the fixed grid, ITK's fixed-to-moving sense) and ``run.json``.

This file imports nothing of samconvex: each tool runs as its documentation says, with its own defaults.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

# A method prepares its inputs, then calls `timed` on the registration proper, and returns the displacement field.
Timed = Callable[[Callable], object]

# The folder of deedsBCV's programs.
DEEDS = "SAMCONVEX_DEEDS"
# Ending of the methods that get the probabilities of our organ network, which then compare what our preset does.
WITH_ORGANS = "-organs"
# Weights of the squared differences of the probabilities against those of MIND, and of their correlation against the
# images'. On hn168-hn172, which nobody is evaluated on, none gained: convexAdam's Dice is 0.664 without, 0.663 with
# weight 1, 0.662 with 4 and 0.659 with 16; greedy's is 0.682 without and 0.661 with 0.5.
CONVEXADAM_ORGANS, GREEDY_ORGANS = 4.0, 0.5
PACKAGE = {"convexadam": "convexAdam", "elastix": "itk-elastix", "ants": "antspyx", "greedy": "picsl-greedy"}


def convexadam(job: Path, timed: Timed, threads: int, organs: bool = False):
    """convexAdam on MIND-SSC, `convex_adam_pt` with its defaults; masks where the pair has them.

    With ``organs`` its features are MIND-SSC and the probabilities, side by side.

    Its lattice drops what does not fill a cell of 6 voxels, which shifts the result, so the images are padded to
    multiples of 6 with their lowest value first: the tool is shown at its best.
    """
    import numpy as np
    import SimpleITK as sitk
    import torch
    from convexAdam import convex_adam_MIND

    torch.set_num_threads(threads)
    fixed = sitk.ReadImage(str(job / "fixed.nii.gz"), sitk.sitkFloat32)
    size = np.array(fixed.GetSize())
    padding = [(0, int(-n % 6)) for n in size]

    def padded(name: str):
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(job / name), sitk.sitkFloat32)).transpose(2, 1, 0)
        return torch.from_numpy(np.pad(array, padding, constant_values=array.min()).copy())

    options: dict = {"device": torch.device("cpu"), "dtype": torch.float32}
    scratch = tempfile.TemporaryDirectory()
    if (job / "fixed_mask.nii.gz").exists():
        import nibabel

        for side in ("fixed", "moving"):
            path = f"{scratch.name}/{side}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(padded(f"{side}_mask.nii.gz").numpy(), np.eye(4)), path)
            options[f"path_{side}_mask"] = path
        options["use_mask"] = True
    first, second = padded("fixed.nii.gz"), padded("moving.nii.gz")
    if organs:
        maps = [np.pad(part.transpose(0, 3, 2, 1), [(0, 0), *padding]) for part in _organs(job)]
        own = convex_adam_MIND.extract_features

        def features(**arguments):
            # Its loss is a mean over channels: scaled so that MIND counts as much as without the others.
            scale = (1 + len(maps[0]) / 12) ** 0.5
            return tuple(
                scale * torch.cat([mind, CONVEXADAM_ORGANS**0.5 * torch.from_numpy(part)[None].to(mind)], 1)
                for mind, part in zip(own(**arguments), maps, strict=True)
            )

        convex_adam_MIND.extract_features = features
    voxels = timed(lambda: convex_adam_MIND.convex_adam_pt(first, second, **options))
    scratch.cleanup()
    voxels = voxels[: size[0], : size[1], : size[2]]
    # Voxel steps along x, y, z of an identity-direction image: millimeters are steps times spacing.
    return _field(fixed, (voxels * np.array(fixed.GetSpacing())).transpose(2, 1, 0, 3))


def elastix(job: Path, timed: Timed, threads: int, own: bool = False):
    """itk-elastix: the default B-spline parameter map; own pipeline: default translation, affine and B-spline maps.

    Threads come from ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS (the caller sets it): version 0.25.4 crashes with the
    argument ``number_of_threads=2``.
    """
    import itk
    import numpy as np

    fixed = itk.imread(str(job / "fixed.nii.gz"), itk.F)
    moving = itk.imread(str(job / ("moving_native.nii.gz" if own else "moving.nii.gz")), itk.F)
    parameters = itk.ParameterObject.New()
    for stage in ("translation", "affine", "bspline") if own else ("bspline",):
        parameters.AddParameterMap(parameters.GetDefaultParameterMap(stage))
    options: dict = {}
    if (job / "fixed_mask.nii.gz").exists():
        options["fixed_mask"] = itk.imread(str(job / "fixed_mask.nii.gz"), itk.UC)
        if not own:
            options["moving_mask"] = itk.imread(str(job / "moving_mask.nii.gz"), itk.UC)
    _, result = timed(
        lambda: itk.elastix_registration_method(
            fixed, moving, parameter_object=parameters, log_to_console=False, **options
        )
    )
    displacement = np.array(itk.array_from_image(itk.transformix_deformation_field(fixed, result)))
    import SimpleITK as sitk

    return _field(sitk.ReadImage(str(job / "fixed.nii.gz")), displacement)


def ants(job: Path, timed: Timed, threads: int, own: bool = False):
    """antspyx: `ants.registration` with SyNOnly from the common start; own pipeline: its default, SyN after affine."""
    import ants as library
    import SimpleITK as sitk

    fixed = library.image_read(str(job / "fixed.nii.gz"))
    moving = library.image_read(str(job / ("moving_native.nii.gz" if own else "moving.nii.gz")))
    options: dict = (
        {"type_of_transform": "SyN"} if own else {"type_of_transform": "SyNOnly", "initial_transform": "Identity"}
    )
    if (job / "fixed_mask.nii.gz").exists():
        options["mask"] = library.image_read(str(job / "fixed_mask.nii.gz"))
    with tempfile.TemporaryDirectory() as scratch:
        result = timed(lambda: library.registration(fixed, moving, outprefix=f"{scratch}/", **options))
        composed = library.apply_transforms(fixed, moving, result["fwdtransforms"], compose=f"{scratch}/all")
        return sitk.ReadImage(composed, sitk.sitkVectorFloat32)


def greedy(
    job: Path,
    timed: Timed,
    threads: int,
    own: bool = False,
    metric: str = "NCC 2x2x2",
    affine_only: bool = False,
    organs: bool = False,
):
    """picsl-greedy as its quick start runs it: NCC of radius 2, 100x50x10 iterations (own: after its own affine).

    With ``organs`` the probabilities are a second pair of images, of several components.

    Its affine starts from the images' centers; alone (``affine_only``) it tries 1500 random turns and shifts first.
    """
    import SimpleITK as sitk
    from picsl_greedy import Greedy3D

    moving = job / ("moving_native.nii.gz" if own else "moving.nii.gz")
    with tempfile.TemporaryDirectory() as scratch, open(os.devnull, "w") as quiet:
        warp, affine, composed = (f"{scratch}/{name}" for name in ("warp.nii.gz", "affine.mat", "composed.nii.gz"))
        common = f"-d 3 -threads {threads} -m {metric} -n 100x50x10 -i {job}/fixed.nii.gz {moving}"
        if organs:
            names = [f"{scratch}/{side}.nii.gz" for side in ("fixed", "moving")]
            image = sitk.ReadImage(str(job / "fixed.nii.gz"))
            for name, part in zip(names, _organs(job), strict=True):
                sitk.WriteImage(_field(image, part.transpose(1, 2, 3, 0)), name)
            common += f" -w {GREEDY_ORGANS} -i {' '.join(names)}"
        if (job / "fixed_mask.nii.gz").exists():
            common += f" -gm {job}/fixed_mask.nii.gz"
        tool = Greedy3D()

        def register() -> None:
            if affine_only:
                search = "-search 1500 20 40"
                tool.execute(f"{common} -a -dof 12 -ia-image-centers {search} -o {affine}", out=quiet, err=quiet)
                return
            if own:
                tool.execute(f"{common} -a -dof 12 -ia-image-centers -o {affine}", out=quiet, err=quiet)
            tool.execute(f"{common} {f'-it {affine}' if own else ''} -o {warp}", out=quiet, err=quiet)

        timed(register)
        if own:
            chain = affine if affine_only else f"{warp} {affine}"
            reslice = f"-d 3 -rf {job}/fixed.nii.gz -r {chain} -rc {composed}"
            Greedy3D().execute(reslice, out=quiet, err=quiet)
        return sitk.ReadImage(composed if own else warp, sitk.sitkVectorFloat32)


def deeds(job: Path, timed: Timed, threads: int):
    """deedsBCV with its defaults, from the programs that the user built (:data:`DEEDS`, a folder).

    Its field is read by warping images of each voxel's own numbers with the program's own tool, which repeats the image
    at its edges: places beyond the moving image come to lie on its border.
    """
    import numpy as np
    import SimpleITK as sitk

    folder = Path(os.environ[DEEDS])
    fixed = sitk.ReadImage(str(job / "fixed.nii.gz"), sitk.sitkFloat32)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}

    def run(program: str, *words: str) -> None:
        subprocess.run([str(folder / program), *words], check=True, capture_output=True, env=environment)

    with tempfile.TemporaryDirectory() as scratch:
        images = ("-F", f"{job}/fixed.nii.gz", "-M", f"{job}/moving.nii.gz")
        timed(lambda: run("deedsBCV", *images, "-O", f"{scratch}/out"))
        own = np.indices(fixed.GetSize()[::-1], dtype=np.float32)
        moved = []
        for axis in (2, 1, 0):
            ramp = sitk.GetImageFromArray(own[axis])
            ramp.CopyInformation(fixed)
            sitk.WriteImage(ramp, f"{scratch}/ramp.nii.gz")
            run(
                "applyBCVfloat", "-M", f"{scratch}/ramp.nii.gz", "-O", f"{scratch}/out", "-D", f"{scratch}/moved.nii.gz"
            )
            moved.append(
                sitk.GetArrayFromImage(sitk.ReadImage(f"{scratch}/moved.nii.gz", sitk.sitkFloat32)) - own[axis]
            )
    return _field(fixed, np.stack(moved, -1) * np.array(fixed.GetSpacing()))


METHODS: dict[str, Callable] = {
    "convexadam": convexadam,
    "elastix": elastix,
    "ants": ants,
    "greedy": greedy,
    "deeds": deeds,
    "convexadam-organs": lambda job, timed, threads: convexadam(job, timed, threads, organs=True),
    "greedy-organs": lambda job, timed, threads: greedy(job, timed, threads, organs=True),
    "greedy-nmi": lambda job, timed, threads: greedy(job, timed, threads, metric="NMI"),
    "elastix-own": lambda job, timed, threads: elastix(job, timed, threads, own=True),
    "ants-own": lambda job, timed, threads: ants(job, timed, threads, own=True),
    "greedy-own": lambda job, timed, threads: greedy(job, timed, threads, own=True),
    "greedy-affine": lambda job, timed, threads: greedy(job, timed, threads, own=True, affine_only=True),
}


def _organs(job: Path) -> list:
    """Probabilities (organs, z, y, x) of the fixed and the moving image, float32."""
    import numpy as np

    with np.load(job / "organs.npz") as stored:
        return [stored[side].astype(np.float32) / 255 for side in ("fixed", "moving")]


def _field(fixed, displacement):
    """Vector image on the grid of ``fixed`` from an array (z, y, x, components), such as a field in LPS mm."""
    import numpy as np
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(displacement, dtype=np.float32), isVector=True)
    image.CopyInformation(fixed)
    return image


def processor_seconds() -> float:
    """The processor's seconds of this process and of the programs that it ran."""
    return sum(os.times()[:4])


def peak_memory_mib() -> float:
    """Largest resident set of this process so far, or of a program that it ran."""
    import resource

    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return max(int(line.split()[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=sorted(METHODS))
    parser.add_argument("job", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    record: dict = {}

    def timed(work: Callable):
        begin, processor = time.perf_counter(), processor_seconds()
        result = work()
        record["seconds"] = time.perf_counter() - begin
        record["cpu_seconds"] = processor_seconds() - processor
        record["peak_memory_mib"] = peak_memory_mib()
        return result

    job, output = arguments.job.resolve(), arguments.output.resolve()
    # elastix leaves its deformation field in the current folder.
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        field = METHODS[arguments.method](job, timed, arguments.threads)
        os.chdir(output)
    import SimpleITK as sitk

    package = PACKAGE.get(arguments.method.split("-")[0])
    record["version"] = f"{package} {version(package)}" if package else f"{arguments.method}, as built"
    sitk.WriteImage(field, str(output / "field.mha"))
    (output / "run.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main()
