"""``samconvex presets``: what there is to choose from, and what it will cost."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import TYPE_CHECKING

from ..settings.strength import QUALITIES
from .options import add_strength

if TYPE_CHECKING:
    from ..settings.registration import Settings

EXPLANATION = """
List the presets with the expected time (on two CPU cores) and memory of registering two volumes of the given size, and
the numbers that the chosen flexibility makes of each: coupling / box filters / regularization of the refinement.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = EXPLANATION.strip()
    parser.add_argument(
        "--size",
        nargs=3,
        type=int,
        default=(512, 512, 300),
        metavar=("X", "Y", "Z"),
        help="voxels along x, y, z (default: 512 512 300)",
    )
    parser.add_argument(
        "--spacing",
        nargs=3,
        type=float,
        default=(0.8, 0.8, 1.0),
        metavar=("X", "Y", "Z"),
        help="millimeters per voxel (default: 0.8 0.8 1.0)",
    )
    parser.add_argument("--image", metavar="F", help="take size and spacing from this image")
    parser.add_argument("--features", metavar="NAME", help="forecast with this descriptor instead of each preset's own")
    parser.add_argument("--refine", choices=("none", "adam", "diffusion"), help="forecast with this last step")
    parser.add_argument("--quality", choices=QUALITIES, default="standard", help="forecast at this quality")
    parser.add_argument("--symmetric", action="store_true", help="forecast both directions")
    add_strength(parser, "show the numbers of this flexibility (default: normal)")
    parser.add_argument("--json", action="store_true", help="print one JSON object with all settings")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from ..errors import InputError
    from ..io.images import read_grid
    from ..registration.forecast import forecast
    from ..report.document import plain
    from ..settings.presets import PRESETS
    from ..settings.strength import STRENGTHS, adjusted, stiffness_numbers
    from ..space.grid import Grid

    if min(args.size) < 1 or min(args.spacing) <= 0:
        raise InputError("--size and --spacing need numbers above 0.")
    grid = read_grid(args.image) if args.image else Grid(tuple(args.size), tuple(args.spacing))
    # One that ends with the linear map has one quality.
    listed = {
        name: adjusted(settings, quality=args.quality) if settings.deforms else settings
        for name, settings in PRESETS.items()
    }
    costs = {name: forecast(_chosen(settings, args), grid, grid) for name, settings in listed.items()}
    if args.json:
        listing = {
            name: {
                "settings": plain(adjusted(settings, args.strength)),
                "forecast": plain(costs[name]),
                "strengths": {word: stiffness_numbers(adjusted(settings, word)) for word in STRENGTHS},
            }
            for name, settings in listed.items()
        }
        print(json.dumps(listing, indent=2))
        return 0
    size, spacing = "x".join(map(str, grid.size)), " x ".join(f"{s:g}" for s in grid.spacing)
    print(f"Expected for a pair of {size} voxels of {spacing} mm on two cores:\n")
    print(f"{'preset':<20}{'seconds':>8}{'GiB':>7}  {args.strength:<16}use")
    for name, settings in listed.items():
        lines = textwrap.wrap(settings.description, 66)
        numbers = " / ".join(f"{value:g}" for value in stiffness_numbers(adjusted(settings, args.strength)).values())
        print(f"{name:<20}{costs[name].seconds:>8.0f}{costs[name].memory_gib:>7.1f}  {numbers:<16}{lines[0]}")
        for line in lines[1:]:
            print(" " * 53 + line)
    return 0


def _chosen(settings: Settings, args: argparse.Namespace) -> Settings:
    """A preset's settings with what was chosen beside it; one that ends with the linear map takes none of it.

    Raises:
        InputError: a feature that does not exist.
    """
    from dataclasses import replace

    from ..registration.options import Options

    if not settings.deforms:
        return settings
    chosen = Options(preset=settings, features=args.features, refine=args.refine).settings()
    return replace(chosen, symmetric=chosen.symmetric or args.symmetric)
