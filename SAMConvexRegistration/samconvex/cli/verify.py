"""``samconvex verify``: runs the registration of a report again, elsewhere, and compares the results."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..errors import CHECK_FAILED, InputError, check_at_hand, refusing
from ..io.files import file_sha256
from .console import ConsoleProgress
from .options import add_progress, positive_float
from .register import FURTHER, PLAN, perform
from .register import add_arguments as register_arguments

EXPLANATION = """
Run the registration of a report.json again in a temporary folder and compare: the same inputs (SHA-256), version and
weights, then the maps in mm, the warped image and every figure. The transforms and the warped image of the earlier run
are looked for beside the report. Nothing is written.
Exit status: 0 where the results are identical or within the tolerance and version and weights are the same, 5 where
not, 2 where an input is missing or has changed.
"""
_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = EXPLANATION.strip()
    parser.add_argument("report", metavar="REPORT", help="report.json of samconvex register")
    parser.add_argument("--inputs", metavar="DIR", help="folder of the inputs (default: where they were)")
    parser.add_argument(
        "--tolerance", type=positive_float, default=0.1, metavar="MM", help="what still counts as the same (0.1 mm)"
    )
    add_progress(parser)


def run(args: argparse.Namespace, register: Callable[..., Any] | None = None) -> int:
    """Check, run again, compare, print; ``register`` replaces the engine's in tests."""
    path = Path(args.report)
    earlier = _read(path)
    found = _inputs(earlier["inputs"], args.inputs)
    progress = ConsoleProgress(args.progress, [*PLAN, ("compare", 1.0)], args.cancelled)
    lines, same = _circumstances(earlier)
    with tempfile.TemporaryDirectory(prefix="samconvex-verify-") as folder:
        again = _asked_again(earlier["options"], found, str(Path(folder) / "again"))
        report = perform(again, progress, register)
        progress("compare", 0.0)
        difference = _compared(path, earlier, Path(again.output), report, found["fixed"])
    progress.finish()
    lines.append(_setup_line(earlier, report))
    agrees = difference.map_max_mm <= args.tolerance and not difference.beyond(args.tolerance)
    lines += _differences(difference, args.tolerance)
    passed = same and agrees
    lines.append(_verdict(difference, agrees, same, args.tolerance))
    if args.progress != "json":
        print("\n".join(lines))
    return 0 if passed else CHECK_FAILED


def _read(path: Path) -> dict[str, Any]:
    """The report, with everything that is needed to run it again.

    Raises:
        InputError: missing, no JSON, or not a report that can be repeated.
    """
    check_at_hand(path, "of the registration's report.json")
    with refusing(f"{path} is no report of samconvex register; give its report.json."):
        report = json.loads(path.read_text(encoding="utf-8"))
        complete = all(isinstance(report.get(key), dict) for key in ("inputs", "options"))
        complete = complete and {"fixed", "moving"} <= set(report["inputs"])
    if not complete:
        raise InputError(
            f"{path} does not say with which inputs and options it was made (a version before 0.1.0, or Python); "
            "register again with `samconvex register`."
        )
    return report


class _Parser(argparse.ArgumentParser):
    """Reads the options of a report as if they were typed."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"The report asks for what this version does not know ({message}); register again.")


def _asked_again(options: Mapping[str, Any], found: Mapping[str, str], output: str) -> argparse.Namespace:
    """The arguments of `samconvex register` that repeat the report's run."""
    words = [found["fixed"], found["moving"], "--output", output]
    for name, value in {**options, **{name: found[name] for name in FURTHER if name in found}}.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            words.append(f"{option}={value}")
    parser = _Parser(prog="verify")
    register_arguments(parser)
    return parser.parse_args(words)


def _inputs(records: Mapping[str, Any], folder: str | None) -> dict[str, str]:
    """Where every input lies now.

    Raises:
        InputError: one is missing, or is not what it was.
    """
    found = {}
    for name, record in records.items():
        if name not in ("fixed", "moving", *FURTHER):
            raise InputError(f"The report names an input {name!r} that this version does not know; update samconvex.")
        words = name.replace("_", " ")
        with refusing(f"The report does not say where the {words} was; register again."):
            path, checksum = Path(record["path"]), record["sha256"]
        if folder is not None:
            path = Path(folder) / path.name
        if not path.exists():
            raise InputError(f"{path} ({words}) is missing; put it back, or give its folder with --inputs.")
        if file_sha256(path) != checksum:
            raise InputError(f"{path} ({words}) is not the file that was registered (checksum); find the original.")
        found[name] = str(path)
    return found


def _circumstances(earlier: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Lines on inputs, version and weights, and whether the last two are the same."""
    from ..version import __version__
    from ..weights.models import identity_of

    version, weights = earlier.get("version"), earlier.get("weights", {})
    lines = [f"Inputs:   {len(earlier['inputs'])} files, the same as then"]
    same = version == __version__
    lines.append(f"Version:  {__version__}" + (", the same" if same else f", but {version} then"))
    given = [earlier["options"].get(name) for name in ("weights", "initial_network")]
    changed = []
    for family, entry in weights.items():
        now = identity_of(family, *given)
        if now["sha256"] != entry.get("sha256"):
            changed.append(f"{entry.get('name')} (now {now['name']}, {now['sha256'][:12]})")
    names = ", ".join(str(entry.get("name")) for entry in weights.values()) or "none"
    lines.append(f"Weights:  {names}, the same" if not changed else f"Weights:  others than then: {'; '.join(changed)}")
    return lines, same and not changed


def _setup_line(earlier: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """What else was otherwise: computer, libraries, threads."""
    then, now = ({**run.get("environment", {}), **_plain(run)} for run in (earlier, report))
    other = [f"{key} {then.get(key)} then, {now[key]} now" for key in now if then.get(key) != now[key]]
    return "Computer: as then" if not other else f"Computer: {'; '.join(other)}"


def _plain(report: Mapping[str, Any]) -> dict[str, Any]:
    return {key: report.get(key) for key in ("device", "threads")}


def _compared(path: Path, earlier: Mapping[str, Any], folder: Path, report: Mapping[str, Any], fixed: str) -> Any:
    from ..io.images import read_volume
    from ..report.comparison import compared
    from ..report.document import plain

    return compared(path.parent, folder, (earlier, plain(report)), read_volume(fixed).grid)


def _differences(difference: Any, tolerance_mm: float) -> list[str]:
    lines = []
    for name, part in (("Map:      ", difference.map_mm), ("Inverse:  ", difference.inverse_mm)):
        if part is None:
            lines.append(f"{name}not compared, its file is not beside the report")
        else:
            lines.append(f"{name}{part['mean']:.4f} mm apart on average, {part['max']:.4f} mm at most")
    if difference.warped is None:
        lines.append("Warped:   not compared, its file is not beside the report")
    else:
        largest, share = difference.warped
        lines.append(f"Warped:   {share:.2f} % of the voxels differ, by {largest:g} at most")
    same = difference.compared - len(difference.figures)
    lines.append(f"Figures:  {same} of {difference.compared} the same")
    beyond = difference.beyond(tolerance_mm)
    for name, then, now in (beyond or difference.figures)[:_SHOWN]:
        lines.append(f"  {name}: {_number(then)} in the report, {_number(now)} now")
    return lines


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "nothing" if value is None else str(value)


def _verdict(difference: Any, agrees: bool, same: bool, tolerance_mm: float) -> str:
    if difference.identical:
        verdict = "Identical"
    elif agrees:
        verdict = f"The same within {tolerance_mm:g} mm"
    else:
        verdict = "Different"
    return verdict + ("." if same else ", but made by another version or with other weights.")
