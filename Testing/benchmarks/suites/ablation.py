"""Ablation suite: what each ingredient of a preset contributes, from the same affine start; and the paper's designs.

All variants of a pair run in one process, so that the images are embedded once; seconds are those of the deformable
stages alone. Every (pair, variant) is on disk as soon as it ends.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import samconvex
import torch
from samconvex.settings.presets import PRESETS
from samconvex.settings.registration import Settings
from samconvex.space.transforms import Transform

from ..data.pairs import REPOSITORY, Case, Pair, choose_pairs, data_folder
from ..methods.assess import assess
from ..methods.job import common_grid, common_start
from ..methods.runs import describe_machine
from ..results.paired import interval, wilcoxon
from ..results.records import commands_of, folder_of, remember_command
from ..results.tables import by_pair, merit_of, summarize
from .variants import variants

STAGES = ("coarse", "convex", "refine", "finish")
Run = Callable[[Case, Settings, Transform], tuple[Transform, float]]


def main(arguments: Sequence[str] | None = None, publish: Callable[[Path], object] | None = None) -> int:
    """Run the suite; the exit status is 1 if a run failed."""
    parser = argparse.ArgumentParser(prog="samconvex benchmark --suite ablation", description=__doc__)
    parser.add_argument("--pairs", type=int, default=6, metavar="N", help="head-neck pairs (default 6)")
    parser.add_argument("--abdomen", type=int, default=0, metavar="N", help="abdomen pairs (default none)")
    parser.add_argument(
        "--weights", metavar="FILE", help="of one network, instead of the shipped ones; in a DIR of its own"
    )
    parser.add_argument("--preset", default="ct-inter-patient", choices=sorted(PRESETS), metavar="NAME")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT", help="only these variants, or all whose name contains one"
    )
    parser.add_argument("--list", action="store_true", help="name the variants and end")
    parser.add_argument("--starts", type=Path, metavar="DIR", help="use DIR/PAIR.tfm as SAM-affine where it exists")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmark-output", metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="keep the finished runs found in DIR/ablation")
    parser.add_argument("--untimed", action="store_true", help="record no times: the machine is busy with other work")
    parser.add_argument("--threads", type=int, default=2)
    if publish:
        parser.add_argument("--publish", action="store_true", help="then write RESULTS.md here from what DIR holds")
    chosen = parser.parse_args(arguments)
    offered = variants(PRESETS[chosen.preset])
    rows = [row for row in offered if row[0] in chosen.only]
    rows = rows or [row for row in offered if any(text in row[0] for text in chosen.only)]
    if chosen.list:
        print("\n".join(name for name, _ in rows))
        return 0
    if not rows:
        parser.error(f"no variant's name contains {chosen.only!r}")
    torch.set_num_threads(chosen.threads)
    # Lung and known warps have presets of their own; phantoms stand in for absent images.
    offered_pairs = choose_pairs(chosen.pairs, data_folder(), chosen.abdomen)
    pairs = [pair for pair in offered_pairs if pair.group in ("head-neck", "abdomen", "phantom")]
    folder = folder_of(chosen.output, "ablation")
    remember_command(folder, "ablation", sys.argv[1:] if arguments is None else arguments)
    run = partial(register, weights=chosen.weights)
    start = partial(kept_start, folder=folder, starts=chosen.starts, weights=chosen.weights)
    records = run_all(pairs, rows, folder, run, start, resume=chosen.resume, untimed=chosen.untimed)
    write_results(folder)
    if publish and chosen.publish:
        publish(chosen.output)
    return int(any("failed" in record for record in records))


def register(case: Case, settings: Settings, start: Transform, weights: str | None = None) -> tuple[Transform, float]:
    """One registration of the native images from ``start``; the map, and the seconds of its deformable stages."""
    options = {} if case.masks is None else {"fixed_mask": case.masks[0], "moving_mask": case.masks[1]}
    result = samconvex.register(
        case.fixed, case.moving, preset=settings, initial_transform=start, weights=weights, device="cpu", **options
    )
    stages = result.report["seconds"]["stages"]
    return result.fixed_to_moving, sum(stages.get(stage, 0.0) for stage in STAGES)


def run_all(
    pairs: Sequence[Pair],
    rows: Sequence[tuple[str, Settings]],
    folder: Path,
    run: Run,
    start_of: Callable[[Pair, Case, Settings], Transform],
    *,
    resume: bool,
    untimed: bool = False,
) -> list[dict]:
    """Pair by pair, all variants in turn; returns the records."""
    records = []
    for pair in pairs:
        files = {name: folder / "runs" / pair.name / f"{_file_name(name)}.json" for name, _ in rows}
        wanted = [(name, settings) for name, settings in rows if not (resume and _is_finished(files[name], settings))]
        if wanted:
            case = pair.load()
            grid = common_grid(case.fixed)
            # The first run also embeds the images; one before it, not counted, does that.
            warming = [] if untimed else [("", settings) for _, settings in wanted if settings.levels][:1]
            for name, settings in warming + wanted:
                start = start_of(pair, case, settings)
                record = {"pair": pair.name, "group": pair.group, "method": name, "settings": _described(settings)}
                try:
                    found, seconds = run(case, settings, start)
                except Exception as error:  # one variant's failure is a finding, and the others go on
                    record["failed"] = f"{type(error).__name__}: {error}"[:300]
                else:
                    record |= assess(case, found, grid) if name else {}
                    record |= {} if untimed else {"seconds": seconds}
                if name:
                    files[name].parent.mkdir(parents=True, exist_ok=True)
                    files[name].write_text(json.dumps(record, indent=1))
                    print(_line(record), flush=True)
        records += [json.loads(file.read_text(encoding="utf-8")) for file in files.values()]
    return records


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-+=" else "_" for letter in name)


def _described(settings: Settings) -> str:
    return repr(replace(settings, name="", description=""))


def _is_finished(file: Path, settings: Settings) -> bool:
    """A record that is whole, no failure, and of the same settings: presets change."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return "failed" not in record and record["settings"] == _described(settings)


