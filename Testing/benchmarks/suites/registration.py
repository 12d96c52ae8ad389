"""Registration benchmark: our presets against convexAdam, elastix, ANTs and greedy; same pairs, same start.

Every (method, pair) is a process of its own with two threads; its record is on disk as soon as it ends, so that a stop
or a crash loses one run at most and ``--resume`` goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..data.pairs import REPOSITORY, Pair, choose_pairs, data_folder, organ_names
from ..methods.peers import DEEDS
from ..methods.peers import METHODS as PEERS
from ..methods.runs import (
    TIMES,
    command_of,
    create_peers_environment,
    describe_machine,
    preset_of,
    run_all,
    run_process,
)
from ..results.drawing import draw
from ..results.records import commands_of, remember_command
from ..results.tables import compare, markdown, summarize, time_ratios

# "samconvex" stands for the preset of the pair's kind.
DEFAULT_METHODS = ("samconvex", "samconvex-fast-preview", "convexadam", "greedy", "ants", "elastix")


def main(arguments: Sequence[str] | None = None, publish: Callable[[Path], object] | None = None) -> int:
    """Run the suite; the exit status is 1 if a run failed."""
    parser = argparse.ArgumentParser(prog="samconvex benchmark --suite registration", description=__doc__)
    parser.add_argument("--pairs", type=int, default=20, metavar="N", help="head-neck pairs (default: all 20)")
    parser.add_argument("--abdomen", type=int, default=15, metavar="N", help="abdomen pairs (default: all 15)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the pair TEXT, or all whose name contains it")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=list(DEFAULT_METHODS),
        metavar="METHOD",
        help=f"among samconvex, samconvex-own, samconvex-PRESET[-own], {', '.join(PEERS)}",
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmark-output", metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="keep the finished runs found in DIR")
    parser.add_argument("--starts", type=Path, metavar="DIR", help="use DIR/PAIR.tfm as common start where it exists")
    parser.add_argument("--threads", type=int, default=2, help="for every method (default 2)")
    parser.add_argument("--untimed", action="store_true", help="record no times: the machine is busy with other work")
    parser.add_argument("--deeds", type=Path, metavar="DIR", help="folder of deedsBCV's programs, for the method deeds")
    parser.add_argument("--no-peers", action="store_true", help="only our own methods")
    if publish:
        parser.add_argument("--publish", action="store_true", help="then write RESULTS.md here from what DIR holds")
    chosen = parser.parse_args(arguments)
    methods = [name for name in chosen.methods if not (chosen.no_peers and name in PEERS)]
    unknown = [name for name in methods if name not in PEERS and preset_of(name, "ct-inter-patient") is None]
    if unknown:
        parser.error(f"unknown method {unknown[0]!r}")
    if "deeds" in methods:
        if chosen.deeds is None or not (chosen.deeds / "deedsBCV").is_file():
            parser.error("the method deeds needs --deeds, the folder of its programs (github.com/mattiaspaul/deedsBCV)")
        os.environ[DEEDS] = str(chosen.deeds.resolve())
    if any(name in PEERS for name in methods):
        create_peers_environment()
    data = data_folder()
    if data is None:
        print("The evaluation images are absent (SAMCONVEX_DATA); procedural phantoms stand in.", flush=True)
    offered = choose_pairs(chosen.pairs, data, chosen.abdomen)
    pairs = [pair for pair in offered if chosen.only == pair.name]
    pairs = pairs or [pair for pair in offered if chosen.only in pair.name]
    if not pairs:
        parser.error(f"no pair's name contains {chosen.only!r}")

    def launch(method: str, pair: Pair, job: Path, output: Path) -> dict:
        record = run_process(command_of(method, pair.preset, job, output, chosen.threads), output, chosen.threads)
        return {key: item for key, item in record.items() if not (chosen.untimed and key in TIMES)}

    remember_command(chosen.output, "registration", sys.argv[1:] if arguments is None else arguments)
    records = run_all(pairs, methods, chosen.output, launch, resume=chosen.resume, starts=chosen.starts)
    document = write_results(chosen.output)
    draw(chosen.output / "registration.json")
    print(markdown(document))
    if publish and chosen.publish:
        publish(chosen.output)
    return int(any("failed" in record for record in records))


def write_results(output: Path) -> dict:
    """Gather every record on disk into registration.json and registration.md; returns the document."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((output / "runs").glob("*/*.json"))]
    groups = ["head-neck", "abdomen", "lung", "liver MR", "known warp", "phantom"]
    order = ["start", *DEFAULT_METHODS]
    records.sort(
        key=lambda record: (
            groups.index(record["group"]) if record["group"] in groups else len(groups),
            record["pair"],
            order.index(record["method"]) if record["method"] in order else len(order),
            record["method"],
        )
    )
    document = {
        "machine": describe_machine(),
        "commands": commands_of(output),
        "summary": summarize(records),
        "comparisons": compare(records),
        "time_ratios": time_ratios(records),
        "organs": organ_names(),
        "records": records,
    }
    (output / "registration.json").write_text(json.dumps(document, indent=1))
    (output / "registration.md").write_text(markdown(document))
    return document


if __name__ == "__main__":
    raise SystemExit(main())
