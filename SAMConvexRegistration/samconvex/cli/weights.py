"""``samconvex weights``: list, verify, import, remove and locate network weights."""

from __future__ import annotations

import argparse

EXPLANATION = """
Network weights: those shipped, and files you import (this project's or the published SAM, UAE and LapIRN checkpoints).
"""


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = EXPLANATION.strip()
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    actions.add_parser("list", help="names, where they come from, size and checksum")
    verify = actions.add_parser("verify", help="compare files with their checksums; status 2 if one differs")
    verify.add_argument("name", nargs="?", metavar="NAME", help="only these weights")
    imported = actions.add_parser("import", help="check a weights file and copy it into your folder")
    imported.add_argument("file", metavar="FILE", help="checkpoint of this project, SAM, UAE or LapIRN (.pt, .pth)")
    imported.add_argument("--name", metavar="NAME", help="how to call it (default: the file's name)")
    remove = actions.add_parser("remove", help="delete imported weights")
    remove.add_argument("name", metavar="NAME")
    path = actions.add_parser("path", help="print the file that a name stands for")
    path.add_argument("name", nargs="?", metavar="NAME", help="default: the network used when none is named")


def run_weights(args: argparse.Namespace) -> int:
    """Do what ``args`` say."""
    from ..errors import InputError
    from ..weights import registry
    from ..weights.importing import import_weights

    if args.action == "list":
        print(f"{'name':<16} {'origin':<9} {'network':<12} {'modality':<8} {'MiB':>6}  sha256")
        for entry in registry.known_weights():
            size = entry.bytes / 2**20
            print(
                f"{entry.name:<16} {entry.origin:<9} {entry.network:<12} {entry.modality:<8} {size:6.1f}  "
                f"{entry.sha256[:16]}"
            )
        print(f"Imported weights lie in {registry.imported_folder()}.")
    elif args.action == "verify":
        results = registry.verify(args.name)
        for entry, verdict in results:
            print(f"{entry.name}: {verdict}")
        bad = [entry for entry, verdict in results if verdict != "ok"]
        if bad:
            raise InputError(f"{bad[0].path} differs from what was {bad[0].origin}; install or import it again.")
    elif args.action == "import":
        entry = import_weights(args.file, args.name)
        print(f"{entry.name}: {entry.network} weights in {entry.path}")
    elif args.action == "remove":
        print(f"removed {registry.remove(args.name)}")
    else:
        print(registry.path_of(args.name))
    return 0