def kept_start(
    pair: Pair, case: Case, settings: Settings, folder: Path, starts: Path | None = None, weights: str | None = None
) -> Transform:
    """The affine stage's result, found once for each kind of it."""
    affine, polish = settings.affine, settings.polish_affine
    given = None if starts is None or affine != "sam" else starts / f"{pair.name}.tfm"
    if given is not None and given.exists():
        return Transform.load(given)
    kept = folder / "starts" / f"{pair.name}-{affine}{'-' if polish else ''}{polish}.tfm"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        chosen = replace(PRESETS[pair.preset], affine=affine, polish_affine=polish)
        common_start(case, chosen, weights).save(kept)
    return Transform.load(kept)


def _line(record: dict) -> str:
    merit = merit_of([record])
    words = [f"{record['pair']:18}{record['method']:32}", record.get("failed", "")]
    words += [f"{merit[0]} {by_pair([record], record['method'], merit[1])[record['pair']]:.3f}"] if merit else []
    words += [f"{record['seconds']:.1f} s"] if "seconds" in record else []
    return "  ".join(filter(None, words))


def write_results(folder: Path) -> dict:
    """Gather the records into ablation.json and ablation.md, in the order of the variants; returns the document."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((folder / "runs").glob("*/*.json"))]
    order = [name for preset in PRESETS.values() for name, _ in variants(preset)]
    records.sort(key=lambda record: order.index(record["method"]) if record["method"] in order else len(order))
    document = {"machine": describe_machine(), "commands": commands_of(folder), "records": records}
    (folder / "ablation.json").write_text(json.dumps(document, indent=1))
    page = "\n".join(["# Ablation", "", *page_lines(document)])
    (folder / "ablation.md").write_text(page)
    print(page)
    return document


def page_lines(document: dict) -> list[str]:
    """One table per group: every variant against the preset on the pairs that both finished."""
    records = document["records"]
    lines = [
        "Every row is the preset with one change, on native images from the same affine (SAM-affine, or the",
        "learning-free one where the row says so). `difference` is the mean change of the figure against the preset on",
        "the same pairs, with the 95 % interval of a bootstrap over them and p of Wilcoxon's exact signed-rank test;",
        "`seconds` are those of the deformable stages. The paper's rows follow its pyramid designs and instance",
        "optimization with our embeddings and our solver. Without `semantic`, organs have no part in the start either.",
        "Labels are carried by nearest neighbor, `shares`: by the largest share, as users get them.",
        "",
    ]
    for group in dict.fromkeys(record["group"] for record in records):
        members = [record for record in records if record["group"] == group]
        merit = merit_of(members)
        if merit is None:
            continue
        title, path, _, decimals = merit
        lines += [
            f"### {group}",
            "",
            f"| variant | pairs | {title} | difference | 95 % | p | worst | shares | SDlogJ | folding % | seconds |",
            "|---|" + "---:|" * 10,
        ]
        preset = by_pair(members, "preset", path)
        for row in summarize(members):
            own = by_pair(members, row["method"], path)
            shares = by_pair(members, row["method"], ("dice_of_shares_mean",))
            common = [own[pair] - preset[pair] for pair in own if pair in preset]
            compared = bool(common) and row["method"] != "preset"
            cells = [
                row["method"],
                str(row["pairs"]),
                _cell(row.get(title), decimals),
                f"{np.mean(common):+.{decimals}f}" if compared else "",
                "{:+.{d}f} to {:+.{d}f}".format(*interval(common), d=decimals) if compared and len(common) > 1 else "",
                f"{wilcoxon(common):.3f}" if compared and len(common) > 1 else "",
                _cell(row.get("worst"), decimals),
                _cell(float(np.mean(list(shares.values()))) if shares else None, decimals),
                _cell(row.get("SDlogJ"), 2),
                _cell(row.get("folding %"), 3),
                _cell(row.get("seconds"), 1),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    failed = [record for record in records if "failed" in record]
    return lines + [f"- {record['pair']}, {record['method']}: {record['failed']}" for record in failed]


def _cell(number: float | None, decimals: int) -> str:
    return "" if number is None else f"{number:.{decimals}f}"


if __name__ == "__main__":
    raise SystemExit(main())
