"""``samconvex train NETWORK --data DIR -o WEIGHTS``."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from .console import ConsoleProgress

PHANTOM = "phantom"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "network",
        choices=["sam", "masr", "featcnn", "suits", "semantic", "lapirn", "same", "sides", "levels"],
        help="what to train: sam, the anatomical embedding of CT; masr, descriptors alike across modalities; featcnn, "
        "a replicator of MIND; suits, featcnn end to end; semantic, organ probabilities from label maps; lapirn, "
        "a field in one pass; same, SAM-VoxelMorph, the same of CT with embeddings; sides, whether left and "
        "right are exchanged in a CT; levels, the reference that tells which part of a body an image shows, from "
        "embeddings",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="folder of CT images, searched through; label maps next to them (NAME_seg, NAME_labels) become matches "
        f"between patients. '{PHANTOM}' draws invented torsos instead",
    )
    parser.add_argument("-o", "--output", required=True, metavar="WEIGHTS", help="weights file to write (.pt)")
    parser.add_argument("--minutes", type=float, help="stop cleanly after this time of work (default 60)")
    parser.add_argument("--steps", type=int, help="stop after this many steps instead")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run into WEIGHTS stopped")
    parser.add_argument("--start-from", metavar="FILE", help="begin with these weights instead of random ones")
    parser.add_argument(
        "--dimension",
        type=int,
        choices=[2, 3],
        help="sam: 3 embeds CT (default), 2 X-ray images, computed from the CTs; see configs/sam_xray.json",
    )
    parser.add_argument("--config", metavar="FILE", help="JSON file of settings; see training/configs")
    parser.add_argument("--cache", metavar="DIR", help="keep preprocessed volumes in this folder")
    parser.add_argument(
        "--device",
        default="auto",
        help="auto (default; a CUDA device if there is one), cpu, cuda or cuda:N; featcnn, suits and levels take the "
        "CPU",
    )
    parser.add_argument("--threads", type=int, help="threads that compute (default: the configuration's)")
    parser.add_argument("--seed", type=int, help="seed of weights and batches (default: the configuration's)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing weights file")
    parser.add_argument("--progress", choices=["bar", "json", "none"], default="bar", help="how to report progress")


def run(args: argparse.Namespace) -> int:
    """Train and say what came out.

    Raises:
        InputError: unusable arguments, data or files. Cancelled: stopped by the user; the weights so far are kept.
    """
    output = Path(args.output)
    if args.minutes is not None and not args.minutes > 0:
        raise InputError("--minutes must be positive.")
    if args.steps is not None and args.steps < 1:
        raise InputError("--steps must be at least 1.")
    if output.is_dir():
        raise InputError(f"{output} is a folder; -o needs the name of a weights file.")
    if output.exists() and not args.overwrite and not args.resume:
        raise InputError(f"{output} exists; give --overwrite to replace it or --resume to go on.")
    if args.network == "levels":
        return _run_levels(args, output)
    if args.network != "sam":
        return _run_small(args, output)
    from ..training.sam.recipe import train
    from ..training.sam.settings import SamSettings

    settings = SamSettings.from_file(Path(args.config)) if args.config else SamSettings()
    if args.dimension is not None:
        settings = SamSettings.from_dict({**settings.to_dict(), "dimension": args.dimension})
    if args.threads is not None:
        if args.threads < 1:
            raise InputError("--threads must be at least 1.")
        settings = replace(settings, threads=args.threads)
    if args.seed is not None:
        settings = replace(settings, seed=args.seed)
    cancelled = getattr(args, "cancelled", None)
    progress = ConsoleProgress(args.progress, [("data", 0.1), ("train", 0.9)], cancelled)
    data: Path | list = Path(args.data)
    if args.data == PHANTOM:
        from ..training.sam.phantoms import phantom_cases, with_phantom_validation

        settings = with_phantom_validation(settings)
        data = phantom_cases(settings.spacing_mm, progress=lambda f, m: progress("data", f, m))
    result = train(
        data,
        output,
        settings=settings,
        minutes=args.minutes,
        steps=args.steps,
        resume=args.resume,
        start_from=args.start_from,
        cache=args.cache,
        device=args.device,
        progress=progress,
    )
    print(f"{output}: {result['step']} steps in {result['seconds'] / 60:.1f} minutes")
    if result["validation"]:
        print(json.dumps(result["validation"]))
    return 0


def _run_levels(args: argparse.Namespace, output: Path) -> int:
    """Build the reference of body levels; no steps are taken, so nothing limits or resumes them."""
    from ..training.levels import LevelSettings, build
    from ..training.loop import read_settings

    if args.config is None or args.data == PHANTOM:
        raise InputError(
            "train levels needs --config with the levels of real CTs; see training/configs/levels_ct.json."
        )
    if args.resume or args.start_from or args.steps is not None:
        raise InputError("train levels goes through the images once; leave out --resume, --start-from and --steps.")
    _check_cpu(args)
    settings = read_settings(LevelSettings, Path(args.config))
    if args.threads is not None:
        settings.threads = max(1, args.threads)
    progress = ConsoleProgress(args.progress, [("data", 1.0)], getattr(args, "cancelled", None))
    result = build(Path(args.data), output, settings=settings, progress=progress)
    print(f"{output}: {result['places']} places of {result['cases']} bodies")
    return 0


def _check_cpu(args: argparse.Namespace) -> None:
    if args.device not in ("auto", "cpu"):
        raise InputError(f"train {args.network} computes on the CPU; leave out --device.")


def _run_small(args: argparse.Namespace, output: Path) -> int:
    """The recipes that share :mod:`samconvex.training.loop`."""
    from ..training import lapirn, masr, same, semantic, sides, suits
    from ..training.loop import read_settings

    kinds = {
        "masr": masr.MasrSettings,
        "semantic": semantic.SemanticSettings,
        "lapirn": lapirn.LapirnSettings,
        "same": same.SameSettings,
        "sides": sides.SidesSettings,
    }
    kind = kinds.get(args.network, suits.SuitsSettings)
    settings: Any = read_settings(kind, Path(args.config) if args.config else None)
    if args.threads is not None:
        settings.threads = max(1, args.threads)
    if args.seed is not None:
        settings.seed = args.seed
    options = {
        "minutes": args.minutes,
        "steps": args.steps,
        "resume": args.resume,
        "start_from": Path(args.start_from) if args.start_from else None,
        "device": args.device,
        "progress": ConsoleProgress(args.progress, [("data", 0.1), ("train", 0.9)], getattr(args, "cancelled", None)),
    }
    data = None if args.data == PHANTOM else Path(args.data)
    if isinstance(settings, masr.MasrSettings):
        result = masr.train(data, output, settings=settings, **options)
    elif isinstance(settings, semantic.SemanticSettings):
        result = semantic.train(data, output, settings=settings, **options)
    elif isinstance(settings, lapirn.LapirnSettings):
        result = lapirn.train(data, output, settings=settings, **options)
    elif isinstance(settings, same.SameSettings):
        result = same.train(data, output, settings=settings, **options)
    elif isinstance(settings, sides.SidesSettings):
        result = sides.train(data, output, settings=settings, **options)
    else:
        _check_cpu(args)
        del options["device"]
        result = suits.train(data, output, end_to_end=args.network == "suits", settings=settings, **options)
    print(f"{output}: {result['step']} steps in {result['seconds'] / 60:.1f} minutes")
    print(json.dumps(result["validation"]))
    return 0
