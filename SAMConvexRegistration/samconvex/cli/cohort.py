"""``samconvex cohort``: the rows of a manifest on many workers; ``status`` and ``report`` of a cohort's folder."""

from __future__ import annotations

import argparse
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import NoReturn

from ..errors import CHECK_FAILED, Cancelled, InputError
from .console import ConsoleProgress
from .options import add_progress, positive_float, positive_int

PLAN = (("check", 2.0), ("store", 8.0), ("jobs", 90.0))

EXPLANATION = """
Run the rows of MANIFEST, a CSV (also with semicolons) or JSON: a column "command" (register, match, track or apply;
register if absent), columns named after the arguments of that command (fixed, moving, preset, moving_labels, ...; lists
as a|b|c), and, if you like, name, patient and visit. Relative paths start at the manifest. All rows are checked before
the first one runs. OUTDIR gets
  jobs/NAME/      what the single command writes, for every row
  results.csv     every row with its figures, verdict and warnings;  index.html the same for the eye, worst first
  logs/NAME.log   what the command said
  jobs.jsonl      the table of jobs;  cohort.json versions, weights, options
'samconvex cohort status OUTDIR' counts, 'samconvex cohort report OUTDIR' writes results.csv and index.html again.
Exit status: 0 all rows are done, 5 some failed, 2 nothing was started.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = EXPLANATION.strip()
    parser.add_argument("manifest", metavar="MANIFEST", nargs="+", help="the rows; or: status DIR, report DIR")
    parser.add_argument("-o", "--output", metavar="OUTDIR", help="folder for the results")
    parser.add_argument("--resume", action="store_true", help="go on in OUTDIR: only what is not done, or has changed")
    parser.add_argument("--overwrite", action="store_true", help="run everything again in the OUTDIR of a cohort")
    parser.add_argument(
        "--skip-faulty", action="store_true", help="run the rows without faults, report the others as failed"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="cell of every row that leaves this column empty, such as preset=fast-preview; may be given again",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--workers", type=positive_int, metavar="N", help="processes (default: what memory and cores allow)"
    )
    machine.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a running dask scheduler, such as tcp://host:8786, instead"
    )
    machine.add_argument(
        "--recycle", type=positive_float, default=60.0, metavar="MIN", help="age at which a worker is replaced (60)"
    )
    machine.add_argument(
        "--store", metavar="DIR", help="what is known of images, for all rows (default: OUTDIR/.store)"
    )
    machine.add_argument(
        "--store-limit", type=positive_float, default=20.0, metavar="GIB", help="what the store may take (20)"
    )
    add_progress(machine)


def _setting(text: str) -> tuple[str, str]:
    """argparse type of --set."""
    name, equals, value = text.partition("=")
    if not (name.strip() and equals and value):
        raise argparse.ArgumentTypeError(f"{text} is no NAME=VALUE")
    return name.strip().lstrip("-").replace("-", "_"), value


def run(args: argparse.Namespace) -> int:
    """Run a manifest, or tell of a cohort's folder."""
    if args.manifest[0] in ("status", "report") and not (len(args.manifest) == 1 and Path(args.manifest[0]).exists()):
        return _tell(args)
    if len(args.manifest) > 1:
        raise InputError(f"Give one manifest, not {len(args.manifest)}; its rows name the images.")
    if not args.output:
        raise InputError("-o OUTDIR is missing; name the folder for the results.")
    from ..cohort.cluster import check_dask

    check_dask()
    from ..cohort.commands import COMMANDS
    from ..cohort.manifest import fault_table
    from ..cohort.run import ManifestFaults, Request, run_cohort
    from ..cohort.table import is_cohort

    request = Request(
        Path(args.manifest[0]).absolute(),
        Path(args.output).absolute(),
        args.workers,
        args.scheduler,
        args.resume,
        args.overwrite,
        args.skip_faulty,
        Path(args.store).absolute() if args.store else None,
        args.store_limit,
        60.0 * args.recycle,
        dict(args.set),
    )
    progress = ConsoleProgress(args.progress, PLAN, args.cancelled)
    try:
        jobs = run_cohort(request, {name: row_parser(name) for name in COMMANDS}, run_row, progress)
    except ManifestFaults as error:
        progress.clear()
        sys.stderr.write(fault_table(error.faults) + "\n")
        raise
    except Cancelled as error:
        if not is_cohort(request.folder):
            raise
        raise Cancelled("Cancelled; the rows that are done stay done: go on with --resume.") from error
    progress.finish(args.output)
    if args.progress != "json":
        print("\n".join(_summary(jobs, args.output)))
    return CHECK_FAILED if any(job.status != "done" for job in jobs) else 0


def _tell(args: argparse.Namespace) -> int:
    from ..cohort.run import publish
    from ..cohort.table import load_table

    if len(args.manifest) != 2:
        raise InputError(f"cohort {args.manifest[0]} needs the output folder of one cohort.")
    folder = Path(args.manifest[1]).absolute()
    jobs = load_table(folder)
    if args.manifest[0] == "report":
        publish(folder, jobs)
    print("\n".join(_summary(jobs, args.manifest[1])))
    return CHECK_FAILED if any(job.status == "failed" for job in jobs) else 0


def _summary(jobs: list, folder: str) -> list[str]:
    counts = Counter(job.status for job in jobs)
    lines = [f"{job.name} (row {job.row}): {job.sentence}" for job in jobs if job.status == "failed"]
    said = ", ".join(f"{counts[status]} {status}" for status in ("done", "failed", "waiting") if counts[status])
    return [*lines, f"{len(jobs)} rows: {said}. Results are in {folder}."]


class _RowParser(argparse.ArgumentParser):
    """Says what is wrong with a cell as an error, not by ending the program."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}.")


def row_parser(command: str) -> argparse.ArgumentParser:
    """The parser of a single command, for the cells of a row."""
    from .main import add_arguments_of

    parser = _RowParser(prog=command, add_help=False, allow_abbrev=False)
    add_arguments_of(command, parser)
    return parser


def run_row(words: list[str], stop: threading.Event) -> int:
    """Run the words of a row as the single command would, in this thread; returns the exit status."""
    from .main import run_words

    return run_words(words, stop)
